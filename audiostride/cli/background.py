"""`evaluate --background`: false alarms per hour, and what is missed at a few of them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, ModelFileError, UsageError
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..models.classifier import AudioClassifier
    from ..training.event_testing import Heard


@dataclass(frozen=True)
class BackgroundOptions:
    """In what `evaluate` counts false alarms, and what it does with their curve."""

    background: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Count false alarms per hour in recordings that hold none of the classes."),
    ] = None
    set_threshold: Annotated[
        str | None,
        typer.Option(metavar="N/h", help="With --background: save the thresholds that give N false alarms per hour."),
    ] = None
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --background: draw the curve: .png, .svg, .pdf.")
    ] = None


def evaluate_background(
    run_dir: str,
    options: BackgroundOptions,
    events: Path | None,
    data: str | None,
    task: str | None,
    fetch: bool,
    as_json: bool,
) -> None:
    """False alarms per hour in recordings that hold none of a model's classes, and events missed, by threshold."""
    from ..analysis.plot_style import check_ending, save
    from ..data.sounds import find_sounds
    from ..files import check_new
    from ..models.classifier import load
    from ..training.false_alarms import PER_HOUR, at_rate, false_alarms, missed_share, scaled
    from .progress import ProgressDisplay
    from .terminal_tables import false_alarms_table, missed_table

    assert options.background is not None
    if options.plot:
        check_ending(options.plot)
        check_new(options.plot)
    wanted = None if options.set_threshold is None else _per_hour(options.set_threshold)
    model = load(run_dir)
    if wanted is not None:
        if not Path(run_dir).is_dir():
            raise UsageError(f"{run_dir}: is not a folder; --set-threshold saves in a run directory")
        if task is None and len(model.labels) > 1:
            raise UsageError(f"--set-threshold: of which task? Add --task; there are {', '.join(model.labels)}")
    with ProgressDisplay() as display:
        found = false_alarms(model, find_sounds([options.background]), task, display.progress)
        heard, why = _heard(run_dir, model, events, data, task, fetch)
        if why:
            display.print(f"what is missed is not known: {why}")
        for name, one in found["tasks"].items():
            for point in one["curve"] if name in heard else ():
                point["missed"] = missed_share(model, name, heard[name], scaled(model.events_by(name), point["factor"]))
            one["at"] = {f"{per_hour:g}": at_rate(one["curve"], per_hour) for per_hour in PER_HOUR}
        if wanted is not None:
            name = task or next(iter(model.labels))
            point = at_rate(found["tasks"][name]["curve"], wanted)
            if point is None:
                most = max(one["factor"] for one in found["tasks"][name]["curve"])
                raise DataError(f"{run_dir}: no threshold up to {most:g} times the present ones gives {wanted:g}/h")
            model.event_settings[name] = scaled(model.events_by(name), point["factor"])
            model.save(run_dir)
    if options.plot:
        from ..analysis.result_plots import false_alarms_figure

        save(false_alarms_figure({name: one["curve"] for name, one in found["tasks"].items()}), options.plot)
    if as_json:
        print_json(found)
    else:
        print_table(false_alarms_table(found, f"False alarms in {options.background}"))
        print_table(missed_table({name: one["at"] for name, one in found["tasks"].items()}))


def _per_hour(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?: ?/ ?h)?", text)
    if not match or not float(match[1]):
        raise UsageError(f"--set-threshold {text}: it must be a number of false alarms per hour, such as 1/h")
    return float(match[1])


def _heard(
    run_dir: str, model: "AudioClassifier", events: Path | None, data: str | None, task: str | None, fetch: bool
) -> tuple[dict[str, "list[Heard]"], str]:
    """What there is to be missed: events of annotated recordings, or whole test clips; or why there is nothing."""
    from ..training.event_testing import hear_annotated
    from ..training.false_alarms import hear_clips
    from ..training.run_testing import data_of

    if events is not None:
        name, heard = hear_annotated(model, events, task)
        return {name: heard}, ""
    try:
        sets: list[Any] = data_of(run_dir, model, data, task, fetch=fetch)
    except (ModelFileError, DataError) as error:
        if data is not None:
            raise
        return {}, str(error)
    return {
        name: hear_clips(model, name, clips, labels[name], rows)
        for clips, labels, rows in sets
        for name in labels
        if task in (None, name)
    }, ""
