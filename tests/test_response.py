"""What the network does to modulations, measured, against what its strides predict."""

import pytest
import torch

from audiostride.analysis.measured_response import layer_responses, noise_log_mel, ripple_response
from audiostride.models.audio_cnn import AudioCNN
from audiostride.models.classifier import AudioClassifier
from audiostride.models.cutoffs import summarise, trunk_cutoffs
from audiostride.models.folding import survival
from audiostride.models.log_mel import LogMel

NARROW = {"channels": (8, 8, 8), "strides": ((2.3, 1.7), (1.6, 2.9), (1.0, 1.2))}


@pytest.mark.parametrize("seconds", [0.73, 1.0, 2.51])
@pytest.mark.parametrize("smoothness", [1.0, 2.5, 4.0])
def test_measured_gain_is_the_mask_at_the_true_length_of_every_layer(smoothness, seconds):
    trunk = AudioCNN("diffstride", smoothness=smoothness, **NARROW)
    responses = layer_responses(trunk, noise_log_mel(LogMel(), seconds), 100.0)
    assert len(responses) == 6
    assert max(response.error for response in responses) < 0.02
    for response in responses:
        assert all(gain is not None for gain in response.measured)


def test_measured_gain_falls_to_a_half_at_the_minus_6_db_cutoff():
    trunk = AudioCNN("diffstride", smoothness=4.0, channels=(8,), strides=((2.0, 2.0),))
    (time, _), (row, _) = (
        layer_responses(trunk, noise_log_mel(LogMel(), 1.0), 100.0),
        trunk_cutoffs(trunk, 100, 64, 100.0),
    )
    assert time.measured[time.modulation.index(row.own.minus_6db)] == pytest.approx(0.5, abs=1e-4)
    assert time.measured[time.modulation.index(row.own.full_gain)] == pytest.approx(1.0, abs=1e-4)


def test_a_layer_that_does_not_apply_its_mask_is_found_out():
    trunk = AudioCNN("diffstride", smoothness=1.0, **NARROW)
    pool = trunk.separable_blocks[1].pool
    honest = pool.pool_axis
    pool.pool_axis = lambda *args: 0.95 * honest(*args)
    errors = [response.error for response in layer_responses(trunk, noise_log_mel(LogMel(), 1.0), 100.0)]
    assert [error > 0.02 for error in errors] == [False, False, True, True, False, False]


def test_measuring_leaves_mode_and_weights_as_they_were():
    trunk = AudioCNN("diffstride", **NARROW).train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    layer_responses(trunk, noise_log_mel(LogMel(), 1.0), 100.0)
    assert trunk.training
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_a_ripple_faster_than_the_pass_band_is_not_followed_by_the_last_map():
    # One layer that keeps 5 Hz and 0.05 cycles a band, before the first non-linearity.
    trunk = AudioCNN("diffstride", channels=(8,), strides=((10.0, 10.0),), smoothness=1.0)
    found = ripple_response(AudioClassifier(LogMel(), trunk, {"x": 2}), (2.0, 20.0), (0.02, 0.2))
    (slow, fine), (fast, _) = found.follows
    assert slow == 1.0
    assert fast < 0.35
    assert fine < 0.35
    assert min(min(row) for row in found.frontend) > 0.35  # the frontend alone still shows all of them


def test_ripples_are_refused_for_other_mel_bands():
    model = AudioClassifier(LogMel(n_mels=40), AudioCNN(channels=(4,), strides=((2, 2),)), {"x": 2})
    with pytest.raises(ValueError, match="64 mel bands"):
        ripple_response(model)


def test_a_strided_network_keeps_up_to_its_nyquist_frequency():
    layers = summarise([trunk_cutoffs(AudioCNN("strided"), 100, 64, 100.0)])
    assert survival(layers, "time", 24.0)["lost_at"] == 2
    assert survival(layers, "time", 3.0)["lost_at"] is None


@pytest.mark.parametrize("seconds", [0.73, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.35, 1.0])
def test_measured_gain_with_aliasing_is_the_stated_one_on_kept_and_on_folded_bins(alpha, seconds):
    trunk = AudioCNN("diffstride", smoothness=2.0, aliasing=alpha, **NARROW)
    responses = layer_responses(trunk, noise_log_mel(LogMel(), seconds), 100.0)
    for response in responses:
        assert response.error < 1e-3
        assert all(gain is not None for gain in response.measured)
    assert responses[0].mask[-1] == pytest.approx(alpha)


def test_aliasing_that_lands_elsewhere_than_stated_is_found_out():
    trunk = AudioCNN("diffstride", smoothness=2.0, aliasing=0.6, **NARROW)
    pool = trunk.separable_blocks[0].pool
    honest = pool.pool_axis
    pool.pool_axis = lambda *args, **more: honest(*args, **more).roll(1, dims=-2)
    errors = [response.error for response in layer_responses(trunk, noise_log_mel(LogMel(), 1.0), 100.0)]
    assert errors[0] > 0.1


def test_ripples_above_the_cut_off_are_followed_when_they_are_folded_down():
    follows = {}
    for alpha in (0.0, 1.0):
        torch.manual_seed(0)
        trunk = AudioCNN("diffstride", channels=(8,), strides=((10.0, 1.0),), smoothness=1.0, aliasing=alpha)
        found = ripple_response(AudioClassifier(LogMel(), trunk, {"x": 2}), (2.0, 20.0), (0.0,))
        follows[alpha] = found.follows[1][0] / found.follows[0][0]
    assert follows[0.0] < 0.35
    assert follows[1.0] > 2 * follows[0.0]
