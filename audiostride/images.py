"""Image classification with `ResNet`: the second half of the paper, small and apart from the audio path.

One file from data to table: recipes of `recipes/images/`, images from parquet files or class folders,
training with SGD and a stepped learning rate, and the sweep over initial strides with its table.
Test accuracy is that of the last epoch, as in the paper: no epoch is chosen by looking at it.

Source: Riad et al., ICLR 2022, Sections 3.2 and 3.3, and the published code.
"""

import csv
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from .complexity import model_cost
from .downsampling import clamp_strides_, parameter_groups
from .errors import DataError, RecipeError, TrainingError, UsageError
from .files import replace_file
from .recipe import ResNetSection, Section, dump_recipe, read_recipe
from .resnet import ResNet
from .run import PREDICTIONS_FILE, RECIPE_FILE, RESULTS_FILE, environment

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
TEST_FOLDERS = ("test", "val", "validation")

Progress = Callable[[str, int, int], None]


class ImageData(Section):
    """Where the images lie and how they become tensors."""

    path: str
    size: int = Field(32, ge=8, le=1024)
    crop: Literal["padded", "resized"] = "padded"


class ImageTraining(Section):
    """Settings of `train_images`."""

    epochs: int = Field(400, ge=1)
    batch_size: int = Field(256, ge=2)
    learning_rate: float = Field(0.1, gt=0)
    stride_learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-3, ge=0)
    drop_epochs: list[Annotated[int, Field(ge=1)]] = Field([200, 300])
    mixup: float = Field(0.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: int = Field(2, ge=0, le=256)


class ImageRecipe(Section):
    """A recipe of `recipes/images/`.

    `sweep` maps keys to lists of values, all of whose combinations are run. `published` are accuracies
    in percent to show beside, by downsampling and initial strides, such as "strided 2 2 2".
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    seed: int = Field(0, ge=0)
    data: ImageData
    model: ResNetSection
    train: ImageTraining = ImageTraining()
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field({})
    published: dict[str, float] = Field({})


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


def load_image_recipe(recipe: str, overrides: Sequence[str] = ()) -> ImageRecipe:
    """Read an image recipe: a path, or the name of one in `recipes/images/`.

    Raises:
        RecipeError: names the file, the key, the value and the nearest right one.

    Example:
        >>> load_image_recipe("cifar10", ["data.path=my_cifar"]).train.drop_epochs
        [200, 300]
    """
    return read_recipe(ImageRecipe, recipe, overrides, folder="images")


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


def make_view(image: np.ndarray, size: int, crop: str, rng: np.random.Generator | None = None) -> np.ndarray:
    """What the network sees of an image: a random view in training, the centre in testing.

    Args:
        image: uint8 of shape ``(height, width, 3)``.
        size: height and width of the view.
        crop: "padded": four pixels of black around, then a random crop, as for CIFAR; "resized": a
            random part of 8 to 100 % of the area, resized, as for ImageNet; testing takes the centre
            of the image resized to 8/7 of `size`. Both flip left and right at random.
        rng: None for testing.

    Returns:
        uint8 of shape ``(size, size, 3)``.

    Example:
        >>> image = np.zeros((32, 32, 3), np.uint8)
        >>> make_view(image, 32, "padded", np.random.default_rng(0)).shape
        (32, 32, 3)
    """
    height, width = image.shape[:2]
    if crop == "resized":
        view = _random_part(image, size, rng) if rng else _centre(image, size)
    else:
        if (height, width) != (size, size):
            image = _resize(image, (0, 0, width, height), (size, size))
        view = image
        if rng:
            padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
            top, left = rng.integers(0, 9, 2)
            view = padded[top : top + size, left : left + size]
    return view[:, ::-1] if rng and rng.random() < 0.5 else view


class ImageClassifier(nn.Module):
    """Images in, logits out: normalises the colours, then `ResNet` and a linear head.

    Args:
        trunk: a `ResNet` with three input channels.
        classes: name of each class.
        mean: mean of each colour over the training images, 0 to 1.
        std: standard deviation of each colour.

    Example:
        >>> model = ImageClassifier(ResNet(channels=(4, 8), blocks=(1, 1), strides=(2,), in_channels=3), ["cat", "dog"])
        >>> model(torch.zeros(5, 32, 32, 3, dtype=torch.uint8)).shape
        torch.Size([5, 2])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: ResNet,
        classes: Sequence[str],
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.num_features, len(classes))
        self.classes = list(classes)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images ``(batch, height, width, 3)`` to logits ``(batch, n_classes)``."""
        x = images.permute(0, 3, 1, 2).float() / 255
        return self.head(self.trunk((x - self.mean) / self.std))


def train_images(
    model: ImageClassifier,
    train: ImageSet,
    test: ImageSet,
    out: Path,
    *,
    size: int,
    crop: str = "padded",
    epochs: int = 400,
    batch_size: int = 256,
    learning_rate: float = 0.1,
    stride_learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-3,
    drop_epochs: Sequence[int] = (200, 300),
    mixup: float = 0.0,
    precision: str = "float32",
    workers: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train an image classifier by SGD; a line of `metrics.jsonl` in `out` per epoch.

    Args:
        model: the classifier, on its device.
        train: training images.
        test: test images, scored after each epoch.
        out: run directory, which exists.
        size: height and width the network sees.
        crop: "padded" or "resized", see `make_view`.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: SGD's rate of the weights, and `stride_learning_rate` of the strides; both are
            divided by ten after each of the epochs in `drop_epochs`.
        momentum: SGD's momentum.
        weight_decay: SGD's L2 penalty on the weights, never on strides.
        drop_epochs: epochs after which the rates fall.
        mixup: parameter of the Beta distribution that mixes pairs of images (Zhang et al. 2018); 0: off.
        precision: "float32"; or "bfloat16": convolutions and matrix products of the training steps in half
            precision (autocast). Weights, masks, batch norm, losses and scoring stay in float32.
        workers: processes that decode images.
        seed: decides order, crops and mixing.
        progress: progress callback.
        on_epoch: called with each line of `metrics.jsonl`.

    Returns:
        The last line of `metrics.jsonl`.

    Raises:
        TrainingError: if the loss is not finite.
        DataError: if an image cannot be decoded.
    """
    device = model.mean.device
    groups = parameter_groups(model, learning_rate, stride_learning_rate)
    optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    peak_rates = [group["lr"] for group in optimizer.param_groups]
    record: dict[str, Any] = {}
    with (out / "metrics.jsonl").open("w", encoding="utf-8") as metrics:
        for epoch in range(epochs):
            model.train()
            for group, rate in zip(optimizer.param_groups, peak_rates, strict=True):
                group["lr"] = rate / 10 ** sum(epoch >= drop for drop in drop_epochs)
            began, total, seen = time.perf_counter(), 0.0, 0
            mixing = np.random.default_rng([seed, 3, epoch])
            for images, labels in _batches(train, size, crop, batch_size, workers, (seed, epoch)):
                images, labels = images.to(device), labels.to(device)
                share = float(mixing.beta(mixup, mixup)) if mixup else 1.0
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    logits = model(_mix(images, share) if mixup else images).float()
                loss = F.cross_entropy(logits, labels)
                if mixup:
                    loss = share * loss + (1 - share) * F.cross_entropy(logits, labels.flip(0))
                if not torch.isfinite(loss):
                    raise TrainingError(f"the loss became {loss.item()} in epoch {epoch + 1}; lower learning_rate")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                clamp_strides_(model)
                total, seen = total + loss.item() * len(labels), seen + len(labels)
                if progress:
                    progress(f"epoch {epoch + 1}/{epochs}", seen, len(train.labels))
            record = {
                "epoch": epoch + 1,
                "train_loss": total / seen,
                "test_accuracy": _share_right(image_logits(model, test, size, crop, batch_size, workers), test),
                "strides": model.trunk.strides(),
                "lr": optimizer.param_groups[0]["lr"],
                "images_per_s": seen / (time.perf_counter() - began),
            }
            metrics.write(json.dumps(record) + "\n")
            metrics.flush()
            if on_epoch:
                on_epoch(record)
    return record


