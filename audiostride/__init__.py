"""audiostride: audio classification with CNNs that learn their temporal and spectral resolution.

    import audiostride as au

    frontend, trunk = au.LogMel(), au.AudioCNN("diffstride", smoothness=1)
    model = au.load("runs/folder")
    model.predict(waveform, sample_rate)

Importing the package loads nothing; each public name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "AudioCNN": "cnn",
    "AudioClassifier": "classifier",
    "AudiostrideError": "errors",
    "DiffStride": "downsampling",
    "LogMel": "frontend",
    "Prediction": "classifier",
    "RawWaveform": "wave_cnn",
    "ResNet": "resnet",
    "SpectralPool": "downsampling",
    "StridedConv": "downsampling",
    "WaveCNN": "wave_cnn",
    "clamp_strides_": "downsampling",
    "create_model": "models",
    "find_downsampling": "convert",
    "list_models": "models",
    "load": "classifier",
    "parameter_groups": "downsampling",
    "read_audio": "audio",
    "replace_downsampling": "convert",
    "resnet18": "resnet",
    "restore_downsampling": "convert",
    "stride_cost": "complexity",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from .audio import read_audio as read_audio
    from .classifier import AudioClassifier as AudioClassifier
    from .classifier import Prediction as Prediction
    from .classifier import load as load
    from .cnn import AudioCNN as AudioCNN
    from .complexity import stride_cost as stride_cost
    from .convert import find_downsampling as find_downsampling
    from .convert import replace_downsampling as replace_downsampling
    from .convert import restore_downsampling as restore_downsampling
    from .downsampling import DiffStride as DiffStride
    from .downsampling import SpectralPool as SpectralPool
    from .downsampling import StridedConv as StridedConv
    from .downsampling import clamp_strides_ as clamp_strides_
    from .downsampling import parameter_groups as parameter_groups
    from .errors import AudiostrideError as AudiostrideError
    from .frontend import LogMel as LogMel
    from .models import create_model as create_model
    from .models import list_models as list_models
    from .resnet import ResNet as ResNet
    from .resnet import resnet18 as resnet18
    from .wave_cnn import RawWaveform as RawWaveform
    from .wave_cnn import WaveCNN as WaveCNN


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'audiostride' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
