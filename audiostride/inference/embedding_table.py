"""Embeddings of many sounds as one table, `.npz` or `.parquet`."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..data.clips import Progress
from ..errors import UsageError
from ..models.classifier import AudioClassifier
from .embedding import Sound, embed_sounds


def write_embeddings(
    model: AudioClassifier,
    sounds: Sequence[Sound],
    path: Path,
    batch_size: int = 64,
    workers: int = 2,
    progress: Progress | None = None,
) -> int:
    """Embed many sounds into a table: a row each, in their order, a bad one with its error.

    Args:
        model: the classifier.
        sounds: from `embedding.open_sounds`.
        path: ends in .npz (arrays `path`, `seconds`, `embedding`, `error`; NaN where there is an error)
            or .parquet (the same columns; null where there is none).
        batch_size: see `embedding.embed_sounds`.
        workers: see `embedding.embed_sounds`.
        progress: called after each sound.

    Returns:
        How many of the sounds failed.

    Raises:
        UsageError: if the path ends otherwise.
    """
    if path.suffix not in (".npz", ".parquet"):
        raise UsageError(f"{path}: embeddings are written to .npz or .parquet, not to {path.suffix or 'that'}")
    names: list[str] = []
    seconds: list[float] = []
    embeddings: list[np.ndarray] = []
    errors: list[str] = []
    size = model.trunk.num_features
    total, n_windows = torch.zeros(size, dtype=torch.float64), 0
    for piece in embed_sounds(model, sounds, batch_size, workers):
        total += piece.embeddings.double().sum(0)
        n_windows += len(piece.embeddings)
        if piece.last:
            failed = piece.error is not None
            names.append(piece.name)
            seconds.append(np.nan if failed else piece.samples / model.sample_rate)
            embeddings.append(np.full(size, np.nan, np.float32) if failed else (total / n_windows).float().numpy())
            errors.append(piece.error or "")
            total, n_windows = torch.zeros_like(total), 0
            if progress:
                progress("embedding", len(names), len(sounds))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    if path.suffix == ".npz":
        with unfinished.open("wb") as file:
            np.savez_compressed(
                file,
                path=np.array(names),
                seconds=np.array(seconds),
                embedding=np.array(embeddings),
                error=np.array(errors),
            )
    else:
        import pyarrow
        import pyarrow.parquet

        columns = {
            "path": pyarrow.array(names),
            "seconds": pyarrow.array([None if e else s for s, e in zip(seconds, errors, strict=True)]),
            "embedding": pyarrow.array(
                [None if e else v.tolist() for v, e in zip(embeddings, errors, strict=True)],
                pyarrow.list_(pyarrow.float32()),
            ),
            "error": pyarrow.array([e or None for e in errors], pyarrow.string()),
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), unfinished)
    os.replace(unfinished, path)
    return sum(map(bool, errors))
