"""The functions of HEAR 2021, so that a trained run can be scored by its evaluation kit.

    import audiostride.inference.hear as hear

    model = hear.load_model("runs/folder")
    embeddings, timestamps_ms = hear.get_timestamp_embeddings(audio, model)

Source: Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022, the common API.
"""

import torch
from torch import Tensor, nn

from ..errors import ModelFileError
from ..models.classifier import AudioClassifier, load
from ..models.pretrained import pretrained_names
from ..windows import split_windows

SAMPLE_RATES = (16000, 22050, 32000, 44100, 48000)
"""Rates in Hz that HEAR's kit offers its audio at."""

HOP_MS = 50.0
"""Time between timestamp embeddings: the most that HEAR's event tasks allow for."""


class HearModel(nn.Module):
    """A classifier with the attributes that HEAR asks for.

    Attributes:
        sample_rate: of the audio it takes, in Hz.
        scene_embedding_size: length of an embedding of a whole clip.
        timestamp_embedding_size: length of an embedding of a moment.
    """

    def __init__(self, classifier: AudioClassifier):
        super().__init__()
        self.classifier = classifier
        self.sample_rate = classifier.sample_rate
        self.scene_embedding_size = classifier.trunk.num_features
        self.timestamp_embedding_size = classifier.trunk.num_features


def load_model(model_file_path: str = "") -> HearModel:
    """Load a run directory, "hf-hub:user/name" or a model that comes with the package.

    Raises:
        ModelFileError: if there is no such model, or it takes audio at a rate that HEAR's kit does not offer.

    Example:
        >>> load_model("audio_resnet_small_strided").scene_embedding_size
        128
    """
    if not model_file_path:
        raise ModelFileError(
            "audiostride.inference.hear has no default model; give load_model a run directory, or "
            f"{', '.join(pretrained_names())}, which comes with the package"
        )
    model = HearModel(load(model_file_path))
    if model.sample_rate not in SAMPLE_RATES:
        rates = ", ".join(map(str, SAMPLE_RATES))
        raise ModelFileError(f"{model_file_path}: takes audio at {model.sample_rate} Hz, HEAR offers {rates} Hz")
    return model


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Embedding of each clip, the mean over its windows.

    Args:
        audio: shape ``(n_sounds, n_samples)``, full scale at +-1, at the model's sample rate.
        model: from `load_model`.

    Returns:
        Float32 of shape ``(n_sounds, scene_embedding_size)``.

    Example:
        >>> from audiostride import create_model
        >>> model = HearModel(create_model("audio_cnn_small_strided", heads={"word": 2}))
        >>> get_scene_embeddings(torch.zeros(4, 20000), model).shape
        torch.Size([4, 128])
    """
    classifier = model.classifier
    embed = [classifier.embed_windows(split_windows(sound, classifier.window_length)).mean(0) for sound in audio]
    return torch.stack(embed).float()


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embedding of every 50 ms: of the window around it, the ends of the clip padded with silence.

    Args:
        audio: as in `get_scene_embeddings`.
        model: from `load_model`.

    Returns:
        Float32 embeddings ``(n_sounds, n_timestamps, timestamp_embedding_size)`` and the centres of
        their windows in ms, ``(n_sounds, n_timestamps)``.

    Example:
        >>> from audiostride import create_model
        >>> model = HearModel(create_model("audio_cnn_small_strided", heads={"word": 2}))
        >>> embeddings, timestamps = get_timestamp_embeddings(torch.zeros(2, 1600), model)
        >>> embeddings.shape, timestamps[0].tolist()
        (torch.Size([2, 2, 128]), [0.0, 50.0])
    """
    parts = [model.classifier.embed_timestamps(sound, model.sample_rate, HOP_MS) for sound in audio]
    embeddings, timestamps = zip(*parts, strict=True)
    return torch.stack(embeddings).float(), torch.stack(timestamps).to(audio.device)