@torch.inference_mode()
def image_logits(
    model: ImageClassifier, images: ImageSet, size: int, crop: str = "padded", batch_size: int = 256, workers: int = 0
) -> Tensor:
    """Logits ``(n, n_classes)`` of the test view of every image, in their order."""
    model.eval()
    batches = _batches(images, size, crop, batch_size, workers, None)
    return torch.cat([model(batch.to(model.mean.device)).cpu() for batch, _ in batches])


def plan_runs(recipe: ImageRecipe) -> dict[str, ImageRecipe]:
    """The runs of a recipe by name: itself, or every combination of its sweep.

    Raises:
        RecipeError: if a combination is not a valid recipe.

    Example:
        >>> recipe = load_image_recipe("cifar10_quick", ["data.path=x"])
        >>> list(plan_runs(recipe))[:2]
        ['strided_2-2-2_0', 'strided_2-2-2_1']
    """
    if not recipe.sweep:
        return {"": recipe}
    runs = {}
    for values in itertools.product(*recipe.sweep.values()):
        tree = recipe.model_dump(exclude={"sweep"})
        for key, value in zip(recipe.sweep, values, strict=True):
            *parents, last = key.split(".")
            section = tree
            for parent in parents:
                section = section.get(parent, {})
            if last not in section:
                raise RecipeError(f"sweep: there is no key {key!r}")
            section[last] = value
        try:
            runs["_".join(_short(value) for value in values)] = ImageRecipe.model_validate(tree)
        except ValueError as error:
            raise RecipeError(f"sweep: {dict(zip(recipe.sweep, values, strict=True))}: {error}") from None
    return runs


