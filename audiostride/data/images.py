"""Images as clips: from parquet files or class folders to the views of them that a network is trained and tested on.

The resolution that clips are read at is, for an image, the number of pixels on a side of a view.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, UsageError
from ..files import expand_user, file_status
from .clips import PER_CLIP, Clips, Progress

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_PIXELS = 1 << 26
"""Of one image, judged before it is decoded."""

TEST_FOLDERS = ("test", "val", "validation")

COLOUR_IMAGES = 2048
"""Training images whose colours are measured for normalisation."""


@dataclass
class ImageClips(Clips):
    """Images with their labels. A view is uint8 of shape ``(size, size, 3)``.

    Attributes:
        files: encoded bytes of each image, or the path it is read from.
        crop: "padded", as for CIFAR: every image is resized to `size`, and a training view shifts it by up
            to four pixels. The decoded images stay in memory, 3 kB each at 32 x 32, see `loaded`. "resized",
            as for ImageNet: a training view is a random part of 8 to 100 % of the area, resized, a test view
            the centre of the image resized to 8/7 of `size`; images are decoded anew for each view.
            Training views are flipped left and right at random.
        pixels: the decoded images of "padded", uint8 ``(n, size, size, 3)``.
    """

    files: Sequence[bytes | Path] = field(default=(), metadata=PER_CLIP)
    crop: str = "padded"
    pixels: np.ndarray | None = field(default=None, metadata=PER_CLIP)

    def decode(self, index: int) -> np.ndarray:
        """One image as uint8 ``(height, width, 3)``.

        Raises:
            DataError: if it cannot be decoded.
        """
        from PIL import Image

        content = self.files[index]
        try:
            if not isinstance(content, bytes):
                file_status(content)
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            name = self.names[index] if isinstance(content, bytes) else content
            raise DataError(f"{name}: cannot be decoded as an image ({error})") from error

    def loaded(self, resolution: int, progress: Progress | None = None) -> "ImageClips":
        """The same images, decoded into memory for "padded".

        Raises:
            DataError: if an image cannot be decoded.
        """
        if self.crop != "padded":
            return self
        pixels = np.empty((len(self), resolution, resolution, 3), np.uint8)
        for index in range(len(self)):
            pixels[index] = _whole(self.decode(index), resolution)
            if progress:
                progress("decoding images", index + 1, len(self))
        return replace(self, pixels=pixels)

    def n_samples(self, index: int, resolution: int) -> int:
        """An image is one view long."""
        return resolution

    def read(self, index: int, resolution: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """The view that the network is tested on: the whole image, for "resized" its centre."""
        if self.pixels is not None:
            return self.pixels[index]
        image = self.decode(index)
        return _whole(image, resolution) if self.crop == "padded" else centre(image, resolution)

    def random_window(self, index: int, resolution: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """A random view for training."""
        if self.crop == "padded":
            return shift_and_flip(self.read(index, resolution), rng)
        return random_part(self.decode(index), resolution, rng)

    def windows(self, index: int, resolution: int, length: int, overlap: float = 0.0) -> Tensor:
        """The one view of testing, ``(1, size, size, 3)``, whatever the overlap."""
        return torch.from_numpy(np.array(self.read(index, resolution)))[None]


class Colours(NamedTuple):
    """Mean and standard deviation of each colour, 0 to 1."""

    mean: list[float]
    std: list[float]


def colours(clips: Clips, rows: Sequence[int] | np.ndarray, resolution: int) -> Colours:
    """Mean and standard deviation of each colour over the test views of the first `COLOUR_IMAGES` of some images.

    Example:
        >>> images = ImageClips(["a"], {}, [""], pixels=np.full((1, 8, 8, 3), 255, np.uint8))
        >>> colours(images, [0], 8)
        Colours(mean=[1.0, 1.0, 1.0], std=[0.001, 0.001, 0.001])
    """
    some = np.stack([clips.read(int(row), resolution) for row in rows[:COLOUR_IMAGES]]) / 255
    return Colours(some.mean((0, 1, 2)).tolist(), np.maximum(some.std((0, 1, 2)), 1e-3).tolist())


def read_images(path: str | Path, crop: str = "padded", key: str = "tasks.label.data") -> ImageClips:
    """The images of a folder, with the label column "label" and the splits "train" and "test".

    Args:
        path: a folder with ``train*.parquet`` and ``test*.parquet`` (columns `image` or `img`, and
            `label`, `labels` or `fine_label`, as on the Hugging Face hub), or with ``train/CLASS/*`` and
            ``test/CLASS/*``. Where there is no test, ``val`` or ``validation`` is.
        crop: see `ImageClips`.
        key: what the reader of an error sets `.path` of.

    Raises:
        UsageError: if the package pillow is missing.
        DataError: if a split, a column or a class is missing, an image has no class, or a file is damaged.
    """
    if find_spec("PIL") is None:
        raise UsageError("images need the package pillow: pip install 'audiostride[images]'")
    folder = expand_user(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; set {key}.path to one with parquet files or train/CLASS/*.png")
    parquet = bool(list(folder.rglob("*.parquet")))
    parts = [_read_parquet(folder, names) if parquet else _read_folder(folder, names) for names in _SPLITS.values()]
    classes = [set(part.labels) for part in parts]
    if classes[0] != classes[1]:
        differ = ", ".join(sorted(classes[0] ^ classes[1])[:10])
        raise DataError(f"{folder}: training and test images have different classes: {differ}")
    return ImageClips(
        names=[name for part in parts for name in part.names],
        columns={"label": [label for part in parts for label in part.labels]},
        splits=[split for split, part in zip(_SPLITS, parts, strict=True) for _ in part.names],
        files=[file for part in parts for file in part.files],
        crop=crop,
    )


def shift_and_flip(image: np.ndarray, rng: np.random.Generator, pad: int = 4) -> np.ndarray:
    """Shift an image by up to `pad` pixels along both axes, black moving in, and flip it or not.

    Args:
        image: uint8 of shape ``(height, width, 3)``.
        rng: decides shift and flip.
        pad: pixels of the largest shift.

    Example:
        >>> shift_and_flip(np.zeros((32, 32, 3), np.uint8), np.random.default_rng(0)).shape
        (32, 32, 3)
    """
    height, width, _ = image.shape
    padded = np.zeros((height + 2 * pad, width + 2 * pad, 3), np.uint8)
    padded[pad : pad + height, pad : pad + width] = image
    top, left = rng.integers(0, 2 * pad + 1, 2)
    view = padded[top : top + height, left : left + width]
    return view[:, ::-1] if rng.random() < 0.5 else view


def random_part(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of an image, 8 to 100 % of its area and 3:4 to 4:3, resized, and flipped or not.

    Example:
        >>> random_part(np.zeros((60, 90, 3), np.uint8), 32, np.random.default_rng(0)).shape
        (32, 32, 3)
    """
    height, width = image.shape[:2]
    view = None
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            view = _resize(image, (left, top, left + w, top + h), size)
            break
    view = centre(image, size) if view is None else view
    return view[:, ::-1] if rng.random() < 0.5 else view


def centre(image: np.ndarray, size: int) -> np.ndarray:
    """The centre of an image whose shorter side is resized to 8/7 of `size` (256 for 224).

    Example:
        >>> centre(np.zeros((300, 256, 3), np.uint8), 224).shape
        (224, 224, 3)
    """
    height, width = image.shape[:2]
    side = min(height, width) * 7 / 8
    left, top = (width - side) / 2, (height - side) / 2
    return _resize(image, (left, top, left + side, top + side), size)


def _whole(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    return image if (height, width) == (size, size) else _resize(image, (0, 0, width, height), size)


def _resize(image: np.ndarray, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))


_SPLITS = {"train": ("train",), "test": TEST_FOLDERS}


class _Part(NamedTuple):
    """Encoded images of one split, their names and labels."""

    files: Sequence[bytes | Path]
    names: Sequence[str]
    labels: Sequence[str]


def _read_parquet(folder: Path, splits: Sequence[str]) -> _Part:
    import datasets

    found = {split: sorted(str(f) for f in folder.rglob("*.parquet") if f.stem.startswith(split)) for split in splits}
    files = next(filter(None, found.values()), [])
    if not files:
        raise DataError(f"{folder}: has no {splits[0]}*.parquet")
    datasets.disable_progress_bars()
    try:
        table = datasets.Dataset.from_parquet(files, keep_in_memory=True)
    except Exception as error:  # datasets and arrow raise dozens of kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{files[0]}: cannot be read as images in parquet ({reason})") from error
    image = next((c for c in ("image", "img") if c in table.column_names), None)
    label = next((c for c in ("label", "labels", "fine_label") if c in table.column_names), None)
    if image is None or label is None:
        raise DataError(
            f"{files[0]}: does not have both an image and a label column, only {', '.join(table.column_names)}"
        )
    rows = table.cast_column(image, datasets.Image(decode=False))
    classes = getattr(table.features[label], "names", None)
    where = Path(files[0]).name if len(files) == 1 else f"{folder.name}/{splits[0]}*.parquet"
    names = [f"{where}, row {i}" for i in range(len(table))]
    contents, numbers = [cell and cell["bytes"] for cell in rows[image]], table[label][:]
    for name, number, content in zip(names, numbers, contents, strict=True):
        if number is None or number == -1:  # -1: a test split whose labels are kept back
            raise DataError(f"{name}: has no class")
        if content is None:
            raise DataError(f"{name}: has no image")
    return _Part(contents, names, [classes[number] if classes else str(number) for number in numbers])


def _read_folder(folder: Path, splits: Sequence[str]) -> _Part:
    parts = [folder / split for split in splits if (folder / split).is_dir()]
    if not parts:
        raise DataError(f"{folder}: has neither parquet files nor a folder {splits[0]}/CLASS/")
    files = [
        (path, label)
        for label in sorted(path.name for path in parts[0].iterdir() if path.is_dir())
        for path in sorted((parts[0] / label).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise DataError(f"{parts[0]}: holds no images; expected CLASS/*{SUFFIXES[0]} or {SUFFIXES[1]}")
    names = [path.relative_to(folder).as_posix() for path, _ in files]
    return _Part([path for path, _ in files], names, [label for _, label in files])
