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
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the layers as CSV.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw them, with measured gains: .png, .svg, .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn learned strides into cut-off frequencies: Hz along time, cycles per mel band along frequency.

    Several runs are converted one by one and averaged. Beside them: reference ranges from the
    literature, and the gain of every learned layer as measured inside the network.

    [bold]Examples[/bold]

      audiostride cutoffs runs/mine

      audiostride cutoffs runs/seed0 runs/seed1 runs/seed2 --json

      audiostride cutoffs runs/mine --seconds 10 --csv cutoffs.csv --plot cutoffs.png
    """
    from .cutoffs import write_cutoffs
    from .display import cutoff_tables
    from .plots import check_ending, cutoff_figure, save
    from .rundir import describe_cutoffs

    if plot:
        check_ending(plot)
    found, responses = describe_cutoffs(run_dirs, seconds)
    if csv_file:
        write_cutoffs(csv_file, found["layers"])
    if plot:
        save(cutoff_figure(found["layers"], found["references"], responses, found["ripples"]), plot)
    if as_json:
        _print_json(found)
        return
    for table in cutoff_tables(found):
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


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")],
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
    from .errors import UsageError
    from .recipe import load_recipe
    from .sweep import plan_sweep, run_sweep

    if seeds is not None and not all(seed.strip().isdigit() for seed in seeds.split(",")):
        raise UsageError(f"--seeds {seeds}: whole numbers divided by commas are needed, such as 0,1,2")
    numbers = [int(seed) for seed in seeds.split(",")] if seeds else []
    folder = out or Path("runs", f"{load_recipe(recipe, overrides or []).name}-sweep")
    planned = plan_sweep(recipe, folder, grid or [], numbers, overrides or [])
    from .display import ProgressDisplay
    from .run import run

    with ProgressDisplay() as display:
        outcomes = run_sweep(
            planned,
            lambda one, path: run(one, path, display.progress, display.on_start, display.on_step, display.on_epoch),
            display.on_run,
        )
    if as_json:
        _print_json([outcome._asdict() | {"path": str(outcome.path)} for outcome in outcomes])
    else:
        for outcome in outcomes:
            typer.echo(f"{outcome.path}  {outcome.state}")
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(6)


@app.command()
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Runs, or directories of runs.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write the tables as Markdown, LaTeX, CSV, JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw accuracy against cost: .png, .svg, .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs: accuracy over seeds, cost, cut-offs, and how sure a difference is.

    [bold]Examples[/bold]

      audiostride compare runs/ripples-sweep

      audiostride compare runs/strided runs/diffstride --out tables --plot cost.png
    """
    from .compare import compare as compare_runs
    from .compare import find_runs, tables, to_markdown, write_comparison
    from .plots import check_ending, cost_figure, save

    if plot:
        check_ending(plot)
    runs, unfinished = find_runs(run_dirs)
    for path in unfinished:
        typer.echo(f"left out: {path} is not finished", err=True)
    found = compare_runs(runs)
    if out:
        for file in write_comparison(out, found):
            typer.echo(f"wrote {file}", err=True)
    if plot:
        save(cost_figure(found["accuracy"]), plot)
    if as_json:
        _print_json(found)
    else:
        typer.echo(to_markdown(tables(found)))


@app.command()
def report(
    run_dir: RunDir,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Default: report.html in the run directory.")
    ] = None,
) -> None:
    """Write one self-contained HTML page on a run: scores, curves, strides, cut-offs, mistakes with sound.

    [bold]Examples[/bold]

      audiostride report runs/mine

      audiostride report runs/mine -o mine.html
    """
    from .display import ProgressDisplay
    from .report import write_report

    file = out or run_dir / "report.html"
    with ProgressDisplay() as display:
        write_report(run_dir, file, display.progress)
    typer.echo(file)


@app.command()
def listen(
    run_dir: RunDir,
    sound: Annotated[Path, typer.Argument(metavar="SOUND", help="An audio file.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write it (WAV, FLAC, OGG).")],
    layers: Annotated[
        int | None, typer.Option(metavar="N", help="Only the cut-offs of the first N layers; default: all.")
    ] = None,
    compare_with: Annotated[
        Path | None, typer.Option("--plain", metavar="FILE", help="Also write the mel inversion without cut-offs.")
    ] = None,
) -> None:
    """Hear what is left of a sound after the learned cut-offs.

    [bold]Examples[/bold]

      audiostride listen runs/mine clip.wav -o kept.wav

      audiostride listen runs/mine clip.wav -o kept.wav --layers 1 --plain plain.wav
    """
    from .audio import read_audio
    from .classifier import load
    from .listen import check_sound_file, keep, through_mel, write_sound

    for file in filter(None, (out, compare_with)):
        check_sound_file(file)
    model = load(run_dir)
    rate = model.frontend.sample_rate
    waveform = read_audio(sound, rate)
    write_sound(out, keep(model, waveform, layers), rate)
    if compare_with:
        write_sound(compare_with, through_mel(model, waveform), rate)
    typer.echo(out)


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
