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
    "AudioCNN": "models.audio_cnn",
    "AudioResNet": "models.audio_resnet",
    "AudioClassifier": "models.classifier",
    "AudiostrideError": "errors",
    "CustomFrontend": "models.custom",
    "CustomTrunk": "models.custom",
    "DiffStride": "layers.downsampling",
    "LogMel": "models.log_mel",
    "Prediction": "models.prediction",
    "RawWaveform": "models.wave_cnn",
    "RandomStrides": "layers.conversion",
    "ResNet": "models.resnet",
    "SpectralPool": "layers.downsampling",
    "StridedConv": "layers.strided_conv",
    "WaveCNN": "models.wave_cnn",
    "clamp_strides_": "layers.strides",
    "create_model": "models.registry",
    "find_downsampling": "layers.parallel_branches",
    "list_models": "models.registry",
    "load": "models.classifier",
    "parameter_groups": "layers.strides",
    "read_audio": "data.decoding",
    "replace_downsampling": "layers.conversion",
    "resnet18": "models.resnet",
    "restore_downsampling": "layers.conversion",
    "stride_cost": "models.cost",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from .data.decoding import read_audio as read_audio
    from .errors import AudiostrideError as AudiostrideError
    from .layers.conversion import RandomStrides as RandomStrides
    from .layers.conversion import replace_downsampling as replace_downsampling
    from .layers.conversion import restore_downsampling as restore_downsampling
    from .layers.downsampling import DiffStride as DiffStride
    from .layers.downsampling import SpectralPool as SpectralPool
    from .layers.parallel_branches import find_downsampling as find_downsampling
    from .layers.strided_conv import StridedConv as StridedConv
    from .layers.strides import clamp_strides_ as clamp_strides_
    from .layers.strides import parameter_groups as parameter_groups
    from .models.audio_cnn import AudioCNN as AudioCNN
    from .models.audio_resnet import AudioResNet as AudioResNet
    from .models.classifier import AudioClassifier as AudioClassifier
    from .models.classifier import load as load
    from .models.cost import stride_cost as stride_cost
    from .models.custom import CustomFrontend as CustomFrontend
    from .models.custom import CustomTrunk as CustomTrunk
    from .models.log_mel import LogMel as LogMel
    from .models.prediction import Prediction as Prediction
    from .models.registry import create_model as create_model
    from .models.registry import list_models as list_models
    from .models.resnet import ResNet as ResNet
    from .models.resnet import resnet18 as resnet18
    from .models.wave_cnn import RawWaveform as RawWaveform
    from .models.wave_cnn import WaveCNN as WaveCNN


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'audiostride' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
