"""How clips are split into windows and put together again."""

import pytest
import torch

from audiostride.windows import mean_over_windows, split_windows, window_hop


@pytest.mark.parametrize(("samples", "windows"), [(1, 1), (99, 1), (100, 1), (101, 2), (200, 2), (201, 3), (250, 3)])
def test_a_remainder_has_a_window_of_its_own(samples: int, windows: int) -> None:
    assert len(split_windows(torch.ones(samples), 100)) == windows


def test_windows_hold_the_clip_in_order_and_the_last_ends_with_it() -> None:
    clip = torch.arange(1.0, 26.0)
    windows = split_windows(clip, 10)
    assert torch.equal(windows[:2].flatten(), clip[:20])
    assert torch.equal(windows[2], clip[15:])


def test_a_clip_shorter_than_a_window_lies_in_its_centre() -> None:
    window = split_windows(torch.ones(4), 10)[0]
    assert window.nonzero().flatten().tolist() == [3, 4, 5, 6]


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        split_windows(torch.zeros(0), 10)


def test_the_mean_is_over_each_clips_own_windows() -> None:
    values = torch.randn(7, 3)
    clip = torch.tensor([0, 0, 1, 2, 2, 2, 0])
    means = mean_over_windows(values, clip, 3)
    for i in range(3):
        assert torch.allclose(means[i], values[clip == i].mean(0))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("samples", [100, 101, 149, 150, 333, 1000])
def test_windows_begin_every_hop_and_every_sample_is_heard(samples: int, overlap: float) -> None:
    clip, hop = torch.arange(1.0, samples + 1), round(100 * (1 - overlap))
    assert window_hop(100, overlap) == hop
    windows = split_windows(clip, 100, overlap=overlap)
    for i, window in enumerate(windows[:-1]):
        assert torch.equal(window, clip[i * hop : i * hop + 100])
    assert torch.equal(windows[-1], clip[-100:])
    assert set(windows.flatten().tolist()) == set(clip.tolist())
    assert len(windows) == -(-(samples - 100) // hop) + 1


@pytest.mark.parametrize("overlap", [-0.1, 1.0, float("nan")])
def test_an_overlap_out_of_range_is_refused(overlap: float) -> None:
    with pytest.raises(ValueError, match="overlap must be at least 0 and less than 1"):
        split_windows(torch.ones(20), 10, overlap=overlap)


def test_the_smallest_hop_is_a_sample() -> None:
    assert len(split_windows(torch.ones(12), 10, overlap=0.999)) == 3
