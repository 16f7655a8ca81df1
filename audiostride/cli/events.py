"""What `predict` and `evaluate` say of frames and events, and `calibrate`, which finds the settings for events."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, PartialError, UsageError
from .arguments import Json
from .output import print_json, print_rows, print_table

if TYPE_CHECKING:
    from ..inference.embedding import Sound
    from ..inference.events import Changes
    from ..models.classifier import AudioClassifier

Events = Annotated[bool, typer.Option("--events", help="A row for each event: what is heard from when to when.")]
Frames = Annotated[bool, typer.Option("--frames", help="Logits of every frame, as CSV or to --out FILE.npz.")]
Threshold = Annotated[
    float | None, typer.Option(metavar="LOGIT", help="Score that an event of any class must reach; see docs/events.md.")
]
MinMs = Annotated[float | None, typer.Option(min=0, metavar="MS", help="Leave out shorter events.")]
JoinMs = Annotated[float | None, typer.Option(min=0, metavar="MS", help="Ignore shorter gaps within an event.")]


def check_event_options(
    events: bool,
    frames: bool,
    label_files: bool,
    changes: tuple[float | None, ...],
    top_k: int,
    windows: bool,
    overlap: float,
    resume: bool,
    as_json: bool,
) -> None:
    """Refuse options of `predict` that do not go together with events or frames."""
    if any(value is not None for value in changes) and not (events or label_files):
        raise UsageError("--threshold, --min-ms and --join-ms change how events are found; add --events")
    if events and frames:
        raise UsageError("--events and --frames: choose one")
    if (events or frames) and (top_k > 1 or windows or overlap):
        name = "--events" if events else "--frames"
        raise UsageError(f"{name} goes by frames, not by windows; omit --top-k, --windows and --overlap")
    if frames and (label_files or resume or as_json):
        raise UsageError("--frames writes CSV, or to --out FILE.npz; omit --format, --resume and --json")


def describe_events(model: "AudioClassifier", changes: "Changes", stream: bool) -> str:
    """What is to be known of events before the first one."""
    from ..inference.events import event_latency_s, onset_bound_ms

    latency = f", an event is known {event_latency_s(model, changes):g} s after its end" if stream else ""
    unknown = [task for task in model.labels if task not in model.event_settings]
    default = f"; thresholds of {', '.join(unknown)} are default ones" if unknown else ""
    return f"onsets are known to about ±{onset_bound_ms(model):.0f} ms{latency}{default}"


def write_frames(model: "AudioClassifier", sounds: "list[Sound]", out: Path | None) -> None:
    """Logits of every frame as CSV, a row for each frame, or as arrays in FILE.npz."""
    from ..inference.frame_table import frame_lines, write_npz
    from ..models.frames import frame_grid
    from .progress import ProgressDisplay

    if out is not None and out.suffix not in (".csv", ".npz"):
        raise UsageError(f"{out}: frames are written to .csv or .npz")
    frame_grid(model)  # or it says that there is none
    errors: dict[str, str] = {}
    with ProgressDisplay() as display:
        if out is None:
            for line in frame_lines(model, sounds, errors):
                print_rows(line)
        elif out.suffix == ".csv":
            from ..files import replacing

            with replacing(out) as path, path.open("w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(frame_lines(model, sounds, errors))
        else:
            write_npz(model, sounds, out, errors)
        for error in errors.values():
            display.print(error)
    if errors:
        kind: Any = PartialError if len(errors) < len(sounds) else DataError
        raise kind(f"{len(errors)} of {len(sounds)} sounds could not be used; see the error for each")


def evaluate_events(run_dir: str, folder: Path, task: str | None, as_json: bool) -> None:
    """Scores of a model's events in annotated recordings."""
    from ..models.classifier import load
    from ..training.event_testing import event_report, hear_annotated
    from .progress import ProgressDisplay
    from .terminal_tables import events_table

    model = load(run_dir)
    with ProgressDisplay() as display:
        task, heard = hear_annotated(model, folder, task, display.progress)
    report = event_report(model, task, heard)
    if as_json:
        print_json(report)
    else:
        print_table(events_table(report, f"Events of {task} in {folder}"))


def evaluate_background(run_dir: str, path: str, task: str | None, as_json: bool) -> None:
    """False alarms per hour in recordings that hold none of a model's classes."""
    from ..data.sounds import find_sounds
    from ..models.classifier import load
    from ..training.false_alarms import false_alarms
    from .progress import ProgressDisplay
    from .terminal_tables import false_alarms_table

    model = load(run_dir)
    with ProgressDisplay() as display:
        found = false_alarms(model, find_sounds([path]), task, display.progress)
    if as_json:
        print_json(found)
    else:
        print_table(false_alarms_table(found, f"False alarms in {path}"))


def calibrate(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run directory; its config.json is rewritten.")],
    events: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Recordings with a label file each, to find the settings on.")
    ],
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only this task.")] = None,
    as_json: Json = False,
) -> None:
    """Find by which thresholds, lengths and gaps a model's events are found best, and save them with it.

    The best F1 of events whose onset is right within 200 ms. Test them on other recordings: `evaluate --events`.

    [bold]Examples[/bold]

      audiostride calibrate runs/mine --events annotated/
    """
    from ..models.classifier import load
    from ..models.frames import frame_grid
    from ..training.event_testing import best_settings, event_report, hear_annotated
    from .progress import ProgressDisplay
    from .terminal_tables import events_table

    if not run_dir.is_dir():
        raise UsageError(f"{run_dir}: is not a folder; the settings are saved in a run directory")
    model = load(run_dir)
    with ProgressDisplay() as display:
        task, heard = hear_annotated(model, events, task, display.progress)
        if not any(one.true for one in heard):
            raise DataError(f"{events}: holds no event to find the settings by")
        settings = best_settings(heard, frame_grid(model), model.labels[task], model.kinds[task])
    model.event_settings[task] = settings
    model.save(run_dir)
    report = event_report(model, task, heard)
    if as_json:
        print_json({"settings": settings.as_dict(), "on_these": report})
    else:
        print_table(events_table(report, f"Events of {task} in {events}, which the settings were found on"))
