"""The HTML report, opened in a real browser; and the training log beside it."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride import LogMel, create_model
from audiostride.analysis.comparison import striding_runs
from audiostride.analysis.finished_runs import find_runs
from audiostride.analysis.learning_dynamics import over_training
from audiostride.analysis.report import MAX_BYTES, write_report
from audiostride.analysis.run_cutoffs import describe_cutoffs
from audiostride.data.annotations import Segment, write_audacity
from audiostride.errors import ModelFileError, UsageError
from audiostride.models.classifier import load
from audiostride.models.state_at_strides import state_at
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.run_files import read_metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A short real run: two tasks, three learned layers, plenty of mistakes."""
    folder = tmp_path_factory.mktemp("runs") / "short <run>"
    data = [f"tasks.{task}.data.n_clips=250" for task in ("rate", "scale")]
    model = ["model.channels=[4,8,8]", "model.strides=[[2,2],[2,2],[1,1]]"]
    run(load_recipe("ripples", [*data, *model, "train.epochs=2", "train.batch_size=16"]), folder)
    return folder


@pytest.fixture(scope="module")
def report(run_dir) -> Path:
    file = run_dir / "report.html"
    write_report(run_dir, file)
    return file


@pytest.fixture
def page(browser, report):
    """The open report; any console error, page error or request fails the test."""
    opened = browser.new_page(viewport={"width": 1100, "height": 900})
    trouble = []
    opened.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else trouble.append(request.url)
    )
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert trouble == []


def test_it_is_one_small_file_without_outside_references(report):
    text = report.read_text()
    assert len(text.encode()) < MAX_BYTES
    assert 'src="http' not in text
    assert "<link" not in text
    assert "short &lt;run&gt;" in text  # names are escaped
    assert "<run>" not in text


def test_it_opens_with_every_section_and_all_pictures_described(page):
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        "Training", "Strides over training", "What it keeps: cut-offs", "The modulation plane, measured",
        "Task rate", "Task scale", "Recipe and environment",
    ]  # fmt: skip
    assert page.locator("svg[role=img]").count() == page.locator("figure svg, .mistakes svg").count() >= 6
    assert all(page.locator("svg[role=img]").nth(i).get_attribute("aria-label") for i in range(6))


def test_a_mistake_plays_to_its_end(page):
    audio = page.locator("audio").first
    ended = audio.evaluate(
        """element => new Promise((resolve, reject) => {
            element.onended = () => resolve([element.duration, element.currentTime]);
            element.onerror = () => reject(element.error.message);
            element.playbackRate = 4;
            element.play().catch(reject);
        })"""
    )
    assert ended == [1.0, 1.0]


def test_tables_sort_by_keyboard_and_tell_screen_readers(page):
    table = page.locator("#task-1 table.sortable")
    heading = table.locator("th").nth(3)

    def recalls() -> list[float]:
        return [float(text) for text in table.locator("tbody td:nth-child(4)").all_inner_texts()]

    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert recalls() == sorted(recalls())
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert recalls() == sorted(recalls(), reverse=True)


def test_tables_with_a_second_row_of_headings_sort_by_the_heading_above_the_column(page):
    table = page.locator("#cutoffs table.sortable").first
    button = table.get_by_role("button", name="so far last bin")
    column = button.evaluate("button => button.parentElement.cellIndex") + 1
    button.click()
    button.click()
    assert button.locator("..").get_attribute("aria-sort") == "descending"
    values = [float(text) for text in table.locator(f"tbody td:nth-child({column})").all_inner_texts()]
    assert values == sorted(values, reverse=True)
    assert column == 10


