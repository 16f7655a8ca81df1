"""`Section`: a part of a recipe, checked by pydantic; its errors name key, value and the nearest valid name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Tag
from pydantic_core import PydanticKnownError

Channel = Literal["mix", "left", "right", "loudest"] | Annotated[int, Field(ge=1)]
"""The channel that is heard: the mean of all, the first, the second, the one of most energy, or a number from 1 on."""


class Section(BaseModel):
    """A part of a recipe: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def one_of(names: Iterable[str]) -> AfterValidator:
    """The value of a key must be one of these names; the error is that of a `Literal`.

    Example:
        >>> from typing import Annotated
        >>> class Example(Section):
        ...     schedule: Annotated[str, one_of(("cosine", "step"))]
        >>> Example(schedule="step").schedule
        'step'
    """
    *others, last = (repr(name) for name in names)
    expected = f"{', '.join(others)} or {last}"

    def check(name: str) -> str:
        if name not in names:
            raise PydanticKnownError("literal_error", {"expected": expected})
        return name

    return AfterValidator(check)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of mappings as one mapping with dotted keys.

    Example:
        >>> flatten({"model": {"smoothness": 1}, "seed": 0})
        {'model.smoothness': 1, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def explain_all(problems: Sequence[Any], kind: type[Section]) -> list[str]:
    """`explain` for each error of pydantic; of a value that may be of several kinds, by the one it comes nearest to."""
    paths = [_walk([str(part) for part in problem["loc"]], kind)[1] for problem in problems]
    return [
        explain(problem, kind)
        for problem, path in zip(problems, paths, strict=True)
        if not any(other[: len(path)] == path and len(other) > len(path) > 0 for other in paths)
    ]


def explain(problem: Any, kind: type[Section]) -> str:
    """One error of pydantic as a line: the key, what is wrong, the value, and the nearest name that exists.

    Args:
        problem: one of `ValidationError.errors()`.
        kind: the section that was checked.
    """
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    # pydantic puts the tag of a union (the data source, a type) into the location; it is no key of the recipe.
    location = [str(part) for part in problem["loc"]]
    section, path = _walk(location, kind)
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"{key}: no such key{nearest(path[-1], section)}"
    context = problem.get("ctx", {})
    if problem["type"].startswith("union_tag"):  # the section is one of several, chosen by one of its keys
        key += "." + context["discriminator"].strip("'()")
    if problem["type"] in ("missing", "union_tag_not_found"):
        return f"{key}: is missing"
    expected = context.get("expected") or context.get("expected_tags")
    given = context.get("tag", problem["input"])
    hint = nearest(str(given), re.findall(r"'([^']+)'", expected)) if expected else ""
    shown = repr(given)
    shown = shown if len(shown) < 80 else shown[:77] + "..."
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "union_tag_invalid":
        message = f"input should be one of {expected}"
    elif problem["type"] in ("dict_type", "model_type", "model_attributes_type"):
        message = "input should be a mapping of keys to values"
    return f"{key}: {message}, got {shown}{hint}"


_TYPE = re.compile(r"(constrained-)?(float|int|str|bool)|list\[.+\]")


def _walk(location: list[str], kind: type[Section]) -> tuple[Iterable[str], list[str]]:
    """Names that exist at the level of the last key of a location, and the location without union tags."""
    annotation: Any = kind
    names: Iterable[str] = ()
    path = []
    for part in location:
        if type(None) in get_args(annotation):  # a section that may be left out
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names = annotation.model_fields
            field = annotation.model_fields.get(part)
            annotation = field.annotation if field else None
            path.append(part)
        elif getattr(annotation, "__origin__", None) is dict:
            annotation = get_args(annotation)[1]
            path.append(part)
        elif tagged := [a for a in get_args(annotation) if _tag(a) == part]:
            annotation = tagged[0] if isinstance(tagged[0], type) else get_args(tagged[0])[0]
        elif not _TYPE.fullmatch(part):
            path.append(part)
    return names, path


def _tag(section: Any) -> str | None:
    tag = next((part.tag for part in get_args(section) if isinstance(part, Tag)), None)
    source = getattr(section, "model_fields", {}).get("source")
    return get_args(source.annotation)[0] if source else tag


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error line that suggests a name, or nothing if none is near.

    Example:
        >>> nearest("epoch", ["epochs", "seed"])
        "; did you mean 'epochs'?"
    """
    near = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
