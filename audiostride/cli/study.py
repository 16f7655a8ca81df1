"""What a trained run has learned: `evaluate`, `cutoffs`, `compare`, `report`, `listen`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from .arguments import ChannelOption, Fetch, Json, Model, Overlap, RunDir
from .background import BackgroundOptions, evaluate_background
from .events import evaluate_events
from .output import print_json, print_rows, print_table

MAX_MATRIX = 40
"""Confusion matrices of more classes are not printed: no terminal is that wide."""


def evaluate(
    run_dir: Model,
    *,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Another folder of audio, or a table; default: the run's own test set."),
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only this task.")] = None,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="Also show accuracy by class and a confusion matrix.")
    ] = False,
    overlap: Overlap = 0.0,
    channel: ChannelOption = None,
    events: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Score events found in recordings against their label files or a table."),
    ] = None,
    alarms: BackgroundOptions,
    fetch: Fetch = False,
    as_json: Json = False,
) -> None:
    """Score a trained model on whole clips, or by its events in recordings: its run's test set, or your own data.

    [bold]Examples[/bold]

      audiostride evaluate runs/mine

      audiostride evaluate runs/mine --data other_sounds --task label --json

      audiostride evaluate hf-hub:USER/NAME --data my_sounds

      audiostride evaluate runs/mine --by-class

      audiostride evaluate runs/mine --overlap 0.5

      audiostride evaluate runs/mine --background quiet_nights/ --plot alarms.svg --set-threshold 1/h
    """
    if channel is not None and data is None:
        raise UsageError("--channel is of other data, which --data names; a run's own data has its data.channel")
    if channel is not None and alarms.background is not None:
        raise UsageError("--channel is of clips that are scored as a whole; omit it with --background")
    if alarms.background is None and (alarms.set_threshold is not None or alarms.plot is not None):
        raise UsageError("--set-threshold and --plot are of the curve of false alarms; add --background")
    if (events is not None or alarms.background is not None) and (by_class or overlap):
        raise UsageError("--events and --background go by frames; omit --by-class and --overlap")
    if alarms.background is not None:
        return evaluate_background(str(run_dir), alarms, events, data, task, fetch, as_json)
    if events is not None:
        if data is not None:
            raise UsageError("--events has recordings of its own; omit --data, or give one without --data")
        return evaluate_events(str(run_dir), events, task, as_json)
    from ..analysis.confidence import confidence
    from ..analysis.mistakes import class_scores, confusion
    from ..models.classifier import load
    from ..training.run_testing import evaluate_with_predictions
    from .progress import ProgressDisplay
    from .terminal_tables import class_table, confidence_table, confusion_table, scores_table

    with ProgressDisplay() as display:
        scores, predictions = evaluate_with_predictions(run_dir, data, task, display.progress, overlap, fetch, channel)
    model = load(run_dir)
    details: dict[str, dict[str, Any]] = {}
    believed = {name: confidence(found, model, name) for name, found in predictions.items()}
    if by_class:
        for name, found in predictions.items():
            labels, kind = model.labels[name], model.kinds[name]
            details[name] = {"labels": labels, "classes": class_scores(found, labels, kind)}
            if kind != "multilabel":
                details[name]["confusion"] = confusion(found, labels).tolist()
    if as_json:
        details = {name: {"confidence": believed[name]} | details.get(name, {}) for name in scores}
        return print_json({"tasks": {name: score.metrics() | details[name] for name, score in scores.items()}})
    print_table(scores_table(scores, f"Scores of {run_dir}"))
    print_table(confidence_table(believed))
    for name, detail in details.items():
        if "confusion" in detail and len(detail["labels"]) <= MAX_MATRIX:
            print_table(confusion_table(name, detail["labels"], detail["confusion"]))
        else:
            print_table(class_table(name, detail["classes"]))


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

    Several runs are converted one by one and averaged. Shown alongside: reference ranges from the
    literature, and the gain of every learned layer as measured inside the network.

    [bold]Examples[/bold]

      audiostride cutoffs runs/mine

      audiostride cutoffs runs/seed0 runs/seed1 runs/seed2 --json

      audiostride cutoffs runs/mine --seconds 10 --csv cutoffs.csv --plot cutoffs.png
    """
    from ..analysis.cutoff_plots import cutoff_figure
    from ..analysis.plot_style import check_ending, save
    from ..analysis.run_cutoffs import describe_cutoffs
    from ..analysis.wording import resolution_sentence
    from ..errors import printable
    from ..files import check_new
    from ..models.cutoffs import write_cutoffs
    from .terminal_tables import cutoff_tables

    if plot:
        check_ending(plot)
    check_new(csv_file, plot)
    found, responses = describe_cutoffs(run_dirs, seconds)
    if csv_file:
        write_cutoffs(csv_file, found["layers"])
    if plot:
        save(cutoff_figure(found["layers"], found["references"], responses, found["ripples"]), plot)
    if as_json:
        print_json(found)
        return
    for run_dir, tile in zip(run_dirs, found.get("resolution", []), strict=False):
        typer.echo(f"{printable(run_dir)}: {resolution_sentence(tile)}")
    for table in cutoff_tables(found):
        print_table(table)


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
    """Compare runs: accuracy over seeds, cost, cut-offs, and how certain a difference is.

    [bold]Examples[/bold]

      audiostride compare runs/ripples-sweep

      audiostride compare runs/strided runs/diffstride --out tables --plot cost.png --strides strides.png
    """
    from ..analysis.comparison import compare as compare_runs
    from ..analysis.comparison import striding_runs
    from ..analysis.finished_runs import find_runs
    from ..analysis.plot_style import check_ending, save
    from ..analysis.result_plots import cost_figure
    from ..analysis.tables import check_folder, tables, to_markdown, write_comparison
    from ..analysis.training_plots import striding_figure
    from ..errors import printable
    from ..files import check_new

    for file in filter(None, (plot, strides)):
        check_ending(file)
    check_new(plot, strides)
    if out:
        check_folder(out)
    runs, unfinished = find_runs(run_dirs)
    for path in unfinished:
        typer.echo(f"left out: {printable(path)} is not finished", err=True)
    found = compare_runs(runs)
    if out:
        for file in write_comparison(out, found):
            typer.echo(f"wrote {printable(file)}", err=True)
    if plot:
        save(cost_figure(found["accuracy"]), plot)
    if strides:
        save(striding_figure(striding_runs(runs)), strides)
    if as_json:
        print_json(found)
    else:
        print_rows(f"{to_markdown(tables(found))}\n")


