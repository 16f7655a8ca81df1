"""The `audiostride` command: parse, call, print. Nothing else.

stdout carries data, stderr progress and errors. Modules are imported where they are used, so that
`--help` answers at once.
"""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import AudiostrideError

app = typer.Typer(
    name="audiostride",
    help="Audio classification with CNNs that learn their temporal and spectral resolution.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A directory that `train` made.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"audiostride {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override any key of the recipe.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="RUN_DIR", help="Default: runs/NAME, or runs/NAME-2, ...")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a classifier, test it and leave everything in a run directory.

    [bold]Examples[/bold]

      audiostride train ripples

      audiostride train folder tasks.label.data.path=my_sounds --out runs/mine

      audiostride train folder tasks.label.data.path=my_sounds model.downsampling=strided train.epochs=5
    """
    from .recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from .display import ProgressDisplay, scores_table
    from .evaluate import Score
    from .run import run, run_directory

    run_dir = run_directory(loaded, out)
    with ProgressDisplay() as display:
        display.print(f"run directory: {run_dir}")
        results = run(loaded, run_dir, display.progress, display.on_start, display.on_step, display.on_epoch)
    if as_json:
        _print_json({"run_dir": str(run_dir)} | results)
        return
    scores = {task: Score(**{k: v for k, v in s.items() if k in Score._fields}) for task, s in results["tasks"].items()}
    _print(scores_table(scores, f"Test scores of {run_dir}"))


@app.command()
def evaluate(
    run_dir: RunDir,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Another folder of audio; default: the test set it was made with."),
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only this task.")] = None,
    as_json: Json = False,
) -> None:
    """Score a trained model on whole clips.

    [bold]Examples[/bold]

      audiostride evaluate runs/mine

      audiostride evaluate runs/mine --data other_sounds --task label --json
    """
    from .display import ProgressDisplay, scores_table
    from .run import evaluate_run

    with ProgressDisplay() as display:
        scores = evaluate_run(run_dir, data, task, display.progress)
    if as_json:
        _print_json({"tasks": {name: score.metrics() for name, score in scores.items()}})
    else:
        _print(scores_table(scores, f"Scores of {run_dir}"))


@app.command()
def cutoffs(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="One or more run directories.")],
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Input length; default: the training window.")] = None,
    as_json: Json = False,
) -> None:
    """Turn learned strides into cut-off frequencies: Hz along time, cycles per mel band along frequency.

    Several runs are converted one by one and averaged.

    [bold]Examples[/bold]

      audiostride cutoffs runs/mine

      audiostride cutoffs runs/seed0 runs/seed1 runs/seed2 --json
    """
    from .classifier import load
    from .cutoffs import model_cutoffs, summarise
    from .display import cutoff_tables
    from .errors import UsageError

    models = [load(run_dir) for run_dir in run_dirs]
    try:
        layers = summarise([model_cutoffs(model, seconds) for model in models])
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        _print_json({"runs": [str(run_dir) for run_dir in run_dirs], "layers": layers})
        return
    for table in cutoff_tables(layers, models[0].window_s if seconds is None else seconds, len(models)):
        _print(table)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Copy this one out.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to; default: NAME.yaml here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that ship with audiostride, or copy one out to change it.

    [bold]Examples[/bold]

      audiostride recipes

      audiostride recipes speech_commands --out mine.yaml
    """
    from .recipe import copy_recipe, shipped_recipes, summary_of

    if name is not None:
        typer.echo(str(copy_recipe(name, out or Path(f"{name}.yaml"))))
        return
    summaries = {recipe: summary_of(path) for recipe, path in shipped_recipes().items()}
    if as_json:
        _print_json(summaries)
        return
    from .display import plain_table

    _print(plain_table("Shipped recipes", ("name", "what it trains"), list(summaries.items())))


@app.command()
def init(
    path: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder of audio, or a .csv, .tsv or .jsonl table.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The recipe to write.")] = Path(
        "recipe.yaml"
    ),
    column: Annotated[str | None, typer.Option(metavar="NAME", help="The label column; default: guessed.")] = None,
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of what belongs together, such as speakers.")
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(min=100, metavar="HZ", help="To train at; default: the files', at most 16000.")
    ] = None,
    allow_shared_groups: Annotated[
        bool, typer.Option("--allow-shared-groups", help="Accept speakers, groups or copies on two sides.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at a folder or table of sounds, say what is there, and write a recipe that trains on it.

    [bold]Examples[/bold]

      audiostride init my_sounds

      audiostride init calls.csv --column species --out calls.yaml
    """
    from .data import read_path
    from .display import ProgressDisplay, findings_table
    from .errors import UsageError
    from .inspection import inspect, make_recipe

    if out.exists():
        raise UsageError(f"{out}: is there already; give another --out, or remove it first")
    with ProgressDisplay() as display:
        found = inspect(read_path(path), column, group, display.progress)
    if as_json:
        _print_json(found.as_dict())
    else:
        _print(findings_table(found, path))
    out.write_text(make_recipe(path, found, sample_rate, allow_shared_groups), encoding="utf-8")
    typer.echo(f"wrote {out}; train it with: audiostride train {out}", err=True)


@app.command()
def validate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override any key of the recipe.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a recipe and all of its data without training: every file is read, every split drawn.

    [bold]Examples[/bold]

      audiostride validate recipe.yaml

      audiostride validate folder tasks.label.data.path=my_sounds --json
    """
    from .recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from .display import ProgressDisplay, plain_table
    from .run import check_recipe

    with ProgressDisplay() as display:
        checked = check_recipe(loaded, display.progress)
        for line in checked["bad_files"]:
            display.print(f"left out: {line}")
    if as_json:
        _print_json(checked)
        return
    rows = [
        (name, task["kind"], str(len(task["labels"])), *(str(n) for n in task["clips"].values()))
        for name, task in checked["tasks"].items()
    ]
    _print(plain_table(f"{recipe} is sound", ("task", "kind", "classes", "train", "validation", "test"), rows))


@app.command(name="train-images")
def train_images(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override any key of the recipe.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="RUN_DIR", help="Default: runs/NAME. Finished runs are kept.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a residual net on images, or sweep its initial strides; a broken-off sweep goes on where it was.

    [bold]Examples[/bold]

      audiostride train-images cifar10 data.path=my_cifar10

      audiostride train-images cifar10_quick data.path=my_cifar10 train.epochs=1 'sweep={seed: [0, 1]}'
    """
    from .images import load_image_recipe, run_images, summarise_images

    loaded = load_image_recipe(recipe, overrides or [])
    from .display import ProgressDisplay, images_table

    run_dir = out or Path("runs", loaded.name)
    with ProgressDisplay() as display:
        display.print(f"run directory: {run_dir}")
        results = run_images(loaded, run_dir, display.progress, display.on_image_epoch)
    rows = summarise_images(results)
    if as_json:
        _print_json({"run_dir": str(run_dir), "runs": results, "summary": rows})
    else:
        _print(images_table(rows, f"Test scores of {run_dir}"))


def main() -> None:
    """Entry point: run the command and turn errors into one message and an exit code."""
    try:
        app()
    except AudiostrideError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of stdout is gone (`| head`); silence the flush at exit, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        full = "; free some space" if error.errno == errno.ENOSPC else ""
        _fail(f"{error.filename or ''}: {error.strerror or error}{full}".lstrip(": "), 1)


def _fail(message: str, exit_code: int) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    sys.exit(exit_code)


def _print(renderable: Any) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(renderable)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1))