def run_images(
    recipe: ImageRecipe,
    out: Path,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Train a recipe, or each run of its sweep in a directory of its own; a finished run is not repeated.

    Leaves `recipe.yaml`, `metrics.jsonl`, `model.safetensors`, `predictions-test.csv` and `results.json` in
    each run directory.

    Args:
        recipe: from `load_image_recipe`.
        out: the run directory.
        progress: progress callback.
        on_epoch: called with each line of `metrics.jsonl`.

    Returns:
        The content of every `results.json`.

    Raises:
        RecipeError, DataError, TrainingError: each says what is wrong and where.
        UsageError: if `out` holds runs of another recipe, or a package is missing.
    """
    if find_spec("PIL") is None:
        raise UsageError("images need the package pillow: pip install 'audiostride[images]'")
    runs = plan_runs(recipe)
    trunks = {name: _make_trunk(run) for name, run in runs.items()}  # a wrong one is an error before hours of work
    splits: tuple[ImageSet, ImageSet] | None = None
    results = []
    for name, run in runs.items():
        folder = out / name
        text = dump_recipe(run)
        if (folder / RECIPE_FILE).exists() and (folder / RECIPE_FILE).read_text(encoding="utf-8") != text:
            raise UsageError(f"{folder}: holds a run of another recipe; give another --out")
        if not (folder / RESULTS_FILE).exists():
            splits = splits or read_images(run.data.path)
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / RECIPE_FILE, text)
            result = _run_one(run, trunks[name], splits, folder, progress, on_epoch)
            replace_file(folder / RESULTS_FILE, json.dumps(result, indent=1) + "\n")
        results.append(json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8")))
    return results


def summarise_images(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds of runs with the same downsampling and initial strides, the published score beside.

    Args:
        results: of `run_images`.

    Returns:
        A dictionary per kind of downsampling and start: "downsampling", "initial_strides", "n",
        "accuracy" and "accuracy_sd" (n - 1; None for one run) in percent, "mmacs" of one image,
        "strides" (mean of the learned ones), "published" (percent, or None).
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(json.dumps([result["downsampling"], result["initial_strides"]]), []).append(result)
    rows = []
    for runs in groups.values():
        accuracies = [100 * run["test_accuracy"] for run in runs]
        rows.append(
            {
                "downsampling": runs[0]["downsampling"],
                "initial_strides": runs[0]["initial_strides"],
                "n": len(runs),
                "accuracy": float(np.mean(accuracies)),
                "accuracy_sd": float(np.std(accuracies, ddof=1)) if len(runs) > 1 else None,
                "mmacs": float(np.mean([run["macs"] for run in runs])) / 1e6,
                "strides": np.mean([run["strides"] for run in runs], axis=0).round(3).tolist(),
                "published": runs[0]["published"],
            }
        )
    return rows


def _run_one(
    recipe: ImageRecipe,
    trunk: ResNet,
    splits: tuple[ImageSet, ImageSet],
    folder: Path,
    progress: Progress | None,
    on_epoch: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    train, test = splits
    torch.manual_seed(recipe.seed)
    model = ImageClassifier(trunk, train.classes, *_colours(train, recipe.data.size, recipe.data.crop))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    settings = recipe.train.model_dump() | {"size": recipe.data.size, "crop": recipe.data.crop}
    last = train_images(model, train, test, folder, **settings, seed=recipe.seed, progress=progress, on_epoch=on_epoch)
    safetensors.torch.save_file(
        {name: t.contiguous() for name, t in model.state_dict().items()}, folder / "model.safetensors"
    )
    logits = image_logits(model, test, **recipe.data.model_dump(exclude={"path"}), workers=recipe.train.workers)
    _write_predictions(folder / PREDICTIONS_FILE, test, logits)
    cost = model_cost(model, torch.zeros(1, recipe.data.size, recipe.data.size, 3, dtype=torch.uint8))
    return {
        "downsampling": recipe.model.downsampling,
        "initial_strides": recipe.model.strides,
        "seed": recipe.seed,
        "test_accuracy": _share_right(logits, test),
        "n_train": len(train.labels),
        "n_test": len(test.labels),
        "epochs": recipe.train.epochs,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "strides": last["strides"],
        "published": recipe.published.get(_setting(recipe.model.downsampling, recipe.model.strides)),
        "environment": environment(),
    }


def _share_right(logits: Tensor, images: ImageSet) -> float:
    return float((logits.argmax(1).numpy() == images.labels).mean())


def _write_predictions(path: Path, images: ImageSet, logits: Tensor) -> None:
    """The table that a run on sounds writes, too; its task is called "label"."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["file", "task", "truth", "label", "logits"])
    for name, number, row in zip(images.names, images.labels, logits, strict=True):
        values = " ".join(f"{value:.5g}" for value in row.tolist())
        table.writerow([name, "label", images.classes[number], images.classes[int(row.argmax())], values])
    replace_file(path, text.getvalue())


def _make_trunk(recipe: ImageRecipe) -> ResNet:
    torch.manual_seed(recipe.seed)
    try:
        return ResNet(**recipe.model.model_dump(exclude={"name"}), in_channels=3)
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def _setting(downsampling: str, strides: Sequence[float | Sequence[float]]) -> str:
    """Key of a run's setting in `ImageRecipe.published`."""
    return " ".join([downsampling, *(f"{s:g}" if isinstance(s, float) else "x".join(map(str, s)) for s in strides)])


def _short(value: Any) -> str:
    """A value of a sweep as part of a directory's name."""
    return "-".join(_short(v) for v in value) if isinstance(value, list) else str(value)


def _mix(images: Tensor, share: float) -> Tensor:
    """Each image mixed with the one that mirrors its place in the batch."""
    mixed = share * images.float() + (1 - share) * images.flip(0).float()
    return mixed


def _colours(images: ImageSet, size: int, crop: str, n: int = 2048) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each colour, 0 to 1, over the first `n` training images."""
    some = np.stack([make_view(_decode(images, i), size, crop) for i in range(min(n, len(images.labels)))]) / 255
    return some.mean((0, 1, 2)).tolist(), np.maximum(some.std((0, 1, 2)), 1e-3).tolist()


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


def _decode(images: ImageSet, index: int) -> np.ndarray:
    from PIL import Image

    content = images.files[index]
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{images.names[index]}: cannot be decoded as an image ({error})") from error


def _random_part(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return _resize(image, (left, top, left + w, top + h), (size, size))
    return _centre(image, size)


def _centre(image: np.ndarray, size: int) -> np.ndarray:
    """The centre of an image whose shorter side is resized to 8/7 of `size` (256 for 224)."""
    height, width = image.shape[:2]
    side = min(height, width) * 7 / 8
    left, top = (width - side) / 2, (height - side) / 2
    return _resize(image, (left, top, left + side, top + side), (size, size))


def _resize(image: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))


def _batches(
    images: ImageSet, size: int, crop: str, batch_size: int, workers: int, shuffle: tuple[int, int] | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of uint8 images and labels, in an order and with crops that follow from (seed, epoch)."""
    n = len(images.labels)
    order = np.arange(n) if shuffle is None else np.random.default_rng([*shuffle, 1]).permutation(n)
    jobs = [order[i : i + batch_size] for i in range(0, n, batch_size)]
    if shuffle and len(jobs) > 1 and len(jobs[-1]) == 1:  # batch norm cannot learn from a single image
        jobs = [*jobs[:-2], np.concatenate(jobs[-2:])]
    for item in DataLoader(_Views(images, size, crop, jobs, shuffle), batch_size=None, num_workers=workers):
        if isinstance(item, DataError):
            raise item
        yield item


class _Views(Dataset):
    def __init__(self, images, size, crop, jobs, shuffle):
        self.images, self.size, self.crop, self.jobs, self.shuffle = images, size, crop, jobs, shuffle

    def __len__(self):
        return len(self.jobs)

    def __getitem__(self, job):
        views = []
        for index in self.jobs[job]:
            rng = None if self.shuffle is None else np.random.default_rng([*self.shuffle, 2, int(index)])
            try:
                views.append(make_view(_decode(self.images, int(index)), self.size, self.crop, rng))
            except DataError as error:
                return error  # as a value: a worker process would bury it in its own traceback
        return torch.from_numpy(np.stack(views)), torch.from_numpy(self.images.labels[self.jobs[job]])
