"""A trained model at work: `predict`, `embed`, `export`."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, PartialError, UsageError
from ..inference.export_formats import FORMATS, SOURCES, find_format
from .arguments import ChannelOption, Inputs, Json, Machine, Model, Overlap
from .events import EventOptions, describe_events, write_frames
from .output import print_json, print_rows, print_table

if TYPE_CHECKING:
    from ..inference.embedding import Sound
    from ..inference.events import Changes
    from ..inference.predict import SoundRows
    from ..models.classifier import AudioClassifier


class LabelFormat(StrEnum):
    """Label files that `predict` writes."""

    audacity = "audacity"
    raven = "raven"


@dataclass(frozen=True)
class RowOptions:
    """Where `predict` writes its rows, and as what."""

    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")] = False
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to FILE.csv or FILE.jsonl instead.")
    ] = None
    label_format: Annotated[
        LabelFormat | None, typer.Option("--format", help="Write a label file for each sound into the folder --out.")
    ] = None
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SCORE", help="With --format: leave out what scores less.")
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted batch.")] = False


def predict(
    run_dir: Model,
    inputs: Inputs,
    *,
    top_k: Annotated[int, typer.Option(min=1, help="Show this many of the likeliest classes.")] = 1,
    windows: Annotated[bool, typer.Option("--windows", help="A row for each window: a timeline.")] = False,
    rows: RowOptions,
    stream: Annotated[
        bool, typer.Option("--stream", help="Classify each window of stdin as soon as its last sample has arrived.")
    ] = False,
    pcm_rate: Annotated[
        int | None, typer.Option(min=100, metavar="HZ", help="stdin is raw 16-bit mono samples at this rate, not WAV.")
    ] = None,
    channel: ChannelOption = None,
    overlap: Overlap = 0.0,
    always: Annotated[bool, typer.Option("--always", help='Name the likeliest class instead of "none".')] = False,
    finding: EventOptions,
    machine: Machine,
) -> None:
    """Classify sounds of any length.

    The label is "none" where a sound is probably none of the classes, see docs/confidence.md; `calibrate` says when.

    Exit code 6: some sounds could not be used; their rows say why.

    [bold]Examples[/bold]

      audiostride predict runs/mine recording.wav --windows

      audiostride predict runs/mine sounds/ 'more/**/*.flac' --top-k 3 --out labels.csv --resume

      audiostride predict runs/mine recordings/ --events --csv

      audiostride predict runs/mine recordings/ --format raven --out labels

      arecord -f S16_LE -r 16000 -t raw | audiostride predict runs/mine - --stream --pcm-rate 16000
    """
    _check_options(inputs, rows, stream, pcm_rate, many_rows=top_k > 1 or stream)
    finding.check(
        top_k > 1 or windows or overlap > 0 or always, rows.label_format is not None, rows.resume or rows.as_json
    )
    from ..data.sounds import STDIN, find_sounds
    from ..inference.embedding import open_sounds
    from ..inference.events import NO_CHANGES, sound_events
    from ..inference.predict import predict_sounds

    names = find_sounds(inputs)
    model = _load(run_dir, channel)
    changes = finding.changes()
    if STDIN in names:
        machine = replace(machine, workers=0)
    if finding.frames:
        return write_frames(model, list(open_sounds(names, model.sample_rate, pcm_rate, model.channel)), rows.out)
    if rows.label_format:
        sounds = list(open_sounds(names, model.sample_rate, pcm_rate, model.channel))
        by_events = finding.events or model.event_settings or changes != NO_CHANGES
        for name, given in (("--overlap", overlap), ("--windows", windows), ("--always", always)):
            if by_events and given:
                raise UsageError(f"{name}: label files of {run_dir} hold events, which go by frames; omit it")
        return _write_label_files(model, sounds, rows, machine, changes if by_events else None, always, overlap)
    made_by: dict[str, object] = {"top_k": top_k, "windows": windows, "overlap": overlap}
    made_by |= {} if channel is None else {"channel": channel}
    made_by |= {"events": list(changes)} if finding.events else {}
    made_by |= {"always": True} if always else {}

    def predicted(remaining: list[str]) -> "Iterator[SoundRows]":
        sounds = open_sounds(remaining, model.sample_rate, pcm_rate, model.channel)
        if finding.events:
            return sound_events(model, sounds, changes, stream)
        return predict_sounds(
            model,
            sounds,
            top_k=top_k,
            per_window=windows or stream,
            batch_size=1 if stream else machine.batch_size,
            workers=machine.workers,
            overlap=overlap,
            always=always,
        )

    what = ""
    if finding.events:
        what = describe_events(model, changes, stream)
    elif stream:
        what = _describe_stream(model, overlap)
    _print_rows(model, names, predicted, made_by, what, rows, stream)


def _load(run_dir: str, channel: ChannelOption) -> "AudioClassifier":
    """The model, which hears another channel of sounds if it is to."""
    from ..models.classifier import load

    model = load(run_dir)
    if channel is not None:
        model.channel = channel
    return model


def _describe_stream(model: "AudioClassifier", overlap: float) -> str:
    from ..inference.predict import stream_latency_ms
    from ..windows import window_hop

    hop_s = window_hop(model.window_length, overlap) / model.sample_rate
    return f"a prediction every {hop_s:g} s, latency {stream_latency_ms(model):.0f} ms"


def _print_rows(
    model: "AudioClassifier",
    names: list[str],
    predicted: "Callable[[list[str]], Iterator[SoundRows]]",
    made_by: dict[str, object],
    what: str,
    to: RowOptions,
    stream: bool,
) -> None:
    """Rows of sounds to a file, as lines of CSV, JSON or a stream, or as one table; what they are goes to stderr."""
    from ..inference.row_file import CSV_HEADER, RowFile, fingerprint, format_rows
    from .progress import ProgressDisplay
    from .terminal_tables import predictions_table, stream_line

    rows = []
    made_by = {"model": fingerprint(model)} | made_by
    with ProgressDisplay() as display, RowFile(to.out, made_by, to.resume) if to.out else nullcontext() as file:
        done = file.done if file else {}
        if what:
            display.print(what)
        if to.as_csv and not file:
            print_rows(CSV_HEADER)
        for part in predicted([name for name in names if name not in done]):
            if file:
                file.write(part)
            elif to.as_csv or to.as_json:
                print_rows(format_rows(part.rows, to.as_csv))
            elif stream:
                print_rows("".join(stream_line(row) for row in part.rows))
            else:
                rows += part.rows
            if part.last:
                done[part.name] = part.failed
                display.progress("predicting", len(done), len(names))
    if rows:
        print_table(predictions_table(rows))
    _report_failed(sum(done.values()), len(done))


def _check_options(inputs: list[str], rows: RowOptions, stream: bool, pcm_rate: int | None, *, many_rows: bool) -> None:
    """Refuse options of `predict` that do not go together."""
    if rows.as_csv and rows.as_json:
        raise UsageError("--csv and --json: choose one")
    if rows.label_format and (rows.out is None or rows.as_csv or rows.as_json or many_rows):
        raise UsageError(
            "--format writes label files into a folder: it needs --out DIR and allows no other output options"
        )
    if rows.min_score is not None and not rows.label_format:
        raise UsageError("--min-score leaves segments out of label files; add --format")
    if rows.resume and rows.out is None:
        raise UsageError("--resume continues a file or a folder of label files; name it with --out")
    if pcm_rate and "-" not in inputs:
        raise UsageError("--pcm-rate is the rate of samples on stdin; give - as input")
    if stream and (inputs != ["-"] or rows.out):
        raise UsageError("--stream reads stdin and prints: give - as its only input, and no --out")


def _write_label_files(
    model: "AudioClassifier",
    sounds: "list[Sound]",
    rows: RowOptions,
    machine: Machine,
    events: "Changes | None",
    always: bool,
    overlap: float,
) -> None:
    from ..inference.label_files import write_label_files
    from .progress import ProgressDisplay

    assert rows.out is not None
    assert rows.label_format is not None
    with ProgressDisplay() as display:
        display.print(
            "windows, neighbours of one label joined; --events writes what is heard from when to when"
            if events is None
            else describe_events(model, events, stream=False)
        )
        failed = write_label_files(
            model,
            sounds,
            rows.out,
            rows.label_format,
            machine.batch_size,
            machine.workers,
            display.progress,
            display.print,
            events,
            rows.resume,
            always,
            overlap,
            rows.min_score or 0.0,
        )
    _report_failed(failed, len(sounds))


def embed(
    run_dir: Model,
    inputs: Inputs,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="FILE.npz or FILE.parquet.")],
    *,
    channel: ChannelOption = None,
    machine: Machine,
) -> None:
    """Write the embedding of every sound to a table: path, seconds, embedding, error.

    [bold]Examples[/bold]

      audiostride embed runs/mine sounds/ -o embeddings.parquet
    """
    from ..data.sounds import STDIN, find_sounds
    from ..inference.embedding import open_sounds
    from ..inference.embedding_table import write_embeddings
    from .progress import ProgressDisplay

    names = find_sounds(inputs)
    model = _load(run_dir, channel)
    sounds = list(open_sounds(names, model.sample_rate, channel=model.channel))
    with ProgressDisplay() as display:
        workers = 0 if STDIN in names else machine.workers
        failed = write_embeddings(model, sounds, out, machine.batch_size, workers, display.progress)
    _report_failed(failed, len(sounds))


def _report_failed(failed: int, n_sounds: int) -> None:
    if failed:
        kind = PartialError if failed < n_sounds else DataError
        raise kind(f"{failed} of {n_sounds} sounds could not be used; see the error for each")


class ExportInput(StrEnum):
    """What an exported model takes."""

    waveform = "waveform"
    log_mel = "log_mel"


def export(
    run_dir: Model,
    format: Annotated[str, typer.Option(metavar="|".join([*FORMATS, *SOURCES]), help="Where it will run.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Default: RUN_DIR/model and the ending, which is replaced."),
    ] = None,
    input: Annotated[ExportInput, typer.Option(help="What it takes: samples, or log-mel.")] = ExportInput.waveform,
    quantize: Annotated[
        str | None, typer.Option(metavar="int8", help="8-bit weights (c), and activations (onnx).")
    ] = None,
    frames: Annotated[
        bool, typer.Option("--frames", help="It gives the logits of frames, not of clips: for events.")
    ] = False,
    clips: Annotated[
        str | None, typer.Option(metavar="PATH", help="Check it on these sounds; default: the run's test set.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model for another runtime, with strides as constant matrices, and check it on real clips.

    Exit code 7: the file does not compute what the model computes; nothing is written.

    [bold]Examples[/bold]

      audiostride export runs/mine --format onnx

      audiostride export runs/mine --quantize int8 --out small.onnx --clips sounds/

      audiostride export runs/mine --frames --out frames.onnx

      audiostride export runs/mine --format web --out words.html

      audiostride export runs/mine --format c --quantize int8 --out words.c
    """
    from ..files import check_new
    from ..inference.export import export_model
    from ..inference.export_source import export_source
    from ..models.classifier import load
    from ..models.hub import HUB_PREFIX
    from ..training.run_testing import check_windows
    from .progress import ProgressDisplay
    from .terminal_tables import export_table

    if quantize not in (None, "int8"):
        raise UsageError(f"--quantize {quantize}: only int8 is supported")
    ending = SOURCES.get(format) or find_format(format).ending
    if format in SOURCES and input is ExportInput.log_mel:
        raise UsageError(f"--input log_mel: the features are inside with --format {format}; leave it out")
    if format in SOURCES and frames:
        raise UsageError(f"--frames: is for --format {', '.join(FORMATS)}, not {format}; leave it out")
    name = f"{'frames' if frames else 'model'}{'.int8' if quantize else ''}{ending}"
    path = out or Path(run_dir, name)
    if out is None and run_dir.startswith(HUB_PREFIX):
        raise UsageError(f"{run_dir}: is on the hub, not a folder to write to; give --out FILE")
    if out:
        check_new(out, *((out.with_suffix(".h"), out.with_name(f"{out.stem}_test.c")) if format == "c" else ()))
    model = load(run_dir)
    if out is None and not Path(run_dir).is_dir():
        raise UsageError(f"{run_dir}: comes with the package and is not a folder to write to; give --out FILE")
    with ProgressDisplay() as display:
        windows = check_windows(run_dir, model, clips, display.progress)
        if format in SOURCES:
            check = export_source(model, path, format, windows, quantize=quantize == "int8")
        else:
            check = export_model(
                model,
                path,
                format,
                windows,
                takes_log_mel=input is ExportInput.log_mel,
                quantize="int8" if quantize else None,
                frames=frames,
            )
    if as_json:
        print_json({"file": str(path)} | check._asdict())
    else:
        print_table(export_table(str(path), check))
