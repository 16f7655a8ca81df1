"""Copies of a recording are found however they were cut and encoded, and different sounds are not taken for copies."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from audiostride.data.clips import ArrayClips, FileClips
from audiostride.data.inspection import inspect_path
from audiostride.data.near_duplicates import near_duplicates
from audiostride.errors import DataWarning
from audiostride.training.build import check_recipe
from audiostride.training.recipe import load_recipe


def sound(seed: int, length_s: float = 2.0, rate: int = 16000) -> np.ndarray:
    """Coloured noise with bursts, unlike any other seed's."""
    random = np.random.RandomState(seed)
    noise = np.convolve(random.standard_normal(round(length_s * rate)), random.uniform(-1, 1, 9), "same")
    bursts = np.interp(np.arange(len(noise)), np.linspace(0, len(noise), 12), random.uniform(0.05, 1, 12))
    wave = noise * bursts
    return 0.5 * wave / np.abs(wave).max()


def test_cut_encoded_resampled_and_scaled_copies_are_found_and_nothing_else(tmp_path: Path) -> None:
    originals = [sound(seed) for seed in range(12)]
    for i, wave in enumerate(originals):
        soundfile.write(tmp_path / f"{i}.wav", wave, 16000)
    copies = {
        "cut.wav": (originals[0][7001:25003], 16000),
        "begin.flac": (originals[1][:15000], 16000),
        "encoded.mp3": (originals[2], 16000),
        "encoded.ogg": (originals[3], 16000),
        "faster.wav": (soxr.resample(originals[4], 16000, 44100), 44100),
        "slower.wav": (soxr.resample(originals[5], 16000, 11025), 11025),
        "soft.wav": (-0.02 * originals[6], 16000),
        "all.mp3": (0.3 * soxr.resample(originals[7][5000:], 16000, 22050), 22050),
        "longer.wav": (np.concatenate([sound(99), originals[8], sound(98)]), 16000),
        "shifted.wav": (np.concatenate([originals[9][14000:], sound(97)])[:32000], 16000),
    }
    for name, (wave, rate) in copies.items():
        soundfile.write(tmp_path / name, wave, rate)
    names = [f"{i}.wav" for i in range(12)] + list(copies)
    found = near_duplicates(FileClips(names, {}, [""] * len(names), root=tmp_path))
    assert {(names[a], names[b]) for a, b, _ in found} == {(f"{i}.wav", name) for i, name in enumerate(copies)}


def test_hum_silence_and_bad_files_are_no_copies(tmp_path: Path) -> None:
    hum = 0.3 * np.sin(2 * np.pi * 50 * np.arange(32000) / 16000)
    for i in range(4):
        soundfile.write(tmp_path / f"hum{i}.wav", hum + 0.1 * sound(i), 16000)
        soundfile.write(tmp_path / f"silence{i}.wav", np.zeros(16000), 16000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "short.wav", sound(9)[:50], 16000)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert near_duplicates(FileClips(names, {}, [""] * len(names), root=tmp_path)) == []


def test_calls_of_bats_are_compared_at_their_own_rate(tmp_path: Path) -> None:
    time = np.arange(25600) / 256000
    calls = []
    for seed in range(6):
        random = np.random.RandomState(seed)
        sweeps = [np.sin(2 * np.pi * (80000 - 3e5 * (time - at)) * (time - at)) for at in random.uniform(0, 0.1, 4)]
        calls.append(0.1 * sum(sweeps) * random.uniform(0.5, 1, 25600))
    calls.append(0.3 * calls[2][6001:])
    waveforms = np.stack([np.resize(call, 25600) for call in calls]).astype(np.float32)
    clips = ArrayClips(list("abcdefg"), {}, [""] * 7, waveforms=waveforms, sample_rate=256000)
    assert [pair[:2] for pair in near_duplicates(clips, 256000)] == [(2, 6)]


def test_segments_of_one_file_are_no_copies_and_large_sets_are_sampled(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound(0), 16000)
    spans = np.array([[0.0, 1.5], [0.2, 2.0]])
    clips = FileClips(["a.wav", "a.wav"], {}, [""] * 2, spans=spans, root=tmp_path)
    assert near_duplicates(clips) == []
    waveforms = np.stack([sound(i, 1.0, 8000) for i in range(10)] + [sound(3, 1.0, 8000)]).astype(np.float32)
    many = ArrayClips(list("abcdefghijk"), {}, ["train"] * 11, waveforms=waveforms, sample_rate=8000)
    assert [pair[:2] for pair in near_duplicates(many)] == [(3, 10)]
    splits = ["train"] * 3 + ["test"] + ["train"] * 6 + ["validation"]
    with pytest.warns(DataWarning, match=r"among 4 of 11 clips, those for validation and test first"):
        assert [pair[:2] for pair in near_duplicates(many, splits=splits, max_clips=4)] == [(3, 10)]


def test_validate_and_init_name_the_pairs_the_splits_and_what_to_do(tmp_path: Path) -> None:
    for i in range(24):
        split = "train" if i < 16 else "test"
        (tmp_path / split / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / split / "ab"[i % 2] / f"{i}.wav", sound(i, 1.0), 16000)
    soundfile.write(tmp_path / "test" / "a" / "copy.mp3", sound(4, 1.0)[3000:], 16000)
    recipe = load_recipe("folder", [f"tasks.label.data.path={tmp_path}", "train.workers=0"])
    wanted = (
        r"1 pair of clips .*: train/a/4\.wav \((train|validation)\) and test/a/copy\.mp3 \(test\)|copy.mp3 \(test\) and"
    )
    with pytest.warns(DataWarning, match=wanted + r".*; scores are inflated; remove one .*tasks\.label\.data\.group"):
        (copy,) = check_recipe(recipe)["copies"]
    assert sorted(copy["clips"]) == ["test/a/copy.mp3", "train/a/4.wav"]
    assert copy["correlation"] > 0.9
    assert any("1 pair of clips hold the same recording" in note for note in inspect_path(tmp_path).notes)
