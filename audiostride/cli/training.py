"""Trainings: `train`, `sweep`, `train-images`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import Json, Overrides, Recipe
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..data.batches import LabelledClips
    from ..models.classifier import AudioClassifier


def train(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="RUN_DIR", help="Default: runs/NAME, or runs/NAME-2, ...")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out where it stopped, to the bit.")
    ] = False,
    allow_inexact: Annotated[
        bool, typer.Option("--allow-inexact", help="Resume although recipe, data, machine or versions changed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a classifier, test it and leave everything in a run directory.

    [bold]Examples[/bold]

      audiostride train ripples

      audiostride train folder tasks.label.data.path=my_sounds --out runs/mine

      audiostride train folder tasks.label.data.path=my_sounds model.downsampling=strided train.epochs=5

      audiostride train folder tasks.label.data.path=my_sounds --out runs/mine --resume
    """
    from ..training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from ..training.directory import run_directory
    from ..training.evaluation import Score
    from ..training.processes import is_main
    from ..training.run import run
    from .display import ProgressDisplay, scores_table

    run_dir = run_directory(loaded, out, resume)
    with ProgressDisplay(quiet=not is_main()) as display:

        def on_start(model: "AudioClassifier", sets: "Sequence[LabelledClips]", bad_files: list[str]) -> None:
            display.print(f"run directory: {run_dir}")  # only now it is there: recipe and data were accepted
            display.on_start(model, sets, bad_files)

        results = run(
            loaded,
            run_dir,
            display.progress,
            on_start,
            display.on_step,
            display.on_epoch,
            notify=display.print,
            resume=resume,
            allow_inexact=allow_inexact,
        )
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
        list[str] | None, typer.Option("--set", metavar="KEY=V1,V2,...", help="Values to go through; may be repeated.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1,2", help="Default: the recipe's seed.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Default: runs/NAME-sweep.")] = None,
    as_json: Json = False,
) -> None:
    """Train a recipe over a grid of settings and seeds.

    Give the same command again to go on after an interruption: finished runs are never repeated.

    [bold]Examples[/bold]

      audiostride sweep ripples --seeds 0,1,2 --set model.downsampling=strided,spectral,diffstride

      audiostride sweep ripples --set train.stride_cost=0,0.1,1 --set model.smoothness=1,4 train.epochs=3
    """
    from ..errors import UsageError
    from ..training.recipe import load_recipe
    from ..training.sweep import plan_sweep, run_sweep

    if seeds is not None and not all(seed.strip().isdigit() for seed in seeds.split(",")):
        raise UsageError(f"--seeds {seeds}: whole numbers divided by commas are needed, such as 0,1,2")
    numbers = [int(seed) for seed in seeds.split(",")] if seeds else []
    folder = out or Path("runs", f"{load_recipe(recipe, overrides or []).name}-sweep")
    planned = plan_sweep(recipe, folder, grid or [], numbers, overrides or [])
    from ..training.run import run
    from .display import ProgressDisplay

    with ProgressDisplay() as display:
        outcomes = run_sweep(
            planned,
            lambda one, path: run(
                one,
                path,
                display.progress,
                display.on_start,
                display.on_step,
                display.on_epoch,
                resume=path.is_dir(),
                notify=display.print,
            ),
            display.on_run,
        )
    if as_json:
        print_json([outcome._asdict() | {"path": str(outcome.path)} for outcome in outcomes])
    else:
        for outcome in outcomes:
            typer.echo(f"{outcome.path}  {outcome.state}")
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(6)


def train_images(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one.")],
    overrides: Overrides = None,
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
    from ..training.image_recipe import load_image_recipe
    from ..training.image_run import run_images, summarise_images

    loaded = load_image_recipe(recipe, overrides or [])
    from .display import ProgressDisplay, images_table

    run_dir = out or Path("runs", loaded.name)
    with ProgressDisplay() as display:
        display.print(f"run directory: {run_dir}")
        results = run_images(loaded, run_dir, display.progress, display.on_image_epoch)
    rows = summarise_images(results)
    if as_json:
        print_json({"run_dir": str(run_dir), "runs": results, "summary": rows})
    else:
        print_table(images_table(rows, f"Test scores of {run_dir}"))
