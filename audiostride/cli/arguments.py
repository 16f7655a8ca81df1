"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

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
Workers = Annotated[int, typer.Option(min=0, help="Threads that decode audio.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Windows the model sees at once.")]
Overlap = Annotated[
    float,
    typer.Option(
        metavar="SHARE", callback=_share, help="Share of each window that the next one repeats; at least 0, below 1."
    ),
]
Fetch = Annotated[
    bool, typer.Option("--fetch", help="Let the run's recipe download its data, and write where it says.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
