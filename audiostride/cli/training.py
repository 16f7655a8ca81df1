"""Training: `train`, `sweep`, `crossval`."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import Json, Overrides, Recipe
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..training.sweep import Outcome, Planned
    from .progress import ProgressDisplay


def train(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="RUN_DIR", help="Default: runs/NAME, or runs/NAME-2, ...")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out where it stopped, bit for bit.")
    ] = False,
    allow_inexact: Annotated[
        bool, typer.Option("--allow-inexact", help="Resume even if recipe, data, machine or versions changed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a classifier, test it and save everything in a run directory.

    [bold]Examples[/bold]

      audiostride train ripples

      audiostride train folder tasks.label.data.path=my_sounds --out runs/mine

      audiostride train folder tasks.label.data.path=my_sounds model.downsampling=strided train.epochs=5

      audiostride train folder tasks.label.data.path=my_sounds --out runs/mine --resume
    """
    from ..errors import UsageError
    from ..training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if loaded.sweep:
        raise UsageError(f"{recipe}: trains several runs; use audiostride sweep {recipe}, or set sweep={{}} for one")
    from ..training.directory import run_directory
    from ..training.evaluation import Score
    from ..training.processes import is_main
    from ..training.run import run
    from .terminal_tables import scores_table

    run_dir = run_directory(loaded, out, resume)
    with _display() as display, _if_stopped("continue with --resume"):
        display.run_dir = run_dir
        results = run(loaded, run_dir, display.report(), resume, allow_inexact)
    if not is_main():
        return
    if as_json:
        print_json({"run_dir": str(run_dir)} | results)
        return
    scores = {task: Score(**{k: v for k, v in s.items() if k in Score._fields}) for task, s in results["tasks"].items()}
    print_table(scores_table(scores, f"Test scores of {run_dir}"))


def sweep(
    recipe: Recipe,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of every run.")
    ] = None,
    grid: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=V1,V2,...", help="Values to try; may be repeated.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1,2", help="Default: the recipe's seed.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Default: runs/NAME-sweep.")] = None,
    as_json: Json = False,
) -> None:
    """Train a recipe over a grid of settings and seeds, or over those of its `sweep` key.

    Run the same command again to continue after an interruption: finished runs are never repeated.

    [bold]Examples[/bold]

      audiostride sweep ripples --seeds 0,1,2 --set model.downsampling=strided,spectral,diffstride

      audiostride sweep ripples --set train.stride_cost=0,0.1,1 --set model.smoothness=1,4 train.epochs=3
    """
    from ..errors import UsageError
    from ..training.recipe import load_recipe
    from ..training.sweep import plan_sweep

    if seeds is not None and not re.fullmatch(r"\s*[0-9]{1,18}\s*(,\s*[0-9]{1,18}\s*)*", seeds):
        raise UsageError(f"--seeds {seeds}: must be whole numbers separated by commas, such as 0,1,2")
    numbers = [int(seed) for seed in seeds.split(",")] if seeds else []
    folder = out or Path("runs", f"{load_recipe(recipe, overrides or []).name}-sweep")
    planned = plan_sweep(recipe, folder, grid or [], numbers, overrides or [])
    outcomes = _train_all(planned)
    _print_outcomes(outcomes, as_json)
    if not as_json and planned[0].recipe.takes_images:
        _print_summary(planned, folder)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(6)


