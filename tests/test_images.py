"""Images: both layouts on disk, honest views, runs that learn and resume as sounds do, errors that name the file."""

import io
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from audiostride import load
from audiostride.cli.terminal_tables import images_table
from audiostride.data.batches import LabelledClips, training_batches
from audiostride.data.images import ImageClips, centre, random_part, read_images, shift_and_flip
from audiostride.errors import DataError, Interrupted, RecipeError, UsageError
from audiostride.models.cost import model_cost
from audiostride.models.image_frontend import ImageFrontend
from audiostride.models.resnet import ResNet
from audiostride.training.predictions_file import read_predictions
from audiostride.training.recipe import load_recipe
from audiostride.training.report import Report
from audiostride.training.run import run
from audiostride.training.run_files import read_results
from audiostride.training.run_testing import evaluate_run
from audiostride.training.shipped_recipes import copy_recipe, shipped_recipes
from audiostride.training.sweep import plan_sweep, run_sweep
from audiostride.training.sweep_summary import summarise

SMALL = [
    "model.channels=[4,8]",
    "model.blocks=[1,1]",
    "model.strides=[2,2]",
    "model.smoothness=1",
    "frontend.size=16",
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

    folder, images = tmp_path_factory.mktemp("parquet"), read_images(image_folder)
    classes = sorted(set(images.columns["label"]))
    for split in ("train", "test"):
        rows = [i for i, own in enumerate(images.splits) if own == split]
        features = datasets.Features(
            {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=classes)}
        )
        cells = [{"bytes": images.files[i].read_bytes(), "path": images.files[i].name} for i in rows]
        labels = [classes.index(images.columns["label"][i]) for i in rows]
        table = datasets.Dataset.from_dict({"image": cells, "label": labels}, features=features)
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def settings_for(folder, *overrides):
    return [f"tasks.label.data.path={folder}", *SMALL, *overrides]


def recipe_for(folder, *overrides):
    return load_recipe("cifar10", settings_for(folder, *overrides))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_class_folders_and_parquet_files_hold_the_same_images(image_folder, parquet_folder):
    from_files, from_parquet = read_images(image_folder), read_images(parquet_folder)
    assert from_files.columns == from_parquet.columns
    assert from_files.splits == from_parquet.splits == ["train"] * 64 + ["test"] * 32
    assert [path.read_bytes() for path in from_files.files] == from_parquet.files
    assert from_files.names[0] == "train/across/00.png"
    assert np.array_equal(from_files.decode(3), from_parquet.decode(3))


def test_a_run_learns_and_leaves_what_a_run_on_sounds_does(parquet_folder, tmp_path):
    out = tmp_path / "run"
    results = run(recipe_for(parquet_folder, "train.epochs=4"), out)
    assert read_results(out) == results
    assert results["tasks"]["label"]["accuracy"] == 1.0
    assert results["n_train"] == {"label": 64}
    assert results["environment"]["torch"] == torch.__version__
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "predictions-test.csv",
        "recipe.yaml",
        "results.json",
        "steps.jsonl",
        "tensorboard",
    }
    metrics = lines(out / "metrics.jsonl")
    assert [(line["epoch"], line["split"]) for line in metrics[:3]] == [(1, "train"), (1, "test"), (2, "train")]
    assert [line["lr"] for line in metrics[::2]] == pytest.approx([0.05, 0.05, 0.05, 0.005])
    assert metrics[-1]["strides"] == results["strides"] != [[2.0, 2.0], [2.0, 2.0]]
    assert metrics[-1]["tasks"]["label"]["accuracy"] == results["tasks"]["label"]["accuracy"]
    answers = read_predictions(out)["label"]
    assert len(answers.files) == results["tasks"]["label"]["n"] == 32
    assert answers.files[0] == "test-00000-of-00001.parquet, row 0"
    assert answers.label == answers.truth


