"""Sample rates as recorders have them: what `init` makes of them, what is said before something is lost."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.data.inspection import inspect_path
from audiostride.errors import DataWarning
from audiostride.training.build import check_recipe, take_up
from audiostride.training.first_recipe import make_recipe
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run


def bats(folder: Path, rate: int, n: int = 40) -> None:
    """Calls of two species, at 45 and 80 kHz, five milliseconds each in noise."""
    random = np.random.RandomState(0)
    time = np.arange(round(0.005 * rate)) / rate
    for i in range(n):
        wave = 0.003 * random.standard_normal(rate // 5)
        for _ in range(8):
            at = random.randint(len(wave) - len(time))
            wave[at : at + len(time)] += 0.3 * np.sin(2 * np.pi * (45000, 80000)[i % 2] * time) * np.hanning(len(time))
        path = folder / ("pipistrelle", "horseshoe")[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, rate)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [192000, 256000, 500000])
def test_the_recipe_of_init_hears_bats(tmp_path: Path, rate: int) -> None:
    bats(tmp_path / "bats", rate)
    (tmp_path / "recipe.yaml").write_text(make_recipe(tmp_path / "bats", inspect_path(tmp_path / "bats")))
    settings = ["train.epochs=4", "train.batch_size=8", "train.workers=0", "window_s=0.2"]
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), settings)
    assert recipe.frontend.resolution == rate
    assert run(recipe, tmp_path / "run")["tasks"]["label"]["auc"] == 1.0


def test_fine_tuning_that_loses_the_ultrasound_says_so_first(tmp_path: Path) -> None:
    bats(tmp_path / "bats", 256000, 12)
    (tmp_path / "recipe.yaml").write_text(make_recipe(tmp_path / "bats", inspect_path(tmp_path / "bats")))
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), ["model.init=audio_resnet_small_strided"])
    with pytest.warns(DataWarning, match=r"takes 16000 .* 256000 is not used: nothing above 8000 Hz will be heard"):
        taken, _ = take_up(recipe)
    assert taken.frontend.resolution == 16000


def test_validate_names_a_column_that_says_what_belongs_together(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    rows = ["file,label,fsID"]
    for i in range(140):
        soundfile.write(tmp_path / f"{i}.wav", random.uniform(-0.5, 0.5, 800), 8000)
        rows.append(f"{i}.wav,c{i // 7 % 5},{1000 + i // 7}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    data = f"tasks.label.data={{source: manifest, path: {tmp_path / 't.csv'}}}"
    recipe = load_recipe("folder", [data, "frontend.sample_rate=8000", "frontend.f_max=3900"])
    with pytest.warns(
        DataWarning, match=r"values of 'fsID' in more than one split: .*set tasks\.label\.data\.group to it"
    ):
        check_recipe(recipe)
