"""Before training: `recipes`, `init`, `validate`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .arguments import Json, Overrides, Recipe
from .output import print_json, print_table


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The recipe to copy.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to copy it; default: NAME.yaml here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that ship with audiostride, or copy one to edit it.

    [bold]Examples[/bold]

      audiostride recipes

      audiostride recipes speech_commands --out mine.yaml
    """
    from ..errors import UsageError
    from ..training.shipped_recipes import copy_recipe, shipped_recipes, summary_of

    if out is not None and name is None:
        raise UsageError("--out is where a recipe is copied to; name the recipe")
    if name is not None:
        typer.echo(str(copy_recipe(name, out or Path(f"{name}.yaml"))))
        return
    shipped = shipped_recipes() | shipped_recipes("images")
    summaries = {recipe: summary_of(path) for recipe, path in shipped.items()}
    if as_json:
        print_json(summaries)
        return
    from .terminal_tables import plain_table

    print_table(plain_table("Shipped recipes", ("name", "what it trains"), list(summaries.items())))


def init(
    path: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder of audio, or a .csv, .tsv or .jsonl table.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The recipe to write.")] = Path(
        "recipe.yaml"
    ),
    column: Annotated[str | None, typer.Option(metavar="NAME", help="The label column; default: guessed.")] = None,
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column that says what belongs together, such as speakers.")
    ] = None,
    root: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder of a table's files; default: the table's own.")
    ] = None,
    sample_rate: Annotated[
        int | None,
        typer.Option(min=100, metavar="HZ", help="Rate to train at; default: by the files' and where their energy is."),
    ] = None,
    allow_shared_groups: Annotated[
        bool, typer.Option("--allow-shared-groups", help="Accept speakers, groups or copies in more than one split.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at a folder or table of sounds, report what it holds, and write a recipe that trains on it.

    [bold]Examples[/bold]

      audiostride init my_sounds

      audiostride init calls.csv --column species --out calls.yaml
    """
    from ..data.inspection import inspect_path
    from ..files import check_absent, write_new
    from ..training.first_recipe import make_recipe
    from .progress import ProgressDisplay
    from .terminal_tables import findings_table

    check_absent(out)
    with ProgressDisplay() as display:
        found = inspect_path(path, column, group, display.progress, root)
    if as_json:
        print_json(found.as_dict())
    else:
        print_table(findings_table(found, path))
    write_new(out, make_recipe(path, found, sample_rate, allow_shared_groups, root))
    typer.echo(f"wrote {out}; train it with: audiostride train {shlex.quote(str(out))}", err=True)


def validate(
    recipe: Recipe,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Check a recipe and all of its data without training: every file is read, every split drawn.

    [bold]Examples[/bold]

      audiostride validate recipe.yaml

      audiostride validate folder tasks.label.data.path=my_sounds --json
    """
    from ..training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from ..training.build import check_recipe
    from .progress import ProgressDisplay
    from .terminal_tables import plain_table

    with ProgressDisplay() as display:
        checked = check_recipe(loaded, display.progress)
        for line in checked["bad_files"]:
            display.print(f"left out: {line}")
    if as_json:
        print_json(checked)
        return
    rows = [
        (name, task["kind"], str(len(task["labels"])), *(str(n) for n in task["clips"].values()))
        for name, task in checked["tasks"].items()
    ]
    print_table(plain_table(f"{recipe} is valid", ("task", "kind", "classes", "train", "validation", "test"), rows))
