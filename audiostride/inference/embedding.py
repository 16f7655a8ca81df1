"""Embeddings of many sounds in bounded memory: windows of several sounds share a batch.

A sound is read block by block in a thread and cut into windows. A bad sound ends with its error as a
value; it never stops or moves the others.
"""

import io
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from ..data.decoding import audio_blocks
from ..data.sounds import STDIN
from ..errors import DataError
from ..models.classifier import AudioClassifier
from ..sections import Channel
from .streams import pipe_blocks, windows_of


class Sound(NamedTuple):
    """Something to classify.

    Attributes:
        name: what its rows are called by: the path of a file.
        blocks: gives the waveform in pieces, float32 ``(samples,)`` at the classifier's rate.
    """

    name: str
    blocks: Callable[[], Iterable[np.ndarray]]


class Piece(NamedTuple):
    """The next windows of a sound, embedded.

    Attributes:
        name: of the sound.
        embeddings: shape ``(n_windows, num_features)``, on the CPU; n_windows may be 0.
        samples: samples of the sound so far.
        last: whether the sound ends here.
        error: why it ends before its end, or None.
    """

    name: str
    embeddings: Tensor
    samples: int
    last: bool
    error: str | None


def open_sounds(
    names: Iterable[str], sample_rate: int, pcm_rate: int | None = None, channel: Channel = "mix"
) -> Iterator[Sound]:
    """The sounds behind names of files; "-" is standard input, see `streams.pipe_blocks`.

    Example:
        >>> [sound.name for sound in open_sounds(["a.wav", "-"], 16000)]
        ['a.wav', '-']
    """
    for name in names:
        if name == STDIN:
            stdin = cast(io.BufferedIOBase, sys.stdin.buffer)
            yield Sound(name, partial(pipe_blocks, stdin, sample_rate, pcm_rate, channel))
        else:
            yield Sound(name, partial(audio_blocks, name, sample_rate, channel))


def embed_sounds(
    model: AudioClassifier, sounds: Iterable[Sound], batch_size: int = 64, workers: int = 2, overlap: float = 0.0
) -> Iterator[Piece]:
    """Embeddings of all windows of many sounds, in the order of the sounds.

    Memory is bounded by the batch and the workers' blocks, not by the length of a sound or their number.

    Args:
        model: the classifier.
        sounds: from `open_sounds`.
        batch_size: windows that are gathered before the model runs; 1 runs it as soon as a window is there.
        workers: threads that decode; 0 decodes in between.
        overlap: of windows, see `window_hop`.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_cnn_small_strided", heads={"word": 2})
        >>> sound = Sound("two seconds", lambda: [np.zeros(32000, np.float32)])
        >>> [(piece.embeddings.shape, piece.samples, piece.last) for piece in embed_sounds(model, [sound])]
        [(torch.Size([2, 128]), 32000, False), (torch.Size([0, 128]), 32000, True)]
    """
    held: list[_Read] = []

    def flush() -> Iterator[Piece]:
        sizes = [len(read.windows) for read in held]
        windows = torch.from_numpy(np.concatenate([read.windows for read in held]))
        none = torch.zeros(0, model.trunk.num_features)
        embeddings = model.embed_windows(windows).cpu() if len(windows) else none
        for read, part in zip(held, embeddings.split(sizes), strict=True):
            yield Piece(read.name, part, read.samples, read.last, read.error)
        held.clear()

    with closing(_read_ahead(sounds, model.window_length, workers, overlap)) as reads:
        for read in reads:
            held.append(read)
            if sum(len(read.windows) for read in held) >= batch_size or len(held) > 2 * batch_size:
                yield from flush()
        if held:
            yield from flush()


class _Read(NamedTuple):
    name: str
    windows: np.ndarray
    samples: int
    last: bool
    error: str | None


def _read(sound: Sound, window_length: int, overlap: float) -> Iterator[_Read]:
    """Windows of one sound; an error becomes the last item instead of an exception."""
    samples, error = 0, None
    try:
        for part in windows_of(sound.blocks(), window_length, overlap):
            samples = part.samples
            yield _Read(sound.name, part.windows, samples, False, None)
    except DataError as problem:
        error = str(problem)
    yield _Read(sound.name, np.zeros((0, window_length), np.float32), samples, True, error)


def _read_ahead(
    sounds: Iterable[Sound], window_length: int, workers: int, overlap: float
) -> Generator[_Read, None, None]:
    """Windows of all sounds in order, while threads read the first block of the next sounds."""
    if workers == 0:
        for sound in sounds:
            yield from _read(sound, window_length, overlap)
        return
    coming = iter(sounds)
    ahead: deque[tuple[Iterator[_Read], Future[_Read]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            for sound in islice(coming, 2 * workers - len(ahead)):
                reads = _read(sound, window_length, overlap)
                ahead.append((reads, pool.submit(next, reads)))
            if not ahead:
                return
            reads, future = ahead.popleft()
            while not (read := future.result()).last:
                future = pool.submit(next, reads)
                yield read
            yield read
