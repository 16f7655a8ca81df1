"""Images from parquet files or class folders, and the random views of them that a network is trained on."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError, UsageError
from .loading import load

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_PIXELS = 1 << 26
"""Of one image, judged before it is decoded."""

TEST_FOLDERS = ("test", "val", "validation")

Progress = Callable[[str, int, int], None]


class ImageSet(NamedTuple):
    """Images of one split, still encoded.

    Attributes:
        files: encoded bytes of each image, or the path it is read from.
        names: name of each image, for messages.
        labels: class number of each image, int64 of shape ``(n,)``.
        classes: name of each class.
    """

    files: Sequence[bytes | Path]
    names: Sequence[str]
    labels: np.ndarray
    classes: list[str]

    def decode(self, index: int) -> np.ndarray:
        """One image as uint8 ``(height, width, 3)``.

        Raises:
            DataError: if it cannot be decoded.
        """
        from PIL import Image

        content = self.files[index]
        try:
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{self.names[index]}: cannot be decoded as an image ({error})") from error


def read_images(path: str | Path) -> tuple[ImageSet, ImageSet]:
    """Training and test images of a folder.

    Args:
        path: a folder with ``train*.parquet`` and ``test*.parquet`` (columns `image` or `img`, and
            `label`, `labels` or `fine_label`, as on the Hugging Face hub), or with ``train/CLASS/*`` and
            ``test/CLASS/*`` (or ``val``).

    Raises:
        DataError: if a split, a column or a class is missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; set data.path to one with parquet files or train/CLASS/*.png")
    parquet = bool(list(folder.rglob("*.parquet")))
    train = _read_parquet(folder, ("train",)) if parquet else _read_folder(folder, ("train",))
    test = _read_parquet(folder, TEST_FOLDERS) if parquet else _read_folder(folder, TEST_FOLDERS)
    if train.classes != test.classes:
        differ = sorted(set(train.classes) ^ set(test.classes)) or train.classes
        raise DataError(f"{folder}: training and test images have different classes: {', '.join(differ[:10])}")
    return train, test


class Views:
    """What a network sees of a set of images: random views in training, one fixed view each in testing.

    Args:
        images: the images.
        size: height and width of a view.
        crop: "padded", as for CIFAR: every image is resized to `size`, and a training view shifts it by up
            to four pixels. The decoded images stay in memory, 3 kB each at 32 x 32. "resized", as for
            ImageNet: a training view is a random part of 8 to 100 % of the area, resized, a test view the
            centre of the image resized to 8/7 of `size`; images are decoded anew for each view.
            Training views are flipped left and right at random.
        workers: processes that decode images for "resized".
        progress: called while images are decoded for "padded".

    Raises:
        DataError: if an image cannot be decoded; for "resized" by `batches`.
    """

    def __init__(
        self,
        images: ImageSet,
        size: int,
        crop: str = "padded",
        workers: int = 0,
        progress: Progress | None = None,
    ):
        self.images, self.size = images, size
        self.pixels: np.ndarray | None = None
        self.workers = workers
        if crop == "padded":
            self.workers = 0  # nothing is left to do for them
            self.pixels = np.empty((len(images.labels), size, size, 3), np.uint8)
            for index in range(len(images.labels)):
                self.pixels[index] = _whole(images.decode(index), size)
                if progress:
                    progress("decoding", index + 1, len(images.labels))

    def make(self, indexes: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Views of some images, uint8 of shape ``(n, size, size, 3)``; `rng` is None for testing."""
        if self.pixels is not None:
            return self.pixels[indexes] if rng is None else shift_and_flip(self.pixels[indexes], rng)
        decoded = (self.images.decode(int(index)) for index in indexes)
        return np.stack([centre(i, self.size) if rng is None else random_part(i, self.size, rng) for i in decoded])

    def batches(self, batch_size: int, shuffle: tuple[int, int] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of uint8 views and labels.

        Args:
            batch_size: images a batch.
            shuffle: (seed, epoch), from which order and training views follow, whatever the number of
                workers; None for test views in order.
        """
        n = len(self.images.labels)
        order = np.arange(n) if shuffle is None else np.random.default_rng([*shuffle, 1]).permutation(n)
        jobs = [order[i : i + batch_size] for i in range(0, n, batch_size)]
        if shuffle and len(jobs) > 1 and len(jobs[-1]) == 1:  # batch norm cannot learn from a single image
            jobs = [*jobs[:-2], np.concatenate(jobs[-2:])]
        return load(_Batches(self, jobs, shuffle), self.workers)

    def colours(self, n: int = 2048) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each colour, 0 to 1, over the test views of the first `n` images."""
        some = self.make(np.arange(min(n, len(self.images.labels)))) / 255
        return some.mean((0, 1, 2)).tolist(), np.maximum(some.std((0, 1, 2)), 1e-3).tolist()


def shift_and_flip(images: np.ndarray, rng: np.random.Generator, pad: int = 4) -> np.ndarray:
    """Shift each image by up to `pad` pixels along both axes, black moving in, and flip half of them.

    Args:
        images: uint8 of shape ``(n, height, width, 3)``.
        rng: decides shifts and flips.
        pad: pixels of the largest shift.

    Example:
        >>> shift_and_flip(np.zeros((5, 32, 32, 3), np.uint8), np.random.default_rng(0)).shape
        (5, 32, 32, 3)
    """
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    top, left = rng.integers(0, 2 * pad + 1, (2, n, 1, 1))
    flip = rng.random((n, 1, 1)) < 0.5
    rows = top + np.arange(height)[:, None]
    columns = left + np.where(flip, np.arange(width)[::-1], np.arange(width))
    return padded[np.arange(n)[:, None, None], rows, columns]


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
    """The centre of an image whose shorter side is resized to 8/7 of `size` (256 for 224)."""
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


class _Batches(Dataset):
    def __init__(self, views, jobs, shuffle):
        self.views, self.jobs, self.shuffle = views, jobs, shuffle

    def __len__(self):
        return len(self.jobs)

    def __getitem__(self, job):
        rng = None if self.shuffle is None else np.random.default_rng([*self.shuffle, 2, job])
        pixels = self.views.make(self.jobs[job], rng)
        return torch.from_numpy(pixels), torch.from_numpy(self.views.images.labels[self.jobs[job]])


def _read_parquet(folder: Path, splits: Sequence[str]) -> ImageSet:
    try:
        import datasets
    except ImportError as error:
        raise UsageError("parquet files need the package datasets: pip install datasets") from error

    files = sorted(str(f) for f in folder.rglob("*.parquet") if f.stem.startswith(tuple(splits)))
    if not files:
        raise DataError(f"{folder}: has no {splits[0]}*.parquet")
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_parquet(files, keep_in_memory=True)
    image = next((c for c in ("image", "img") if c in table.column_names), None)
    label = next((c for c in ("label", "labels", "fine_label") if c in table.column_names), None)
    if image is None or label is None:
        raise DataError(f"{files[0]}: has no image and label column, only {', '.join(table.column_names)}")
    rows = table.cast_column(image, datasets.Image(decode=False))
    numbers = np.array(table[label], np.int64)
    names = getattr(table.features[label], "names", None) or [str(i) for i in range(int(numbers.max()) + 1)]
    contents = [cell["bytes"] for cell in rows[image]]
    where = Path(files[0]).name if len(files) == 1 else folder.name
    return ImageSet(contents, [f"{where}, row {i}" for i in range(len(contents))], numbers, names)


def _read_folder(folder: Path, splits: Sequence[str]) -> ImageSet:
    parts = [folder / split for split in splits if (folder / split).is_dir()]
    if not parts:
        raise DataError(f"{folder}: has neither parquet files nor a folder {splits[0]}/CLASS/")
    classes = sorted(path.name for path in parts[0].iterdir() if path.is_dir())
    files = [
        (path, number)
        for number, name in enumerate(classes)
        for path in sorted((parts[0] / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise DataError(f"{parts[0]}: holds no images; expected CLASS/*{SUFFIXES[0]} or {SUFFIXES[1]}")
    paths = [path for path, _ in files]
    return ImageSet(paths, [str(path) for path in paths], np.array([number for _, number in files], np.int64), classes)
