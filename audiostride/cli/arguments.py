"""Arguments and options that several commands take, and options that travel together as one value."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..errors import UsageError


def _share(overlap: float) -> float:
    if not 0 <= overlap < 1:
        raise UsageError(f"--overlap {overlap:g}: it must be at least 0 and less than 1")
    return overlap


Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override any key of the recipe.")
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A directory that `train` made.")]
Model = Annotated[str, typer.Argument(metavar="RUN_DIR", help="A run directory, or hf-hub:USER/NAME.")]
Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="Files, folders, patterns; - reads a sound from stdin.")
]
Overlap = Annotated[
    float,
    typer.Option(
        metavar="SHARE", callback=_share, help="Share of each window that the next one repeats; at least 0, below 1."
    ),
]


def _channel(text: str) -> str | int:
    if text in ("mix", "left", "right", "loudest"):
        return text
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"--channel {text}: it must be mix, left, right, loudest or a number from 1 on")


ChannelOption = Annotated[
    Any,
    typer.Option(
        "--channel",
        metavar="mix|left|right|loudest|N",
        parser=_channel,
        help="The channel to hear of several; default: the one that the model was trained on.",
    ),
]
Fetch = Annotated[
    bool, typer.Option("--fetch", help="Let the run's recipe download its data, and write where it says.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True)
class Machine:
    """How much of the machine a model takes."""

    workers: Annotated[int, typer.Option(min=0, help="Threads that decode audio.")] = 2
    batch_size: Annotated[int, typer.Option(min=1, help="Windows the model sees at once.")] = 64


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer is to see it: a parameter that is a dataclass becomes one option for each of its fields.

    Example:
        >>> def embed(run_dir: str, machine: Machine) -> None:
        ...     print(run_dir, machine)
        >>> list(inspect.signature(spread(embed)).parameters)
        ['run_dir', 'workers', 'batch_size']
        >>> spread(embed)(run_dir="runs/mine", workers=0, batch_size=8)
        runs/mine Machine(workers=0, batch_size=8)
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if group := groups.get(name):
            types = get_type_hints(group, include_extras=True)
            parameters += [
                inspect.Parameter(field.name, parameter.kind, default=field.default, annotation=types[field.name])
                for field in fields(group)
            ]
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def spread_command(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    spread_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread_command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spread_command
