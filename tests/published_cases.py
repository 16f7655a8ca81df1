"""The cases that the published TensorFlow code was run on, and their inputs, all from seeds."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DATA = Path(__file__).parent / "data"
SIZES = [
    *((4, 4), (4, 9), (5, 4), (5, 5), (6, 7), (7, 6), (8, 8), (9, 8), (9, 11), (10, 100), (12, 33), (13, 16), (16, 13)),
    *((21, 20), (32, 32), (33, 12), (64, 9), (99, 5), (100, 64)),
]
STRIDES = [(1.0, 1.0), (1.3, 2.7), (40.0, 60.0), (3.0, 1.5)]
NETWORK: dict[str, Any] = {
    "channels": [4, 6, 8],
    "published_strides": [1, 1, 2, 3],  # the second is ignored: identity blocks never pool
    "size": (21, 20),
    "classes": 5,
}


class Case(NamedTuple):
    """Size of the map, strides and smoothness R (0 for spectral pooling)."""

    size: tuple[int, int]
    stride: tuple[float, float]
    smoothness: float


def diffstride_cases() -> dict[str, Case]:
    """76 cases by name: maps of 4 to 100 samples, R 1 and 4."""
    cases = [
        Case(size, stride, smoothness)
        for i, size in enumerate(SIZES)
        for smoothness in (1.0, 4.0)
        for stride in ((2.0, 2.0), STRIDES[i % len(STRIDES)])
    ]
    return {f"diffstride {c.size} {c.stride} {c.smoothness}": c for c in cases}


def spectral_cases() -> dict[str, Case]:
    """Cases of spectral pooling by name."""
    cases = [Case(size, stride, 0.0) for size in SIZES for stride in ((3.0, 3.0), (1.5, 2.2))]
    return {f"spectral {c.size} {c.stride}": c for c in cases}


def sample(name: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A map of shape ``(1, 1, height, width)``, and what its output is multiplied by before the sum."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    x, weight = random.standard_normal((2, 1, 1, *size)).astype(np.float32)
    return x, weight / np.float32(np.sqrt(np.prod(size)))


def network_input() -> np.ndarray:
    """Images of shape ``(batch, 3, height, width)``."""
    return np.random.RandomState(0).standard_normal((3, 3, *NETWORK["size"])).astype(np.float32)


def network_weights(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Values for variables of these shapes, in their order; kernels are ``(height, width, in, out)``."""
    random = np.random.RandomState(1)
    return [(random.standard_normal(shape) * 0.3 + (len(shape) == 1)).astype(np.float32) for shape in shapes]
