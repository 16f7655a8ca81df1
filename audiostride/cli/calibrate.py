"""`calibrate`: finds by which settings a model's scores, its answer "none" and its events are best, and saves them."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import DataError, UsageError
from .arguments import Fetch, Json
from .output import print_json, print_table


def calibrate(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run directory; its config.json is rewritten.")],
    *,
    events: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Find the settings for events, on recordings with a label file each."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="Other clips, as for training; default: the validation clips.")
    ] = None,
    background: Annotated[
        str | None, typer.Option(metavar="PATH", help="Sounds that are none of the classes: how many are called none?")
    ] = None,
    keep: Annotated[float, typer.Option(metavar="SHARE", help="Share of true clips not to be called none.")] = 0.95,
    precision: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Name a class only where so many of its answers are right.")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Only this task.")] = None,
    fetch: Fetch = False,
    as_json: Json = False,
) -> None:
    """Find from which score on a model is to be believed, or how its events are found best, and save that with it.

    Without --events: the temperature that makes scores probabilities, and the threshold of "none", from the
    validation clips of its run. With it: the best F1 of events whose onset is right within 200 ms; test them on other
    recordings with `evaluate --events`.

    [bold]Examples[/bold]

      audiostride calibrate runs/mine

      audiostride calibrate runs/mine --background quiet_nights/ --keep 0.9

      audiostride calibrate runs/mine --precision 0.9

      audiostride calibrate runs/mine --events annotated/
    """
    if not run_dir.is_dir():
        raise UsageError(f"{run_dir}: is not a folder; the settings are saved in a run directory")
    if events is not None:
        if data is not None or background is not None or precision is not None or keep != 0.95:
            raise UsageError("--events finds the settings for events; omit --data, --background, --keep, --precision")
        return _calibrate_events(run_dir, events, task, as_json)
    for name, share in (("--keep", keep), ("--precision", precision)):
        if share is not None and not 0 < share <= 1:
            raise UsageError(f"{name} {share:g}: it must be a share above 0 and up to 1, such as 0.95")
    from ..models.classifier import load
    from ..training.run_testing import calibrate_run
    from .progress import ProgressDisplay
    from .terminal_tables import calibration_table, precision_table

    with ProgressDisplay() as display:
        found = calibrate_run(run_dir, data, background, task, keep, precision, display.progress, fetch)
    if as_json:
        return print_json(found)
    print_table(calibration_table(found))
    model = load(run_dir)
    for name, one in found.items():
        if "thresholds" in one:
            labels = model.labels[name][1:] if model.kinds[name] == "binary" else model.labels[name]
            print_table(precision_table(name, labels, one["thresholds"]))


def _calibrate_events(run_dir: Path, events: Path, task: str | None, as_json: bool) -> None:
    from ..models.classifier import load
    from ..models.frames import frame_grid
    from ..training.event_testing import best_settings, event_report, hear_annotated
    from .progress import ProgressDisplay
    from .terminal_tables import events_table

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