def report(
    run_dir: RunDir,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Default: report.html in the run directory.")
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also show what is heard when in these recordings with label files."),
    ] = None,
    fetch: Fetch = False,
) -> None:
    """Write one self-contained HTML page about a run: scores, curves, strides, cut-offs, mistakes with sound.

    [bold]Examples[/bold]

      audiostride report runs/mine

      audiostride report runs/mine -o mine.html

      audiostride report runs/mine --events annotated/
    """
    from ..analysis.report import write_report
    from .progress import ProgressDisplay

    file = out or run_dir / "report.html"
    with ProgressDisplay() as display:
        write_report(run_dir, file, display.progress, fetch, events)
    print_rows(f"{file}\n")


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

    What a layer folds down by aliasing has become another modulation: it is left out and reported on stderr.

    [bold]Examples[/bold]

      audiostride listen runs/mine clip.wav -o kept.wav

      audiostride listen runs/mine clip.wav -o kept.wav --layers 1 --plain plain.wav
    """
    from ..analysis.listening import check_sound_file, keep, through_mel, write_sound
    from ..analysis.wording import folding_sentence
    from ..data.decoding import read_audio
    from ..errors import UsageError
    from ..files import check_new
    from ..models.classifier import load
    from ..models.cutoffs import model_cutoffs, summarise

    files = [file for file in (sound, out, compare_with) if file]
    if len({file.resolve() for file in files}) < len(files):
        raise UsageError("the sound, --out and --plain must be different files")
    for file in files[1:]:
        check_sound_file(file)
    check_new(out, compare_with)
    model = load(run_dir)
    rate = model.sample_rate
    waveform = read_audio(sound, rate, channel=model.channel)
    write_sound(out, keep(model, waveform, layers), rate)
    for row in summarise([model_cutoffs(model)]):
        if (layers is None or row["layer"] <= layers) and (sentence := folding_sentence(row)):
            typer.echo(f"not in the sound: {sentence}", err=True)
    if compare_with:
        write_sound(compare_with, through_mel(model, waveform), rate)
    print_rows(f"{out}\n")