def test_a_run_that_was_stopped_ends_as_if_it_never_was(image_folder, tmp_path):
    recipe = recipe_for(image_folder, "train.epochs=3", "augment.mixup=0.2", "train.ema_decay=0.9")

    def stop(step, *_):
        if step == 6:
            import signal

            signal.raise_signal(signal.SIGTERM)

    run(recipe, tmp_path / "whole")
    with pytest.raises(Interrupted, match="after step 7"):
        run(recipe, tmp_path / "parts", Report(on_step=stop))
    run(recipe, tmp_path / "parts", Report(notify=lambda _: None), resume=True)
    for name in ("steps.jsonl", "model.safetensors", "predictions-test.csv", "results.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    assert len(lines(tmp_path / "whole" / "steps.jsonl")) == 12


def test_the_last_epoch_counts_and_is_what_is_saved(image_folder, tmp_path):
    strides = []
    run(
        recipe_for(image_folder, "train.epochs=3"),
        tmp_path,
        Report(on_epoch=lambda line: strides.append(line["strides"])),
    )
    assert load(tmp_path).trunk.strides() == strides[-1] != strides[0]


def test_a_part_of_the_images_can_be_held_back_to_choose_the_epoch_by(image_folder, tmp_path):
    recipe = recipe_for(image_folder, "train.epochs=1", "train.keep=best", "train.validation_fraction=0.25")
    results = run(recipe, tmp_path)
    assert results["n_train"] == {"label": 48}
    assert [line["split"] for line in lines(tmp_path / "metrics.jsonl")] == ["train", "validation"]


def test_half_precision_learns_the_same_and_computes_otherwise(image_folder, tmp_path):
    losses = []
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        recipe = recipe_for(image_folder, "train.epochs=4", f"train.precision={precision}")
        results = run(recipe, out, Report(notify=print))  # on some CPUs it says that half precision is slow
        assert results["tasks"]["label"]["accuracy"] == 1.0
        losses.append(lines(out / "metrics.jsonl")[0]["tasks"]["label"]["loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_same_seed_gives_the_same_run_whatever_the_number_of_workers(image_folder, tmp_path):
    def curve(name, *overrides):
        settings = ["train.epochs=1", "augment.mixup=0.2", "tasks.label.data.crop=resized"]
        run(recipe_for(image_folder, *settings, *overrides), tmp_path / name)
        return (tmp_path / name / "steps.jsonl").read_text()

    first = curve("a")
    assert first == curve("b", "train.workers=2")
    assert first != curve("c", "seed=1")


def test_a_sweep_in_a_recipe_runs_all_combinations_once_and_goes_on_where_it_stopped(image_folder, tmp_path):
    sweep = "sweep={model.downsampling: [strided, diffstride], seed: [0, 1]}"
    settings = settings_for(image_folder, "train.epochs=1", sweep, "published={strided 2 2: 50.0}")
    epochs = []

    def train(recipe, path):
        run(recipe, path, Report(on_epoch=epochs.append, notify=lambda _: None), path.is_dir())

    planned = plan_sweep("cifar10", tmp_path, overrides=settings)
    names = ["strided_seed-0", "strided_seed-1", "diffstride_seed-0", "diffstride_seed-1"]
    assert [one.path.name for one in planned] == names
    run_sweep(planned, train, lambda _: None)
    assert len(epochs) == 2 * 4
    (tmp_path / "diffstride_seed-1" / "results.json").unlink()
    again = run_sweep(plan_sweep("cifar10", tmp_path, overrides=settings), train, lambda _: None)
    assert [outcome.state for outcome in again] == ["finished before"] * 3 + ["finished"]
    assert len(epochs) == 2 * 4  # it was only tested again

    results = [read_results(one.path) for one in planned]
    assert [result["published"] for result in results] == [50.0, 50.0, None, None]
    rows = summarise((one.recipe, result) for one, result in zip(planned, results, strict=True))
    assert [(row["downsampling"], row["n"], row["published"]) for row in rows] == [
        ("strided", 2, 50.0),
        ("diffstride", 2, None),
    ]
    accuracies = [100 * result["tasks"]["label"]["accuracy"] for result in results[:2]]
    assert rows[0]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert rows[0]["accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert rows[1]["mmacs"] > rows[0]["mmacs"]
    table = images_table(rows, "title")
    assert next(iter(table.columns[2].cells)) == f"{rows[0]['accuracy']:.1f} ± {rows[0]['accuracy_sd']:.1f} %"
    assert list(table.columns[5].cells) == ["50.0 %", "-"]

    with pytest.raises(UsageError, match=r"train\.epochs was 1, is 2"):
        plan_sweep("cifar10", tmp_path, overrides=[*settings, "train.epochs=2"])
    only = plan_sweep("cifar10", tmp_path, ["model.downsampling=strided"], [1], settings)
    assert [one.path.name for one in only] == ["strided_seed-1"]  # the command line goes before the recipe


def test_a_recipe_of_several_runs_is_no_single_run(image_folder, tmp_path):
    with pytest.raises(RecipeError, match="audiostride sweep"):
        run(recipe_for(image_folder, "sweep={seed: [0, 1]}"), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"model\.stride: no such key; did you mean 'strides'"):
        plan_sweep("cifar10", tmp_path, overrides=settings_for(image_folder, "sweep={model.stride: [1]}"))


def test_the_cost_is_that_of_one_image(image_folder, tmp_path):
    results = run(recipe_for(image_folder, "train.epochs=1"), tmp_path)
    model = load(tmp_path)
    assert results["macs_per_second"] == model_cost(model.trunk, torch.zeros(1, 3, 16, 16)).macs
    assert results["parameters"] == sum(p.numel() for p in model.parameters())


def test_colours_are_normalised_by_those_of_the_training_images(image_folder, tmp_path):
    run(recipe_for(image_folder, "train.epochs=1"), tmp_path)
    frontend, images = load(tmp_path).frontend, read_images(image_folder)
    pixels = np.stack([images.decode(i) for i, split in enumerate(images.splits) if split == "train"])
    normalised = frontend(torch.from_numpy(pixels))
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(normalised.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-4)


def test_a_training_view_is_a_shifted_and_maybe_flipped_image_and_a_test_view_the_image(image_folder):
    images = read_images(image_folder).loaded(16)
    assert np.array_equal(images.read(3, 16), images.decode(3))
    assert np.array_equal(images.windows(3, 16, 16)[0], images.decode(3))
    assert np.array_equal(images.select([5, 3]).read(1, 16), images.decode(3))

    image = np.random.default_rng(0).integers(1, 256, (32, 28, 3), dtype=np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    shifts = [padded[top : top + 32, left : left + 28] for top in range(9) for left in range(9)]
    allowed = {view.tobytes() for view in shifts} | {view[:, ::-1].tobytes() for view in shifts}
    rng = np.random.default_rng(0)
    assert {shift_and_flip(image, rng).tobytes() for _ in range(3000)} == allowed
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
    images = read_images(image_folder).select(range(64))
    labels = {"label": (np.arange(64) >= 32).astype(np.int64)}
    for crop, workers in (("padded", 0), ("resized", 2)):
        clips = ImageClips(images.names, images.columns, images.splits, images.files, crop).loaded(16)
        sets = [LabelledClips(clips, labels, clips.splits, {"label": 2})]

        def epoch(number, sets=sets, workers=workers):
            return list(training_batches(sets, 16, 16, 21, "uniform", 0, number, workers))

        batches, again, other = epoch(0), epoch(0), epoch(1)
        assert sorted(len(batch.names) for batch in batches) == [21, 21, 22]  # in an order drawn by lot
        assert sorted(name for batch in batches for name in batch.names) == sorted(images.names)
        assert batches[0].waveform.shape[1:] == (16, 16, 3)
        assert batches[0].waveform.dtype == torch.uint8
        assert all(torch.equal(a.waveform, b.waveform) for a, b in zip(batches, again, strict=True))
        assert not torch.equal(batches[0].waveform, other[0].waveform)


@pytest.mark.parametrize("name", sorted(shipped_recipes("images")))
def test_every_shipped_recipe_is_valid_and_names_its_command(name, tmp_path):
    recipe = load_recipe(name)
    for planned in plan_sweep(name, tmp_path):
        assert planned.recipe.sweep == {}
    text = shipped_recipes("images")[name].read_text()
    assert f"audiostride {'sweep' if recipe.sweep else 'train'} {name} tasks.label.data.path=DIR" in text
    assert (copy_recipe(name, tmp_path / "mine.yaml").read_text(), load_recipe(str(tmp_path / "mine.yaml"))) == (
        text,
        recipe,
    )


def test_published_scores_belong_to_runs_of_their_recipe(tmp_path):
    for name in ("cifar10_strides", "cifar10_repository"):
        published = load_recipe(name).published
        found = {one.recipe.published_score() for one in plan_sweep(name, tmp_path)} - {None}
        assert published
        assert found == set(published.values())


def test_recipe_mistakes_are_named_with_what_is_right(image_folder, tmp_path):
    with pytest.raises(RecipeError, match=r"train\.epoch: no such key; did you mean 'epochs'"):
        recipe_for(image_folder, "train.epoch=3")
    with pytest.raises(RecipeError, match=r"no such recipe file; did you mean 'cifar10'.*; shipped recipes: .*cifar10"):
        load_recipe("cifar1")
    with pytest.raises(RecipeError, match="model: a small stem and 2 stages take 1 to 3 strides, got 4"):
        run(recipe_for(image_folder, "model.strides=[2,2,2,2]"), tmp_path)
    with pytest.raises(RecipeError, match=r"augment\.gain_db is for sounds"):
        recipe_for(image_folder, "augment.gain_db=6")
    with pytest.raises(RecipeError, match=r"frontend\.name images needs .*model\.in_channels 3, got .* with 1"):
        recipe_for(image_folder, "model.in_channels=1")
    with pytest.raises(RecipeError, match=r"tasks\.label\.data\.source images and frontend\.name images belong"):
        load_recipe("folder", ["frontend={name: images}"])


def test_data_mistakes_are_named_with_the_file(image_folder, tmp_path):
    with pytest.raises(DataError, match=r"no such folder; set tasks\.label\.data\.path"):
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
        run(recipe_for(tmp_path, "train.epochs=1"), tmp_path / "run")
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
    with pytest.raises(DataError, match="not have both an image and a label column, only image, name"):
        read_images(tmp_path)


def test_the_test_images_are_those_of_the_test_and_each_has_a_class_and_an_image(parquet_folder, tmp_path):
    import datasets

    folder = shutil.copytree(parquet_folder, tmp_path / "parquet")
    whole = len(read_images(folder))
    test, other = folder / "test-00000-of-00001.parquet", folder / "validation-00000-of-00001.parquet"
    shutil.copy(test, other)
    assert len(read_images(folder)) == whole
    test.unlink()
    assert len(read_images(folder)) == whole  # where there is no test, validation is
    table = datasets.Dataset.from_parquet(str(other), keep_in_memory=True).cast_column(
        "image", datasets.Image(decode=False)
    )
    columns = {"image": table["image"][:], "label": [-1, *table["label"][1:]]}
    datasets.Dataset.from_dict(columns, features=table.features).to_parquet(str(other))
    with pytest.raises(DataError, match=r"validation-.*\.parquet, row 0: has no class"):
        read_images(folder)
    columns = {"image": [*table["image"][:-1], None], "label": table["label"][:]}
    datasets.Dataset.from_dict(columns, features=table.features).to_parquet(str(other))
    with pytest.raises(DataError, match=rf"row {len(table) - 1}: has no image"):
        read_images(folder)
    other.write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match=r"validation-.*\.parquet: cannot be read as images"):
        read_images(folder)


def test_a_saved_model_gives_the_answers_that_were_reported(image_folder, tmp_path):
    results = run(recipe_for(image_folder, "train.epochs=1"), tmp_path)
    assert evaluate_run(tmp_path)["label"].accuracy == results["tasks"]["label"]["accuracy"]
    assert evaluate_run(tmp_path, str(image_folder))["label"].n == 32
    with pytest.raises(UsageError, match="each of which is one window; omit the overlap"):
        evaluate_run(tmp_path, overlap=0.5)
    test = read_images(image_folder).loaded(16).pixels[64:]
    logits = load(tmp_path)(torch.from_numpy(test))["label"]
    np.testing.assert_allclose(logits.detach().numpy(), read_predictions(tmp_path)["label"].logits, rtol=1e-4)


def test_what_needs_sound_says_that_the_model_takes_images():
    from audiostride import AudioClassifier, AudioCNN

    trunk = ResNet(channels=(4,), blocks=(1,), strides=(2,), in_channels=3)
    model = AudioClassifier(ImageFrontend(16), trunk, {"label": 2})
    for needs_sound in (lambda: model.sample_rate, lambda: model.predict(np.zeros(100), 16000)):
        with pytest.raises(UsageError, match="this model classifies images"):
            needs_sound()
    with pytest.raises(ValueError, match="3 input channels is needed after ImageFrontend"):
        AudioClassifier(ImageFrontend(16), AudioCNN(), {"label": 2})


@pytest.mark.slow
def test_train_and_sweep_take_images_and_commands_for_sound_refuse_them(image_folder, command, tmp_path):
    settings = settings_for(image_folder, "train.epochs=1")
    done = command(tmp_path, "train", "cifar10", *settings, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "Test scores of run" in done.stdout
    swept = command(tmp_path, "sweep", "cifar10", *settings, "--seeds", "0,1", "--out", "sweep")
    assert swept.returncode == 0, swept.stderr
    assert "MMAC per image" in swept.stdout
    assert command(tmp_path, "evaluate", "run").returncode == 0
    compared = command(tmp_path, "compare", "sweep")
    assert compared.returncode == 0, compared.stderr
    assert "over 2 seeds" in compared.stdout
    several = command(tmp_path, "train", "cifar10_quick", *settings)
    assert several.returncode == 2
    assert "audiostride sweep cifar10_quick" in several.stderr
    soundfile.write(tmp_path / "sound.wav", np.zeros(16000), 16000)
    for refused in (
        ["predict", "run", "sound.wav"],
        ["embed", "run", "sound.wav", "--out", "x.npz"],
        ["export", "run"],
        ["cutoffs", "run"],
    ):
        said = command(tmp_path, *refused)
        assert said.returncode == 2, (refused, said.stderr)
        assert "this model classifies images" in said.stderr