def test_what_scrolls_sideways_on_a_phone_is_reached_by_keyboard(page):
    from playwright.sync_api import expect

    wide = page.locator("#cutoffs .wide").first
    page.set_viewport_size({"width": 390, "height": 800})
    expect(wide).to_have_attribute("tabindex", "0")
    page.set_viewport_size({"width": 1100, "height": 800})
    expect(wide).not_to_have_attribute("tabindex", "0")


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_runs_off_a_small_screen(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_is_dark_where_the_reader_wants_it_dark(page):
    def ground() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.emulate_media(color_scheme="light")
    light = ground()
    page.emulate_media(color_scheme="dark")
    assert (light, ground()) == ("rgb(255, 255, 255)", "rgb(23, 23, 26)")


def test_the_sound_on_the_page_is_the_clip(run_dir, page, tmp_path):
    import base64

    import numpy as np

    from audiostride.analysis.run_cutoffs import task_clips

    name = page.locator(".mistakes .file").first.inner_text()
    clips = task_clips(run_dir, "rate")
    (tmp_path / "page.wav").write_bytes(
        base64.b64decode(page.locator("audio").first.get_attribute("src").partition(",")[2])
    )
    sound, rate = soundfile.read(tmp_path / "page.wav", dtype="float32")
    assert rate == 16000
    assert np.abs(sound - clips.read(clips.names.index(name), 16000)).max() < 1e-4


def test_dynamics_start_at_the_initial_strides_and_end_at_the_last_epochs(run_dir):
    model, metrics = load(run_dir), read_metrics(run_dir)
    points = over_training(model, metrics, [[2, 2], [2, 2], [1, 1]])
    assert [point["epoch"] for point in points] == [0, 1, 2]
    assert points[0]["total_stride"] == [4.0, 4.0]
    assert points[-1]["strides"] == metrics[-1]["strides"]
    assert over_training(model, metrics, None) == points[1:]  # of a run that began with a trained model
    assert state_at(model, [[1.0, 1.0]] * 3)["shrinkage"] == [1.0, 1.0]


def test_the_sounds_on_the_page_are_the_clips(report):
    sounds = re.findall(r"data:audio/wav;base64,([\w+/=]+)", report.read_text())
    assert sounds
    for sound in sounds:
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
        assert rate == 16000
        assert samples.min() < -0.1 < 0.1 < samples.max()
        assert abs(samples.mean()) < 0.01


def test_only_runs_that_are_alike_are_averaged(tmp_path):
    def saved(name, **settings):
        create_model("audio_cnn_small_diffstride", heads={"word": 2}, **settings).save(tmp_path / name)
        return tmp_path / name

    first, again = saved("first"), saved("again")
    assert describe_cutoffs([first, again])[0]["runs"] == [str(first), str(again)]
    with pytest.raises(UsageError, match=r"the runs differ in smoothness \(.*7\.0\) and cannot be averaged"):
        describe_cutoffs([first, saved("smooth", smoothness=7.0)])
    with pytest.raises(UsageError, match="different frontends"):
        describe_cutoffs([first, saved("mel", frontend=LogMel(f_max=4000))])
    with pytest.raises(UsageError, match="60 s at most"):
        describe_cutoffs([first], 61)


def test_tensorboard_has_the_strides_cut_offs_and_scores(run_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(run_dir / "tensorboard"))
    log.Reload()
    tags = set(log.Tags()["scalars"])
    assert {"stride_time/layer1", "cutoff_mel/layer3", "cost/macs_per_second", "rate/accuracy/validation"} <= tags
    last = read_metrics(run_dir)[-1]
    event = log.Scalars("stride_time/layer1")[-1]
    assert (event.step, event.value) == (last["step"], pytest.approx(last["strides"][0][0]))


def test_a_run_without_validation_clips_shows_the_test_and_that_the_last_epoch_was_kept(run_dir, tone_folder, tmp_path):
    train = ["train.epochs=2", "train.batch_size=16", "train.keep=last", "train.validation_fraction=0"]
    init = [f"tasks.label.data.path={tone_folder}", f"model.init={run_dir}"]
    run(load_recipe("folder", [*init, *train]), tmp_path / "all")
    write_report(tmp_path / "all", tmp_path / "pages" / "report.html")
    page = " ".join((tmp_path / "pages" / "report.html").read_text().split())
    curve = page.partition("The test curve as a table")[2].partition("</table>")[0]
    assert curve.count('<tr><td class="n">') == 2
    assert "The model that was kept is that of the last epoch" in page
    assert "test clips that were not used in training" in page
    (line,) = striding_runs(find_runs([tmp_path / "all"])[0])
    assert [point["epoch"] for point in line["points"]] == [1, 2]  # it began with the strides of another run


def test_an_unfinished_run_is_refused_by_name(run_dir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    (copy / "results.json").unlink()
    with pytest.raises(ModelFileError, match="the run is not finished"):
        write_report(copy, tmp_path / "report.html")


def test_recordings_are_shown_with_their_events_and_play_from_where_they_are_clicked(run_dir, browser, tmp_path):
    label = load(run_dir).labels["rate"][0]
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000 * 20)
    soundfile.write(tmp_path / "ripples.wav", noise, 16000)
    starts = (1.0, 11.0, 13.0, 15.0, 17.0, 18.4)
    write_audacity(tmp_path / "ripples.txt", [Segment(start, start + 1.5, label) for start in starts])
    write_report(run_dir, tmp_path / "report.html", events=tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert len(text.encode()) < MAX_BYTES
    opened = browser.new_page(viewport={"width": 1100, "height": 900})
    opened.goto((tmp_path / "report.html").as_uri())
    row = opened.locator("#events tbody tr").first.inner_text().split("\t")
    assert row[:2] == ["all", "6"]
    assert (
        "Onsets are known at best to about ±500 ms" in opened.locator("#events").inner_text()
    )  # windows: it ends in a maximum
    recording = opened.locator(".recording")
    assert "5.0 to 20.0 s" in recording.inner_text()
    recording.locator("audio").evaluate("audio => audio.pause()")
    box = recording.locator(".scrub").bounding_box()
    recording.locator(".scrub").click(position={"x": (0.09 + 0.5 * 0.895) * box["width"], "y": 80})
    opened.wait_for_function("document.querySelector('.recording audio').currentTime >= 7.4")
    assert 7.4 < recording.locator("audio").evaluate("audio => audio.currentTime") < 9
    opened.close()
