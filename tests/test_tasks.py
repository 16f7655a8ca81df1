"""Kinds of tasks, weights, thresholds and mixing; and a run of each from a recipe."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_training import SEED
from torch.nn import functional as F

from audiostride.data.epoch_plan import plan_epoch
from audiostride.data.manifest import write_manifest
from audiostride.data.preparation import make_class_weights
from audiostride.errors import DataError, RecipeError
from audiostride.models.audio_cnn import AudioCNN
from audiostride.models.classifier import AudioClassifier, load
from audiostride.models.cutoffs import model_cutoffs
from audiostride.models.log_mel import LogMel
from audiostride.training.build import check_recipe, make_frontend, make_trunk, read_data
from audiostride.training.evaluation import best_thresholds, score, task_loss
from audiostride.training.predictions_file import predicted_label
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.shipped_recipes import shipped_recipes
from audiostride.training.transforms import make_transforms

TINY = ["model.channels=[4,4,4,4,4,4]", "train.epochs=1", "train.batch_size=8", "train.workers=0", f"seed={SEED}"]


def test_soft_labels_of_a_certain_class_give_the_loss_of_its_number() -> None:
    logits, numbers = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    torch.testing.assert_close(task_loss(logits, F.one_hot(numbers, 4).float()), task_loss(logits, numbers))


def test_equal_class_weights_change_nothing_and_a_heavy_class_counts_more() -> None:
    logits, numbers = torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    plain = task_loss(logits, numbers)
    torch.testing.assert_close(task_loss(logits, numbers, class_weights=torch.full((2,), 3.0)), plain)
    assert task_loss(logits, numbers, class_weights=torch.tensor([9.0, 1.0])) > plain


def test_a_weight_for_no_class_is_refused_before_a_run_directory_is_made(tone_folder: Path, tmp_path: Path) -> None:
    settings = [f"tasks.label.data.path={tone_folder}", "tasks.label.class_weights={nope: 2}", *TINY]
    with pytest.raises(RecipeError, match=r"tasks\.label\.class_weights: there is no class 'nope' among high, low"):
        run(load_recipe("folder", settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scores_equal_scikit_learns_definitions_by_hand() -> None:
    # Positives rank 1 and 3 of 4: AUC = 3 of 4 pairs in order; precisions at the hits 1/1 and 2/3.
    ranked = torch.tensor([3.0, 2.0, 1.0, -1.0])
    truth = torch.tensor([1, 0, 1, 0])
    binary = score(torch.stack([torch.zeros(4), ranked], 1), truth, "binary")
    assert binary.auc == pytest.approx(0.75)
    assert binary.accuracy == 0.75
    assert binary.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    several = score(ranked[:, None].repeat(1, 2), torch.stack([truth, truth], 1).float(), "multilabel")
    assert several.mean_average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert several.primary_metric == several.mean_average_precision


def test_a_class_without_a_clip_does_not_spoil_the_mean_average_precision() -> None:
    truth = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert score(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), truth, "multilabel").mean_average_precision == 1.0


def test_what_is_not_known_of_a_clip_changes_neither_loss_nor_scores() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(40, 3), (torch.randn(40, 3) > 0).float()
    unknown = torch.rand(40, 3) < 0.3
    unknown[0] = True  # of one clip nothing is known
    asked = truth.masked_fill(unknown, torch.nan)
    found, other = (score(x, asked, "multilabel") for x in (logits, logits.where(~unknown, -logits)))
    assert found.metrics() == other.metrics()
    by_hand = [  # mean over the classes that are known of each clip, then over clips
        torch.nn.functional.binary_cross_entropy_with_logits(x[known], y[known]).item() if known.any() else 0.0
        for x, y, known in zip(logits, truth, ~unknown, strict=True)
    ]
    assert found.loss == pytest.approx(np.mean(by_hand))
    assert best_thresholds(logits, asked, "multilabel") == best_thresholds(
        logits.where(~unknown, -logits), asked, "multilabel"
    )
    right = ((logits > 0) == (truth > 0.5)).numpy()
    shares = [np.mean(row[known]) for row, known in zip(right, ~unknown.numpy(), strict=True) if known.any()]
    assert found.accuracy == pytest.approx(np.mean(shares))
    for i in range(3):  # the metrics of a class are those of the clips of which it is known
        own = score(logits[~unknown[:, i]][:, [i, i]], truth[~unknown[:, i]][:, [i, i]], "multilabel")
        alone = score(logits[:, [i, i]], asked[:, [i, i]], "multilabel")
        assert alone.mean_average_precision == pytest.approx(own.mean_average_precision)
        assert alone.macro_f1 == pytest.approx(own.macro_f1)


def test_no_other_threshold_has_a_better_f1_than_the_best() -> None:
    torch.manual_seed(1)
    logits = torch.randn(60, 3)
    truth = (logits + 1.5 * torch.randn(60, 3) > 0.8).float()
    best = best_thresholds(logits, truth, "multilabel")
    reached = score(logits, truth, "multilabel", best).macro_f1
    assert reached is not None
    for threshold in np.linspace(0.01, 0.99, 99):
        for i in range(3):
            other = [*best[:i], float(threshold), *best[i + 1 :]]
            assert score(logits, truth, "multilabel", other).macro_f1 <= reached + 1e-6  # type: ignore[operator]
    numbers, two = truth[:, 0].long(), logits[:, :2]
    (cut,) = best_thresholds(two, numbers, "binary")
    reached = score(two, numbers, "binary", [cut]).macro_f1
    assert all(score(two, numbers, "binary", [float(t)]).macro_f1 <= reached + 1e-6 for t in np.linspace(0, 1, 101))


@pytest.mark.parametrize("mixing", ["uniform", "proportional", 1.0, 2.0, 100.0])
def test_sets_are_mixed_by_the_stated_rule(mixing: str | float) -> None:
    sizes, total = [1600, 400, 100], Counter[int]()
    for epoch in range(4):
        total.update(number for ((number, _),) in plan_epoch(sizes, 10, mixing, 0, epoch))
    shares = np.array([total[i] for i in range(3)]) / sum(total.values())
    power = {"uniform": 0.0, "proportional": 1.0}.get(str(mixing), 1 / mixing if isinstance(mixing, float) else 0)
    wanted = np.array(sizes) ** power
    np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=0.01)


def test_every_clip_is_seen_equally_often_in_the_long_run() -> None:
    seen = Counter[int]()
    for epoch in range(10):
        for ((number, rows),) in plan_epoch([37, 100], 8, 2.0, 0, epoch):
            seen.update(rows.tolist() if number == 0 else [])
    assert len(seen) == 37
    assert max(seen.values()) - min(seen.values()) <= 1


def test_kind_and_thresholds_are_saved_with_the_model_and_decide_its_labels(tmp_path: Path) -> None:
    trunk = AudioCNN(channels=(4, 4), strides=((2, 2), (2, 2)))
    model = AudioClassifier(LogMel(), trunk, {"bird": ["no", "yes"], "tags": ["a", "b"]}, kinds={"tags": "multilabel"})
    model.thresholds = {"tags": [0.2, 0.9]}
    model.save(tmp_path)
    again = load(tmp_path)
    assert again.kinds == {"bird": "multiclass", "tags": "multilabel"}
    for kinds in ({"tag": "multilabel"}, {"tags": "several"}):
        with pytest.raises(ValueError, match=r"kinds: 'tags?' as '\w+': tasks are tags, kinds multiclass, binary"):
            again.reset_classifier({"tags": 3}, kinds)
    assert again.labels == {"bird": ["no", "yes"], "tags": ["a", "b"]}  # as before
    assert again.thresholds == {"tags": [0.2, 0.9]}
    assert predicted_label(again, "tags", torch.tensor([-1.0, 2.0])) == "a"  # 0.27 and 0.88
    assert predicted_label(again, "tags", torch.tensor([-3.0, 3.0])) == "b"
    assert predicted_label(again, "bird", torch.tensor([-3.0, 3.0])) == "yes"
    probabilities = again.predict(torch.zeros(16000), 16000)["tags"].probabilities
    assert all(0 < p < 1 for p in probabilities.values())


@pytest.mark.slow
def test_a_binary_and_a_multilabel_task_train_together_with_everything_on(tone_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"file": f"{c}/{i:02d}.wav", "pitch": c, "tags": "|".join([c, "even"] if i % 2 == 0 else [c])}
        for c in ("high", "low")
        for i in range(30)
    ]
    write_manifest(tmp_path / "t.csv", rows)
    data = f"{{source: manifest, path: {tmp_path / 't.csv'}, root: {tone_folder}}}"
    (tmp_path / "r.yaml").write_text(
        f"name: both\ntasks:\n  pitch: {{data: {data}, column: pitch, kind: binary, class_weights: balanced}}\n"
        f"  tags: {{data: {data}, column: tags, kind: multilabel, class_weights: balanced, weight: 0.5}}\n"
        "augment: {time_shift_ms: 50, gain_db: 3, speed: [0.95, 1.05], mixup: 0.2, spec_augment: {},\n"
        f"  noise: {{path: {tone_folder}, snr_db: [20, 30], probability: 0.5}}}}\n"
    )
    settings = [*TINY, "train.epochs=20", "train.learning_rate=1e-2", "model.smoothness=1"]
    results = run(load_recipe(str(tmp_path / "r.yaml"), settings), tmp_path / "run")
    assert set(load(tmp_path / "run").thresholds) == {"pitch", "tags"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for task, own in (("pitch", "auc"), ("tags", "mean_average_precision")):
        assert 0 <= results["tasks"][task][own] <= 1
        training = [line["tasks"][task]["loss"] for line in lines if line["split"] == "train"]
        # On the 48 training clips, which learning makes easier whatever the CPU; six test clips are luck.
        assert np.mean(training[-3:]) < np.mean(training[:3]), task
    assert {"loss", "accuracy", "auc", "macro_f1"} <= set(lines[-1]["tasks"]["pitch"])
    assert "tags" in (tmp_path / "run" / "predictions-test.csv").read_text()


def folder_recipe(folder: Path, *overrides: str):
    return load_recipe("folder", [f"tasks.label.data.path={folder}", *TINY, *overrides])


def test_class_weights_are_balanced_or_as_given(tone_folder: Path) -> None:
    for given, wanted in (("balanced", [1.0, 1.0]), ("{high: 3}", [3.0, 1.0])):
        recipe = folder_recipe(tone_folder, f"tasks.label.class_weights={given}")
        sets, labels, _ = read_data(recipe)
        torch.testing.assert_close(make_class_weights(recipe.tasks, sets, labels)["label"], torch.tensor(wanted))
    recipe = folder_recipe(tone_folder, "tasks.label.class_weights={hihg: 3}")
    with pytest.raises(RecipeError, match="no class 'hihg' among high, low"):
        make_class_weights(recipe.tasks, sets, labels)


@pytest.mark.parametrize(
    ("override", "wrong"),
    [
        ("augment.speed=[1.1, 0.9]", "augment.speed: 1.1 is more than 0.9"),
        ("augment.mixup=-1", "greater than 0"),
        (
            "augment.spec_augment={tme_ms: 3}",
            "augment.spec_augment.tme_ms: no such key; did you mean 'time_ms'",
        ),
        ("augment.noise={path: x, snr_db: [1]}", "augment.noise.snr_db"),
        ("train.mixing=0.5", "train.mixing"),
        ("tasks.label.kind=multi_label", "multilabel"),
        ("tasks.label.data={source: manifset, path: x}", "did you mean 'manifest'"),
        ("tasks.label.data={source: shards, path: 3}", "tasks.label.data.path: input should be a path, an address or"),
        ("tasks.label.data={source: hub, path: x, streming: true}", "did you mean 'streaming'"),
        ("tasks.label.data={source: archive, path: x, layout: nsynht}", "did you mean 'nsynth'"),
    ],
)
def test_a_typo_in_the_new_sections_is_named(tone_folder: Path, override: str, wrong: str) -> None:
    with pytest.raises(RecipeError, match=wrong.replace("[", r"\[")):
        make_transforms(folder_recipe(tone_folder, override))


def test_a_binary_task_needs_two_classes(tone_folder: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path / "t.csv", [{"file": f"high/{i:02d}.wav", "label": str(i % 3)} for i in range(30)])
    data = f"tasks.label.data={{source: manifest, path: {tmp_path / 't.csv'}, root: {tone_folder}}}"
    with pytest.raises(DataError, match="is binary, but 'label' has 3 classes"):
        read_data(folder_recipe(tone_folder, data, "tasks.label.kind=binary"))


def test_a_group_on_two_sides_is_an_error_unless_allowed(tone_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"file": f"high/{i:02d}.wav", "label": str(i % 2), "who": f"s{i // 3}", "split": "test" if i < 4 else "train"}
        for i in range(30)
    ]
    write_manifest(tmp_path / "t.csv", rows)
    data = f"source: manifest, path: {tmp_path / 't.csv'}, root: {tone_folder}, group: who"
    with pytest.raises(DataError, match="values of 'who' in more than one split: 1, such as 's1'"):
        read_data(folder_recipe(tone_folder, f"tasks.label.data={{{data}}}"))
    read_data(folder_recipe(tone_folder, f"tasks.label.data={{{data}, allow_shared_groups: true}}"))


def test_a_copy_of_a_training_clip_in_the_test_set_fails_the_check(tone_folder: Path, tmp_path: Path) -> None:
    names = [f"{c}/{i:02d}.wav" for c in ("high", "low") for i in range(8)]
    (tmp_path / "copy.wav").write_bytes((tone_folder / names[0]).read_bytes())
    rows = [{"file": str(tone_folder / n), "label": n[:3], "split": "train"} for n in names]
    rows += [{"file": str(tmp_path / "copy.wav"), "label": "hig", "split": "test"}]
    write_manifest(tmp_path / "t.csv", rows)
    data = f"tasks.label.data={{source: manifest, path: {tmp_path / 't.csv'}}}"
    with pytest.raises(DataError, match=r"the same recording is in .*test.*copy\.wav"):
        check_recipe(folder_recipe(tone_folder, data))


def test_errors_name_the_whole_key_to_set(tone_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^tasks\.label\.column: .*'lable'.*did you mean 'label'"):
        read_data(folder_recipe(tone_folder, "tasks.label.column=lable"))
    (tmp_path / "x" / "low").mkdir(parents=True)
    (tmp_path / "x" / "low" / "a.wav").touch()
    for cache in ("cache=null", f"cache={tmp_path / 'cache'}"):
        with pytest.raises(DataError, match=r"or set tasks\.label\.data\.on_bad_file=skip"):
            read_data(folder_recipe(tmp_path / "x", cache))
    archive = "{source: archive, layout: folder, path: y, archives: [z.zip]}"
    with pytest.raises(DataError, match=r"\(tasks\.label\.data\.path=DIR\)"):
        read_data(folder_recipe(tmp_path, f"tasks.label.data={archive.replace('path: y', f'path: {tmp_path}/y')}"))


def test_check_none_opens_nothing_and_check_all_finds_what_is_bad(tone_folder: Path, tmp_path: Path) -> None:
    rows = [{"file": f"{c}/{i:02d}.wav", "label": c} for c in ("high", "low") for i in range(30)]
    write_manifest(tmp_path / "t.csv", [*rows, {"file": "nowhere.wav", "label": "low"}])
    data = f"source: manifest, path: {tmp_path / 't.csv'}, root: {tone_folder}"
    assert len(read_data(folder_recipe(tone_folder, f"tasks.label.data={{{data}, check: none}}"))[0][0].clips) == 61
    with pytest.raises(DataError, match=r"1 of 61 audio files cannot be used(?s:.)*nowhere\.wav"):
        read_data(folder_recipe(tone_folder, f"tasks.label.data={{{data}}}"))


@pytest.mark.parametrize(
    ("frontend", "wrong"),
    [
        ("frontend.sample_rate=8000", r"f_max=7800.*4000"),
        ("frontend={sample_rate: 256000, n_fft: 8192, f_max: 130000}", r"f_max=130000.*128000"),
        ("frontend={sample_rate: 200, n_fft: 256, f_min: 0.5, f_max: 101}", r"f_max=101.*100"),
    ],
)
def test_a_band_above_nyquist_is_a_named_error_at_every_rate(tone_folder: Path, frontend: str, wrong: str) -> None:
    with pytest.raises(RecipeError, match=wrong):
        make_frontend(folder_recipe(tone_folder, frontend))


def tone_of(frequency_hz: float) -> Callable[[np.ndarray], np.ndarray]:
    """A tone as a function of time in seconds."""
    return lambda t: np.sin(2 * np.pi * frequency_hz * t)


def hiss(t: np.ndarray) -> np.ndarray:
    """Noise over the whole band, of the same power."""
    return np.random.RandomState(round(1e6 * t[-1])).standard_normal(len(t)) / 2**0.5


RATES = {
    "bats": (256_000, "{sample_rate: 256000, n_fft: 8192, f_min: 15000, f_max: 120000}", (tone_of(60_000), hiss)),
    "telephone": (8000, "{sample_rate: 8000, n_fft: 256, f_min: 60, f_max: 3900}", (tone_of(400), tone_of(2500))),
    "infrasound": (
        200,
        "{sample_rate: 200, window_ms: 500, n_fft: 128, n_mels: 24, f_min: 0, f_max: 100}",
        (tone_of(3), tone_of(60)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(RATES))
def test_sounds_from_infrasound_to_bats_are_told_apart(kind: str, tmp_path: Path) -> None:
    rate, frontend, sounds = RATES[kind]
    random = np.random.RandomState(0)
    for label, sound_at in zip(("one", "other"), sounds, strict=True):
        (tmp_path / kind / label).mkdir(parents=True)
        for i in range(20):
            sound = 0.4 * sound_at((1 + 0.05 * random.rand()) * np.arange(rate) / rate)
            sound += 0.02 * random.standard_normal(rate)
            soundfile.write(tmp_path / kind / label / f"{i}.wav", sound, rate)
    settings = [
        f"frontend={frontend}",
        "train.epochs=15",
        "train.batch_size=4",
        "train.learning_rate=1e-2",
        "augment={}",
    ]
    # Steps enough for the running statistics of batch norm to settle.
    results = run(folder_recipe(tmp_path / kind, *settings), tmp_path / "run")
    assert results["tasks"]["label"]["accuracy"] == 1.0
    model = load(tmp_path / "run")
    assert model.frontend.sample_rate == rate
    # A frame every 10 ms whatever the sample rate, so the cut-offs are on the same scale of Hz.
    first = model_cutoffs(model)[0]
    assert first.own.continuous == pytest.approx(100 / (2 * first.stride))


def test_cut_offs_follow_the_frame_rate(tone_folder: Path) -> None:
    for hop_ms, frame_rate_hz in ((10, 100), (5, 200), (20, 50)):
        recipe = folder_recipe(tone_folder, f"frontend.hop_ms={hop_ms}")
        model = AudioClassifier(make_frontend(recipe), make_trunk(recipe), {"label": ["a", "b"]})
        first = model_cutoffs(model)[0]
        assert first.axis == "time"
        assert first.own.continuous == pytest.approx(frame_rate_hz / (2 * first.stride))


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_opens_with_what_it_is_and_builds(name: str) -> None:
    text = shipped_recipes()[name].read_text()
    for heading in ("# Data  ", "# Hardware  ", "# Expected  ", f"# Command   audiostride train {name}"):
        assert heading in text
    recipe = load_recipe(name)
    assert recipe.name == name
    make_frontend(recipe)
    make_trunk(recipe)
    make_transforms(recipe)


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.startswith("paper_")])
def test_the_papers_recipes_have_the_papers_settings(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.channels == [64, 128, 256, 256, 512, 512]
    assert recipe.model.smoothness == 4
    assert (recipe.train.learning_rate, recipe.train.stride_learning_rate, recipe.train.batch_size) == (1e-4, 1e-4, 256)
    assert recipe.train.schedule == "constant"
    assert not any(recipe.augment.model_dump().values())
