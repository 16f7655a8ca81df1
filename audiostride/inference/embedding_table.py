"""Embeddings of many sounds as one table, `.npz` or `.parquet`."""

import io
from collections.abc import Sequence
from pathlib import Path
from signal import SIGINT

import numpy as np
import torch

from ..data.clips import Progress
from ..errors import Interrupted, UsageError, printable
from ..files import check_absent, check_writable, replace_file
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

    Ctrl-C writes the table of the sounds that are done.

    Args:
        model: the classifier.
        sounds: from `embedding.open_sounds`.
        path: ends in .npz (arrays `path`, `seconds`, `embedding`, `error`; NaN where there is an error) or .parquet
            (the same columns, null where there is none; bytes of a name that are not UTF-8 are escaped as in
            ``\\udce9``).
        batch_size: see `embedding.embed_sounds`.
        workers: see `embedding.embed_sounds`.
        progress: called after each sound.

    Returns:
        How many of the sounds failed.

    Raises:
        UsageError: before anything is embedded, if the path ends otherwise or something is there already.
        WriteError: before anything is embedded, if nothing can be written there.
        Interrupted: by Ctrl-C, once the table is written.
    """
    if path.suffix not in (".npz", ".parquet"):
        ending = path.suffix or "a name without an ending"
        raise UsageError(f"{printable(path)}: embeddings are written to .npz or .parquet, not to {ending}")
    check_absent(path)
    check_writable(path)
    rows: list[tuple[str, float, np.ndarray, str]] = []
    size = model.trunk.num_features
    total, n_windows = torch.zeros(size, dtype=torch.float64), 0
    interrupted = False
    try:
        for piece in embed_sounds(model, sounds, batch_size, workers):
            total += piece.embeddings.double().sum(0)
            n_windows += len(piece.embeddings)
            if piece.last:
                if piece.error is None:
                    rows.append(
                        (piece.name, piece.samples / model.sample_rate, (total / n_windows).float().numpy(), "")
                    )
                else:
                    rows.append((piece.name, np.nan, np.full(size, np.nan, np.float32), piece.error))
                total, n_windows = torch.zeros_like(total), 0
                if progress:
                    progress("embedding", len(rows), len(sounds))
    except KeyboardInterrupt:
        interrupted = True
    replace_file(path, (_npz if path.suffix == ".npz" else _parquet)(rows, size))
    if interrupted:
        raise Interrupted(
            f"interrupted; {printable(path)} holds the {len(rows)} of {len(sounds)} sounds that were done", SIGINT
        )
    return sum(bool(error) for *_, error in rows)


def _npz(rows: Sequence[tuple[str, float, np.ndarray, str]], size: int) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(
        content,
        path=np.array([name for name, *_ in rows], str),
        seconds=np.array([seconds for _, seconds, *_ in rows], np.float64),
        embedding=np.array([values for *_, values, _ in rows], np.float32).reshape(-1, size),
        error=np.array([error for *_, error in rows], str),
    )
    return content.getvalue()


def _parquet(rows: Sequence[tuple[str, float, np.ndarray, str]], size: int) -> bytes:
    import pyarrow
    import pyarrow.parquet

    def text(value: str) -> str | None:
        return value.encode("utf-8", "backslashreplace").decode() or None

    columns = {
        "path": pyarrow.array([text(name) for name, *_ in rows], pyarrow.string()),
        "seconds": pyarrow.array([None if error else seconds for _, seconds, _, error in rows], pyarrow.float64()),
        "embedding": pyarrow.array(
            [None if error else values.tolist() for *_, values, error in rows], pyarrow.list_(pyarrow.float32())
        ),
        "error": pyarrow.array([text(error) for *_, error in rows], pyarrow.string()),
    }
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), content)
    return content.getvalue()
