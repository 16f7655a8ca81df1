"""Images: both layouts on disk, honest views, a run that learns, a sweep that resumes, errors that name the file."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from audiostride.analysis.run_directory import read_predictions
from audiostride.cli.display import images_table
from audiostride.data.images import Views, centre, random_part, read_images, shift_and_flip
from audiostride.errors import DataError, RecipeError, UsageError
from audiostride.training.image_loop import ImageClassifier, image_logits
from audiostride.training.image_recipe import load_image_recipe, plan_runs
from audiostride.training.image_run import make_trunk, run_images, summarise_images
from audiostride.training.recipe import load_recipe
from audiostride.training.shipped import copy_recipe, shipped_recipes

SMALL = [
    "model.channels=[4,8]",
    "model.blocks=[1,1]",
    "model.strides=[2,2]",
    "model.smoothness=1",
    "data.size=16",
    "train.batch_size=16",
    "train.workers=0",
    "train.learning_rate=0.05",
    "train.drop_epochs=[3]",
    "published={}",
]


def stripes(label, rng):
    """A 16 x 16 picture: stripes across (0) or along (1), with a random phase and noise."""
    wave = 128 + 80 * np.sin(np.arange(16) * 1.5 + rng.uniform(0, 6))
    picture = np.tile(wave, (16, 1)) if label else np.tile(wave[:, None], (1, 16))
    noisy = picture[..., None] + rng.normal(0, 10, (16, 16, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """Two classes, 32 training and 16 test images each, as PNG files in class folders."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, n in (("train", 32), ("test", 16)):
        for label, name in enumerate(("across", "along")):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                stripes(label, rng).save(folder / split / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def parquet_folder(image_folder, tmp_path_factory):
    """The same images as the parquet files a hub data set has."""
    import datasets

    folder = tmp_path_factory.mktemp("parquet")
    for images, split in zip(read_images(image_folder), ("train", "test"), strict=True):
        cells = [{"bytes": path.read_bytes(), "path": path.name} for path in images.files]
        features = datasets.Features(
            {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=images.classes)}
        )
        table = datasets.Dataset.from_dict({"image": cells, "label": images.labels.tolist()}, features=features)
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def recipe_for(folder, *overrides):
    return load_image_recipe("cifar10", [f"data.path={folder}", *SMALL, *overrides])


def test_class_folders_and_parquet_files_hold_the_same_images(image_folder, parquet_folder):
    for from_files, from_parquet in zip(read_images(image_folder), read_images(parquet_folder), strict=True):
        assert from_files.classes == from_parquet.classes == ["across", "along"]
        assert np.array_equal(from_files.labels, from_parquet.labels)
        assert [path.read_bytes() for path in from_files.files] == list(from_parquet.files)


def test_a_run_learns_and_leaves_what_it_did(parquet_folder, tmp_path):
    out = tmp_path / "run"
    (result,) = run_images(recipe_for(parquet_folder, "train.epochs=4"), out)
    assert result["test_accuracy"] == 1.0
    assert result["n_train"] == 64
    assert sorted(path.name for path in out.iterdir()) == [
        "metrics.jsonl",
        "model.safetensors",
        "predictions-test.csv",
        "recipe.yaml",
        "results.json",
    ]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == pytest.approx([0.05, 0.05, 0.05, 0.005])
    assert lines[-1]["strides"] == result["strides"] != [[2.0, 2.0], [2.0, 2.0]]
    assert result["environment"]["torch"] == torch.__version__
    answers = read_predictions(out)["label"]
    assert len(answers.files) == result["n_test"] == 32
    assert answers.files[0] == "test-00000-of-00001.parquet, row 0"
    assert answers.label == answers.truth


