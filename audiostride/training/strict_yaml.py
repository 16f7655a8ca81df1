"""YAML as data: no aliases, no duplicate keys, no implicit yes/no, numbers as YAML 1.2 writes them, bounded size."""

import re
from typing import Any

import yaml

from ..errors import RecipeError

MAX_DEPTH, MAX_VALUES = 20, 10_000


def parse_yaml(text: str, where: str) -> Any:
    """Plain data from YAML.

    Args:
        text: the YAML.
        where: what errors call it: a path, or the key of an override.

    Raises:
        RecipeError: names the line and what is wrong with it.

    Example:
        >>> parse_yaml("rate: 1e-3\\nanswer: no", "example")
        {'rate': 0.001, 'answer': 'no'}
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from None


class _StrictLoader(yaml.SafeLoader):
    """YAML without aliases, duplicate keys and surprises; nesting and size are bounded."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (typed so by yaml)
    depth = n_values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=self.peek_event().start_mark)
        self.depth, self.n_values = self.depth + 1, self.n_values + 1
        if self.n_values > MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"more than {MAX_VALUES:,} keys and values", problem_mark=self.peek_event().start_mark
            )
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        seen = set()
        for i, key in enumerate(keys):
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} is not text", problem_mark=node.value[i][0].start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} appears twice", problem_mark=node.value[i][0].start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.2 numbers, so that 1e-3 is one and 012, yes, no and 12:30 are text.
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]{0,18})$"), list("-+0123456789")
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?$"),
    list("-+.0123456789"),
)
