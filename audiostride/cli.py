"""The `audiostride` command: parse, call, print. Nothing else.

stdout carries data, stderr progress and errors. Modules are imported where they are used, so that
`--help` answers at once.
"""

import errno
import json
import os
import sys
from contextlib import nullcontext
from enum import StrEnum
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

Model = Annotated[str, typer.Argument(metavar="RUN_DIR", help="A run directory, or hf-hub:USER/NAME.")]
Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="Files, folders, patterns; - is WAV or PCM on stdin.")
]
Workers = Annotated[int, typer.Option(min=0, help="Threads that decode audio.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Windows the model sees at once.")]
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
    from .recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from .display import ProgressDisplay, scores_table
    from .distributed import is_main
    from .evaluate import Score
    from .run import run, run_directory

    run_dir = run_directory(loaded, out, resume)
    with ProgressDisplay(quiet=not is_main()) as display:
        display.print(f"run directory: {run_dir}")
        results = run(
            loaded,
            run_dir,
            display.progress,
            display.on_start,
            display.on_step,
            display.on_epoch,
            notify=display.print,
            resume=resume,
            allow_inexact=allow_inexact,
        )
    if not is_main():
        return
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
    shipped = shipped_recipes() | shipped_recipes("images")
    summaries = {recipe: summary_of(path) for recipe, path in shipped.items()}
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
    strides: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw how the strides of all runs move: .png, .svg, .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs: accuracy over seeds, cost, cut-offs, and how sure a difference is.

    [bold]Examples[/bold]

      audiostride compare runs/ripples-sweep

      audiostride compare runs/strided runs/diffstride --out tables --plot cost.png --strides strides.png
    """
    from .compare import compare as compare_runs
    from .compare import find_runs, striding_runs
    from .plots import check_ending, cost_figure, save, striding_figure
    from .tables import tables, to_markdown, write_comparison

    for file in filter(None, (plot, strides)):
        check_ending(file)
    runs, unfinished = find_runs(run_dirs)
    for path in unfinished:
        typer.echo(f"left out: {path} is not finished", err=True)
    found = compare_runs(runs)
    if out:
        for file in write_comparison(out, found):
            typer.echo(f"wrote {file}", err=True)
    if plot:
        save(cost_figure(found["accuracy"]), plot)
    if strides:
        save(striding_figure(striding_runs(runs)), strides)
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


class LabelFormat(StrEnum):
    """Label files that `predict` writes."""

    audacity = "audacity"
    raven = "raven"


@app.command()
def predict(
    run_dir: Model,
    inputs: Inputs,
    top_k: Annotated[int, typer.Option(min=1, help="Show this many of the likeliest classes.")] = 1,
    windows: Annotated[bool, typer.Option("--windows", help="A row for each window: a timeline.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to FILE.csv or FILE.jsonl instead.")
    ] = None,
    label_format: Annotated[
        LabelFormat | None, typer.Option("--format", help="Write a label file for each sound into the folder --out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the file of an interrupted batch.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Answer each window of stdin as soon as its last sample is there.")
    ] = False,
    pcm_rate: Annotated[
        int | None, typer.Option(min=100, metavar="HZ", help="stdin is raw 16-bit mono samples at this rate, no WAV.")
    ] = None,
    workers: Workers = 2,
    batch_size: BatchSize = 64,
) -> None:
    """Classify sounds of any length.

    Exit code 6: some of them could not be used; their rows say why.

    [bold]Examples[/bold]

      audiostride predict runs/mine recording.wav --windows

      audiostride predict runs/mine sounds/ 'more/**/*.flac' --top-k 3 --out labels.csv --resume

      audiostride predict runs/mine recordings/ --format raven --out labels

      arecord -f S16_LE -r 16000 -t raw | audiostride predict runs/mine - --stream --pcm-rate 16000
    """
    from .errors import DataError, PartialError, UsageError

    if as_csv and as_json:
        raise UsageError("--csv and --json: choose one")
    if label_format and (out is None or as_csv or as_json or resume or stream or top_k > 1):
        raise UsageError("--format writes label files into a folder: it needs --out DIR, and goes with no other format")
    if resume and out is None:
        raise UsageError("--resume continues a file; name it with --out")
    if stream and (inputs != ["-"] or out):
        raise UsageError("--stream reads stdin and prints: its only input is -, without --out")
    from .classifier import load
    from .display import ProgressDisplay, predictions_table, stream_line
    from .predict import (
        CSV_HEADER,
        STDIN,
        RowFile,
        find_sounds,
        fingerprint,
        format_rows,
        open_sounds,
        predict_sounds,
        stream_latency_ms,
    )

    names = find_sounds(inputs)
    model = load(run_dir)
    if label_format:
        from .timeline import write_label_files

        assert out is not None
        sounds = list(open_sounds(names, model.frontend.sample_rate, pcm_rate))
        threads = 0 if STDIN in names else workers
        with ProgressDisplay() as display:
            failed = write_label_files(
                model, sounds, out, label_format, batch_size, threads, display.progress, display.print
            )
        if failed:
            kind = PartialError if failed < len(sounds) else DataError
            raise kind(f"{failed} of {len(sounds)} sounds could not be used")
        return
    made_by: dict[str, object] = {"model": fingerprint(model), "top_k": top_k, "windows": windows}
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr] # a file's name may be no UTF-8
    rows = []
    with ProgressDisplay() as display, RowFile(out, made_by, resume) if out else nullcontext() as file:
        done = file.done if file else {}
        if stream:
            display.print(
                f"an answer each {model.window_s:g} s, {stream_latency_ms(model):.0f} ms after its last sample is there"
            )
        if as_csv and not file:
            typer.echo(CSV_HEADER, nl=False)
        remaining = [name for name in names if name not in done]
        answers = predict_sounds(
            model,
            open_sounds(remaining, model.frontend.sample_rate, pcm_rate),
            top_k=top_k,
            per_window=windows or stream,
            batch_size=1 if stream else batch_size,
            workers=0 if STDIN in remaining else workers,
        )
        for answer in answers:
            if file:
                file.write(answer)
            elif as_csv or as_json:
                typer.echo(format_rows(answer.rows, as_csv), nl=False)
            elif stream:
                typer.echo("".join(stream_line(row) for row in answer.rows), nl=False)
            else:
                rows += answer.rows
            if answer.last:
                done[answer.name] = answer.failed
                display.progress("predicting", len(done), len(names))
    if rows:
        _print(predictions_table(rows))
    failed = sum(done.values())
    if failed:
        kind = PartialError if failed < len(done) else DataError
        raise kind(f"{failed} of {len(done)} sounds could not be used; their rows say why")


@app.command()
def embed(
    run_dir: Model,
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="FILE.npz or FILE.parquet.")],
    workers: Workers = 2,
    batch_size: BatchSize = 64,
) -> None:
    """Write the embedding of every sound to a table: path, seconds, embedding, error.

    [bold]Examples[/bold]

      audiostride embed runs/mine sounds/ -o embeddings.parquet
    """
    from .classifier import load
    from .display import ProgressDisplay
    from .errors import DataError, PartialError
    from .predict import STDIN, find_sounds, open_sounds, write_embeddings

    names = find_sounds(inputs)
    model = load(run_dir)
    sounds = list(open_sounds(names, model.frontend.sample_rate))
    with ProgressDisplay() as display:
        failed = write_embeddings(model, sounds, out, batch_size, 0 if STDIN in names else workers, display.progress)
    if failed:
        kind = PartialError if failed < len(sounds) else DataError
        raise kind(f"{failed} of {len(sounds)} sounds could not be used; their rows say why")


class ExportFormat(StrEnum):
    """Formats of `export`."""

    torch = "torch"
    onnx = "onnx"
    executorch = "executorch"


class ExportInput(StrEnum):
    """What an exported model takes."""

    waveform = "waveform"
    log_mel = "log_mel"


@app.command()
def export(
    run_dir: Model,
    format: Annotated[ExportFormat, typer.Option(help="Runtime that is to run it.")] = ExportFormat.onnx,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Default: model.onnx, .pt2 or .pte in RUN_DIR.")
    ] = None,
    input: Annotated[ExportInput, typer.Option(help="What it takes: samples, or log-mel.")] = ExportInput.waveform,
    quantize: Annotated[str | None, typer.Option(metavar="int8", help="8-bit weights and activations (onnx).")] = None,
    clips: Annotated[
        str | None, typer.Option(metavar="PATH", help="Check it on these sounds; default: the run's test set.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model for another runtime, strides as constant matrices, and check it on real clips.

    Exit code 7: the file does not compute what the model computes; nothing is written then.

    [bold]Examples[/bold]

      audiostride export runs/mine --format onnx

      audiostride export runs/mine --quantize int8 --out small.onnx --clips sounds/
    """
    from .classifier import HUB_PREFIX, load
    from .display import ProgressDisplay, export_table
    from .errors import UsageError
    from .export import ENDINGS, export_model
    from .run import check_windows

    if quantize not in (None, "int8"):
        raise UsageError(f"--quantize {quantize}: only int8 is there")
    ending = ENDINGS[format.value]
    path = out or Path(run_dir, f"model.{quantize}{ending}" if quantize else f"model{ending}")
    if out is None and run_dir.startswith(HUB_PREFIX):
        raise UsageError(f"{run_dir}: is on the hub and no folder to write to; give --out FILE")
    model = load(run_dir)
    with ProgressDisplay() as display:
        windows = check_windows(run_dir, model, clips, display.progress)
        check = export_model(
            model,
            path,
            format.value,
            windows,
            takes_log_mel=input is ExportInput.log_mel,
            quantize="int8" if quantize else None,
        )
    if as_json:
        _print_json({"file": str(path)} | check._asdict())
    else:
        _print(export_table(str(path), check))


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