def crossval(
    recipe: Recipe,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of every run.")
    ] = None,
    folds_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the data whose values name the folds.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, metavar="K", help="Draw K folds, using the recipe's seed and data.group.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Default: runs/NAME-crossval.")] = None,
    as_json: Json = False,
) -> None:
    """Train a recipe once for each fold of its data, testing it on that fold; report mean and sd over the folds.

    Run the same command again to continue after an interruption: finished folds are never repeated.

    [bold]Examples[/bold]

      audiostride crossval esc50 --folds-column fold

      audiostride crossval folder tasks.label.data.path=my_sounds --folds 5 --out runs/mine-crossval
    """
    from ..analysis.folds import summarise_folds, write_folds
    from ..training.crossval import plan_crossval
    from ..training.recipe import load_recipe
    from .terminal_tables import folds_table

    folder = out or Path("runs", f"{load_recipe(recipe, overrides or []).name}-crossval")
    with _display() as display:
        planned = plan_crossval(recipe, folder, folds_column, folds, overrides or [], display.progress)
    outcomes = _train_all(planned)
    if any(outcome.state == "failed" for outcome in outcomes):
        _print_outcomes(outcomes, as_json)
        raise typer.Exit(6)
    found = summarise_folds([run.path for run in planned])
    write_folds(folder / "crossval.json", found)
    if as_json:
        print_json(found)
        return
    for task, scores in found["tasks"].items():
        print_table(folds_table(scores, f"{task}: test scores of the folds in {folder}"))


def resolution(
    recipe: Recipe,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of every training.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Default: runs/NAME-resolution.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the resolution of the spectrogram that a recipe's sounds need, and train with it.

    Ten log-mels of the recipe's cost, with finer time or finer frequency, are trained for a few epochs; the better half
    by their validation scores go on to a longer training, and so on. The last one is trained as the recipe says, into
    DIR/final. Run the same command again to continue after an interruption.

    [bold]Examples[/bold]

      audiostride resolution ripples

      audiostride resolution folder tasks.label.data.path=my_sounds --out runs/mine-resolution
    """
    from ..training.recipe import load_recipe
    from ..training.resolution import find_resolution

    folder = out or Path("runs", f"{load_recipe(recipe, overrides or []).name}-resolution")
    rounds, final = find_resolution(recipe, folder, overrides or [], _train_all)
    outcomes = _train_all([final])
    if as_json:
        trained = outcomes[0]._asdict() | {"path": str(final.path)}
        print_json({"rounds": [one._asdict() for one in rounds], "final": trained})
    else:
        for number, one in enumerate(rounds, start=1):
            for score, settings in one.tried:
                shown = "  ".join(f"{key} {value:g}" for key, value in settings.items())
                typer.echo(f"round {number}, epochs {one.epochs}: {100 * score:5.1f} %  {shown}")
        _print_outcomes(outcomes, as_json)
    if outcomes[0].state == "failed":
        raise typer.Exit(6)


@contextmanager
def _if_stopped(advice: str) -> Iterator[None]:
    """Within this block a run that is stopped by a signal ends in a message that says how to resume it."""
    from ..errors import Interrupted

    try:
        yield
    except Interrupted as error:
        raise Interrupted(f"{error}; {advice}", error.exit_code - 128) from error


def _display() -> "ProgressDisplay":
    from ..training.processes import is_main
    from .progress import ProgressDisplay

    return ProgressDisplay(quiet=not is_main())


def _train_all(planned: "Sequence[Planned]") -> "list[Outcome]":
    """Train every run of a sweep that is not finished."""
    from ..training.run import run
    from ..training.sweep import run_sweep

    with _display() as display, _if_stopped("the same command continues from there"):
        report = display.report()
        return run_sweep(planned, lambda recipe, path: run(recipe, path, report, path.is_dir()), display.on_run)


def _print_outcomes(outcomes: "Sequence[Outcome]", as_json: bool) -> None:
    if as_json:
        print_json([outcome._asdict() | {"path": str(outcome.path)} for outcome in outcomes])
        return
    for outcome in outcomes:
        typer.echo(f"{outcome.path}  {outcome.state}")


def _print_summary(planned: "Sequence[Planned]", folder: Path) -> None:
    from ..training.run_files import is_finished, read_results
    from ..training.sweep_summary import summarise
    from .terminal_tables import images_table

    rows = summarise((run.recipe, read_results(run.path)) for run in planned if is_finished(run.path))
    print_table(images_table(rows, f"Test scores of {folder}"))
