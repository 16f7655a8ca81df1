"""The recipe that `init` writes for a folder or table that it has looked at."""

import os
from pathlib import Path
from typing import Any

import yaml

from ..data.inspection import LABEL_NAMES, Findings
from ..data.table import key_of
from ..errors import DataError

_LEAK_HELP = (
    "Scores on such splits are inflated. Fix them, leave the splits out so that they are drawn by group, "
    "name another column with --group, or allow it with --allow-shared-groups."
)


def make_recipe(
    path: str | os.PathLike[str],
    found: Findings,
    sample_rate: int | None = None,
    allow_shared_groups: bool = False,
    root: str | None = None,
) -> str:
    """A recipe for a folder or table, as the text of a YAML file that `load_recipe` reads.

    The small `AudioResNet` with augmentation, as many epochs as make about 1,600 steps.

    Args:
        path: the folder or table, as it shall stand in the recipe.
        found: from `inspect`.
        sample_rate: to train at, in Hz; None: `rate_for` what was found.
        allow_shared_groups: train although `found.leaks` is not empty.
        root: folder that a table's files are relative to, where it is not the table's own.

    Raises:
        DataError: if there is no label column, or the splits leak and that is not allowed.

    Example:
        >>> found = Findings(60, {}, {"label": {"no": 30, "yes": 30}}, {"label": 2}, label="label", kind="binary")
        >>> found.seconds, found.sample_rates = {"shortest": 1.0, "longest": 1.0, "total": 60.0}, {16000: 60}
        >>> yaml.safe_load(make_recipe("words", found))["tasks"]["label"]
        {'data': {'source': 'folder', 'path': 'words'}, 'column': 'label', 'kind': 'binary'}
    """
    column, group = found.label, found.group
    if column is None and not found.label_columns:
        raise DataError(f"{path}: {_why_no_labels(found)}")
    if found.leaks and not allow_shared_groups:
        raise DataError("\n".join([f"{path}: {line}" for line in found.leaks] + [_LEAK_HELP]))
    if not found.sample_rates:
        raise DataError(f"{path}: none of the {found.clips} files can be read, for example {found.bad_files[0]}")
    data: dict[str, Any] = {"source": found.source, "path": str(path)}
    if group:
        data["group"] = group
    if found.leaks:
        data["allow_shared_groups"] = True
    if found.bad_files:
        data["on_bad_file"] = "skip"
    if found.missing:
        data["on_missing_label"] = "skip"
    if root is not None:
        data["root"] = root
    rate = sample_rate or rate_for(found)
    task: dict[str, Any] = {"data": data, "column": column or "label", "kind": found.kind}
    if column is None:
        task["label_columns"] = found.label_columns
    elif found.separator != "|":
        task["label_separator"] = found.separator
    n_classes = len(found.label_columns) if column is None else found.distinct[column]
    n_train = found.splits.get("train", round(0.8 * found.clips))
    batch_size = max(4, min(64, n_train // 8))
    recipe: dict[str, Any] = {
        "name": _plain(Path(path).stem or "sounds"),
        "seed": 0,
        **({} if rate == 16000 else {"frontend": frontend_for(rate)}),
        "tasks": {_plain(column or "label"): task},
        "model": {
            "name": "audio_resnet",
            "downsampling": "strided",
            "channels": [24, 48, 64],
            "time_channels": [128, 128, 128],
        },
        "augment": {
            "time_shift_ms": 100,
            "coloured_noise": {"snr_db": [10, 50]},
            "spec_augment": {"time_masks": 2, "time_ms": 150, "mel_masks": 2, "mels": 6},
        },
        "train": {
            "epochs": max(8, min(100, round(1600 * batch_size / max(1, n_train)))),
            "batch_size": batch_size,
            "learning_rate": 2.0e-3,
            "schedule": "one_cycle",
        },
    }
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
    seconds, classes = found.seconds, f"{n_classes} classes ({column or 'a column each'})"
    comment = (
        f"# {found.clips} clips in {classes}, {seconds['total'] / 60:.1f} minutes, "
        f"{seconds['shortest']:.2f} to {seconds['longest']:.2f} s each\n"
        "# Command   audiostride train THIS_FILE\n"
        "# Try       model.downsampling=diffstride, which learns its strides: audiostride cutoffs says what they keep\n"
        "#           model.init=audio_resnet_small_strided, which starts from the weights of the package\n"
        "#           audiostride resolution THIS_FILE, if classes differ in fast modulations or close frequencies\n\n"
    )
    return comment + text


def rate_for(found: Findings) -> int:
    """The sample rate to train at, in Hz: the files', at most 16000 unless much of the sound is above 7.8 kHz.

    Recorders for bats (192 kHz and more) are heard at their own rate.

    Example:
        >>> found = Findings(2, {}, {}, {}, sample_rates={48000: 2}, energy_hz={"5": 200.0, "80": 3000.0, "95": 9000.0})
        >>> rate_for(found)
        16000
        >>> found.energy_hz["80"] = 9000.0
        >>> rate_for(found)
        22050
    """
    own = next(iter(found.sample_rates))
    if own >= 192000:
        return own
    if own <= 16000 or found.energy_hz.get("80", 0) < 7800:
        return min(16000, own)
    wanted = found.energy_hz["95"] / 0.4875
    return next((rate for rate in (22050, 32000, 44100, 48000, 96000) if wanted <= rate < own), own)


def _why_no_labels(found: Findings) -> str:
    names = {key_of(name): name for name in found.columns}
    likely = next((names[key_of(name)] for name in LABEL_NAMES if key_of(name) in names), None)
    if likely and found.distinct[likely] == 1:
        only = next(iter(found.columns[likely]))
        return (
            f"all clips are of one class, {only!r} (column {likely!r}); a classifier needs two: add clips of others, "
            "such as background, or name another column with --column"
        )
    if likely:
        return f"the column {likely!r} has {found.distinct[likely]} values in {found.clips} clips, which are no classes"
    return f"no column looks like labels among {', '.join(found.columns) or 'none'}; name it with --column"


def frontend_for(sample_rate: int) -> dict[str, float]:
    """Settings of `LogMel` for a sample rate in Hz: the default's, stretched to the band that there is.

    Windows of 25 ms every 10 ms as ever, an FFT that holds one, bands up to 0.4875 of the rate.

    Example:
        >>> frontend_for(8000)
        {'sample_rate': 8000, 'n_fft': 256, 'f_min': 30.0, 'f_max': 3900.0}
    """
    window = round(0.025 * sample_rate)
    return {
        "sample_rate": sample_rate,
        "n_fft": max(256, 1 << (window - 1).bit_length()),
        "f_min": round(60 * sample_rate / 16000, 3),
        "f_max": round(0.4875 * sample_rate, 3),
    }


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in name).strip("_") or "sounds"
