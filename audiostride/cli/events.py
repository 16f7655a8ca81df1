"""What `predict` and `evaluate` say of frames and events."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, PartialError, UsageError
from .output import print_json, print_rows, print_table

if TYPE_CHECKING:
    from ..inference.embedding import Sound
    from ..inference.events import Changes
    from ..models.classifier import AudioClassifier


@dataclass(frozen=True)
class EventOptions:
    """Whether `predict` looks for events or scores frames, and how it finds them."""

    events: Annotated[bool, typer.Option("--events", help="A row for each event: what is heard from when to when.")] = (
        False
    )
    threshold: Annotated[
        float | None,
        typer.Option(metavar="LOGIT", help="Score that an event of any class must reach; see docs/events.md."),
    ] = None
    min_ms: Annotated[float | None, typer.Option(min=0, metavar="MS", help="Leave out shorter events.")] = None
    join_ms: Annotated[float | None, typer.Option(min=0, metavar="MS", help="Ignore shorter gaps within an event.")] = (
        None
    )
    frames: Annotated[bool, typer.Option("--frames", help="Logits of every frame, as CSV or to --out FILE.npz.")] = (
        False
    )

    def check(self, by_windows: bool, label_files: bool, no_csv: bool) -> None:
        """Refuse these together with options about windows, with label files, or with output that is not CSV."""
        if any(value is not None for value in (self.threshold, self.min_ms, self.join_ms)) and not (
            self.events or label_files
        ):
            raise UsageError("--threshold, --min-ms and --join-ms change how events are found; add --events")
        if self.events and self.frames:
            raise UsageError("--events and --frames: choose one")
        if (self.events or self.frames) and by_windows:
            name = "--events" if self.events else "--frames"
            raise UsageError(f"{name} goes by frames, not by windows; omit --top-k, --windows, --overlap and --always")
        if self.frames and (label_files or no_csv):
            raise UsageError("--frames writes CSV, or to --out FILE.npz; omit --format, --resume and --json")

    def changes(self) -> "Changes":
        """What differs from the settings that the model's events are found by."""
        from ..inference.events import Changes

        return Changes(self.threshold, self.min_ms, self.join_ms)


def describe_events(model: "AudioClassifier", changes: "Changes", stream: bool) -> str:
    """What is to be known of events before the first one."""
    from ..inference.events import event_latency_s
    from ..models.frames import frame_grid

    latency = f", an event is known {event_latency_s(model, changes):g} s after its end" if stream else ""
    unknown = [task for task in model.labels if task not in model.event_settings]
    default = f"; thresholds of {', '.join(unknown)} are default ones" if unknown else ""
    return f"onsets are known at best to about ±{frame_grid(model).onset_ms:.0f} ms{latency}{default}"


def write_frames(model: "AudioClassifier", sounds: "list[Sound]", out: Path | None) -> None:
    """Logits of every frame as CSV, a row for each frame, or as arrays in FILE.npz."""
    from ..files import check_new
    from ..inference.frame_table import frame_lines, write_npz
    from ..models.frames import frame_grid
    from .progress import ProgressDisplay

    if out is not None and out.suffix not in (".csv", ".npz"):
        raise UsageError(f"{out}: frames are written to .csv or .npz")
    check_new(out)
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
