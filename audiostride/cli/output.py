"""How a command prints its result: a table, or JSON, to stdout."""

import json
import sys
from typing import Any

import typer

from ..errors import printable


def print_table(renderable: Any) -> None:
    """Print something that rich renders, 120 columns wide where stdout is no terminal."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(markup=False, emoji=False)  # a class may be called [noise]
    if not console.is_terminal:
        console.width = 120
    # Rather lines that the terminal breaks than numbers without their ends.
    needed = Measurement.get(console, console.options.update(max_width=1000), renderable).minimum
    console.width = max(console.width, needed)
    console.print(renderable)


def print_rows(text: str) -> None:
    """Print lines of data: on a pipe exactly as they are, on a terminal with what is not printable escaped."""
    if sys.stdout is None:
        return
    if sys.stdout.isatty():
        sys.stdout.write(printable(text.replace("\r\n", "\n"), keep="\n\t"))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=1))
