"""How a command prints its result: a table, or JSON, to stdout."""

import json
from typing import Any

import typer


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


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=1))
