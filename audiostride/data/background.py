"""Background: sounds that are none of a task's classes. They are mixed into training clips, and shown as none of them.

Source: Hendrycks, Mazeika & Dietterich 2019, "Deep Anomaly Detection with Outlier Exposure".
"""

import numpy as np

from ..errors import DataError
from ..files import expand_user
from .augment import add_noise, noise_files
from .clips import Clips, FileClips

SHOWN = 0.25
"""Windows of background in a batch, as a share of its clips."""

MIXED_IN, SNR_DB = 0.5, (5.0, 20.0)
"""Share of the clips that background is mixed into, and the range of signal-to-noise ratios."""

_HELD_OUT = 0.1  # of a single file, its end


def read_background(path: str, sample_rate: int, seed: int, validation_fraction: float, key: str) -> FileClips:
    """The sounds of a folder, or of one file, of which some files are for validation, or the end of a single one.

    Args:
        path: a folder of audio files, at any depth, or a file. They are opened, not decoded.
        sample_rate: at which they will be read, in Hz.
        seed: decides which files are held out.
        validation_fraction: share of the files; at least one of several unless it is 0.
        key: of the recipe, for errors.

    Raises:
        DataError: if there is none, or one cannot be opened.
    """
    place = expand_user(path)
    try:
        files = [place] if place.is_file() else list(noise_files(path))
    except DataError as error:
        raise DataError(f"{key}: {error}") from error
    root = place.parent if place.is_file() else place
    names = [file.relative_to(root).as_posix() for file in files]
    clips = FileClips(names, {}, [], root=root)
    lengths = np.array([clips.n_samples(i, sample_rate) for i in range(len(files))], np.int64)
    held_out = np.zeros(len(files), bool)
    if len(files) == 1 and validation_fraction:
        cut_s = (1 - _HELD_OUT) * lengths[0] / sample_rate
        clips.names, clips.spans = names * 2, np.array([[0.0, cut_s], [cut_s, np.inf]])
        first = round(cut_s * sample_rate)
        lengths, held_out = np.array([first, lengths[0] - first]), np.array([False, True])
    elif validation_fraction:
        n = min(len(files) - 1, max(1, round(validation_fraction * len(files))))
        held_out[np.random.default_rng([seed, 8]).permutation(len(files))[:n]] = True
    clips.splits = ["validation" if held else "train" for held in held_out]
    clips.lengths, clips.lengths_at = lengths, sample_rate
    return clips


def background_window(clips: Clips, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """A window of the training part, each second of it as likely as any other; short sounds are repeated.

    Returns:
        Float32 of shape ``(length,)``.
    """
    rows = [i for i, split in enumerate(clips.splits) if split == "train"]
    lengths = np.array([clips.n_samples(i, sample_rate) for i in rows], float)
    index = rows[int(rng.choice(len(rows), p=lengths / lengths.sum()))]
    window = clips.random_window(index, sample_rate, min(length, clips.n_samples(index, sample_rate)), rng)
    return np.resize(window, length)


def mixed_in(clips: Clips, waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A training window with background, at times, at a random signal-to-noise ratio."""
    if rng.random() >= MIXED_IN:
        return waveform
    return add_noise(waveform, background_window(clips, sample_rate, len(waveform), rng), rng.uniform(*SNR_DB))