def test_half_precision_learns_the_same_and_computes_otherwise(image_folder, tmp_path):
    losses = []
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        (result,) = run_images(recipe_for(image_folder, "train.epochs=4", f"train.precision={precision}"), out)
        assert result["test_accuracy"] == 1.0
        losses.append(json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["train_loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_same_seed_gives_the_same_run_whatever_the_number_of_workers(image_folder, tmp_path):
    def loss(name, *overrides):
        settings = ["train.epochs=1", "train.mixup=0.2", "data.crop=resized"]
        run_images(recipe_for(image_folder, *settings, *overrides), tmp_path / name)
        return json.loads((tmp_path / name / "metrics.jsonl").read_text())["train_loss"]

    assert loss("a") == loss("b", "train.workers=2")
    assert loss("a2", "seed=1") != loss("b2")


def test_a_sweep_runs_all_combinations_once_and_goes_on_where_it_stopped(image_folder, tmp_path):
    sweep = "sweep={model.downsampling: [strided, diffstride], seed: [0, 1]}"
    recipe = recipe_for(image_folder, "train.epochs=1", sweep, "published={strided 2 2: 50.0}")
    epochs = []
    results = run_images(recipe, tmp_path, on_epoch=epochs.append)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "diffstride_0",
        "diffstride_1",
        "strided_0",
        "strided_1",
    ]
    assert len(epochs) == 4
    (tmp_path / "diffstride_1" / "results.json").unlink()
    assert run_images(recipe, tmp_path, on_epoch=epochs.append) == results
    assert len(epochs) == 5

    rows = summarise_images(results)
    assert [(row["downsampling"], row["n"], row["published"]) for row in rows] == [
        ("strided", 2, 50.0),
        ("diffstride", 2, None),
    ]
    accuracies = [100 * result["test_accuracy"] for result in results[:2]]
    assert rows[0]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert rows[0]["accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert rows[1]["mmacs"] > rows[0]["mmacs"]
    table = images_table(rows, "title")
    assert next(iter(table.columns[2].cells)) == f"{rows[0]['accuracy']:.1f} ± {rows[0]['accuracy_sd']:.1f} %"
    assert list(table.columns[5].cells) == ["50.0 %", "-"]

    with pytest.raises(UsageError, match="another recipe"):
        run_images(recipe_for(image_folder, "train.epochs=2", sweep), tmp_path)


def test_a_training_view_is_a_shifted_and_maybe_flipped_image_and_a_test_view_the_image(image_folder):
    train, _ = read_images(image_folder)
    views = Views(train, 16)
    assert np.array_equal(views.make(np.array([3]))[0], train.decode(3))

    image = np.random.default_rng(0).integers(1, 256, (32, 28, 3), dtype=np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    shifts = [padded[top : top + 32, left : left + 28] for top in range(9) for left in range(9)]
    allowed = {view.tobytes() for view in shifts} | {view[:, ::-1].tobytes() for view in shifts}
    found = {v.tobytes() for v in shift_and_flip(np.stack([image] * 3000), np.random.default_rng(0))}
    assert found == allowed
    assert len(allowed) == 2 * 81


def test_a_resized_view_of_a_gradient_stays_a_gradient():
    image = np.tile(np.arange(0, 240, 2, dtype=np.uint8)[:, None, None], (1, 90, 3))
    middle = centre(image, 56)
    assert middle.shape == (56, 56, 3)
    rows = middle.mean((1, 2))
    assert (np.diff(rows) > 0).all()
    assert rows.mean() == pytest.approx(image.mean(), abs=1)
    for i in range(20):
        part = random_part(image, 56, np.random.default_rng(i))
        assert part.shape == (56, 56, 3)
        assert (np.diff(part.mean((1, 2))) > -1).all()


def test_every_image_is_seen_once_an_epoch_and_no_batch_is_a_single_image(image_folder):
    train, _ = read_images(image_folder)
    for crop, workers in (("padded", 0), ("resized", 2)):
        views = Views(train, 16, crop, workers)
        batches = list(views.batches(21, (0, 0)))
        assert [len(labels) for _, labels in batches] == [21, 21, 22]
        assert np.array_equal(np.bincount(torch.cat([labels for _, labels in batches])), [32, 32])
        again = list(views.batches(21, (0, 0)))
        other = list(views.batches(21, (0, 1)))
        assert all(torch.equal(a, b) for a, b in zip(batches[0], again[0], strict=True))
        assert not torch.equal(batches[0][0], other[0][0])


@pytest.mark.parametrize("name", sorted(shipped_recipes("images")))
def test_every_shipped_recipe_is_valid_and_names_its_command(name):
    recipe = load_image_recipe(name)
    for run in plan_runs(recipe).values():
        assert run.model_dump()["sweep"] == {}
    text = shipped_recipes("images")[name].read_text()
    assert f"audiostride train-images {name} data.path=DIR" in text


def test_published_scores_belong_to_runs_of_their_recipe():
    for name in ("cifar10_strides", "cifar10_repository"):
        recipe = load_image_recipe(name)
        found = [run.published_score() for run in plan_runs(recipe).values()]
        assert recipe.published
        assert set(recipe.published.values()) <= set(found)


def test_recipe_mistakes_are_named_with_what_is_right(image_folder, tmp_path):
    with pytest.raises(RecipeError, match=r"train\.epoch: there is no such key; did you mean 'epochs'"):
        recipe_for(image_folder, "train.epoch=3")
    with pytest.raises(RecipeError, match=r"no such recipe file; did you mean 'cifar10'.*; shipped recipes: cifar10"):
        load_image_recipe("cifar1")
    with pytest.raises(RecipeError, match=r"there is no key .model\.stride"):
        run_images(recipe_for(image_folder, "sweep={model.stride: [1]}"), tmp_path)
    with pytest.raises(RecipeError, match="model: a small stem and 2 stages take 1 to 3 strides, got 4"):
        run_images(recipe_for(image_folder, "model.strides=[2,2,2,2]"), tmp_path)


def test_data_mistakes_are_named_with_the_file(image_folder, tmp_path):
    with pytest.raises(DataError, match=r"no such folder; set data\.path"):
        read_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="neither parquet files nor a folder train/CLASS"):
        read_images(tmp_path)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no images"):
        read_images(tmp_path)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            stripes(0, np.random.default_rng(0)).save(tmp_path / split / name / "0.png")
    (tmp_path / "train" / "dog" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken.png: cannot be decoded as an image"):
        run_images(recipe_for(tmp_path, "train.epochs=1"), tmp_path / "run")
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "hog")
    with pytest.raises(DataError, match="different classes: dog, hog"):
        read_images(tmp_path)


def test_a_parquet_file_without_labels_is_named(tmp_path):
    import datasets

    png = io.BytesIO()
    stripes(0, np.random.default_rng(0)).save(png, "PNG")
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict({"image": [{"bytes": png.getvalue(), "path": None}], "name": ["a"]})
        table.to_parquet(str(tmp_path / f"{split}.parquet"))
    with pytest.raises(DataError, match="no image and label column, only image, name"):
        read_images(tmp_path)


@pytest.mark.slow
def test_the_command_trains_a_sweep_and_reports_a_wrong_path(parquet_folder, tmp_path):
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "audiostride", "train-images", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"HF_DATASETS_OFFLINE": "1"},
        )

    sweep = "sweep={model.downsampling: [strided, diffstride]}"
    arguments = ["cifar10", f"data.path={parquet_folder}", *SMALL, "train.epochs=1", sweep]
    done = command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert "run directory: runs/cifar10" in done.stderr
    assert len(json.loads(done.stdout)["summary"]) == 2
    wrong = command("cifar10", "data.path=nowhere", "--out", "x")
    assert wrong.returncode == 4
    assert "nowhere: no such folder" in wrong.stderr
    assert wrong.stdout == ""


def test_a_saved_model_gives_the_answers_that_were_reported(image_folder, tmp_path):
    import safetensors.torch

    recipe = recipe_for(image_folder, "train.epochs=1")
    run_images(recipe, tmp_path)
    test = Views(read_images(image_folder)[1], 16)
    torch.manual_seed(5)
    model = ImageClassifier(make_trunk(recipe), test.images.classes)
    model.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    answers = read_predictions(tmp_path)["label"]
    np.testing.assert_allclose(image_logits(model, test).numpy(), answers.logits, rtol=1e-4)


def test_sounds_and_images_each_have_a_command_and_the_wrong_one_names_the_right_one(tmp_path):
    with pytest.raises(RecipeError, match=r"cifar10: a recipe for images; train it with: audiostride train-images cif"):
        load_recipe("cifar10")
    with pytest.raises(RecipeError, match=r"folder: a recipe for sounds; train it with: audiostride train folder"):
        load_image_recipe("folder")
    assert (
        copy_recipe("cifar10", tmp_path / "mine.yaml").read_text() == shipped_recipes("images")["cifar10"].read_text()
    )
    assert load_image_recipe(str(tmp_path / "mine.yaml")) == load_image_recipe("cifar10")
