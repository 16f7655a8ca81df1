"""The frontends and trunks there are, each described in its own module.

To add one, write its module and name its class here: recipes, model files and the registry read these lists, and the
arguments of its constructor are its keys in a recipe, with their ranges and defaults.
"""

from .adaptive_log_mel import AdaptiveLogMel
from .audio_cnn import AudioCNN
from .audio_resnet import AudioResNet
from .custom import CustomFrontend, CustomTrunk
from .image_frontend import ImageFrontend
from .log_mel import LogMel
from .parts import Frontend, Trunk
from .resnet import ResNet
from .wave_cnn import RawWaveform, WaveCNN

FRONTENDS: dict[str, type[Frontend]] = {
    kind.name: kind for kind in (LogMel, AdaptiveLogMel, RawWaveform, ImageFrontend, CustomFrontend)
}
"""Frontend classes by their name in recipes and in `config.json`; the first is the default."""

TRUNKS: dict[str, type[Trunk]] = {kind.name: kind for kind in (AudioCNN, AudioResNet, ResNet, WaveCNN, CustomTrunk)}
"""Trunk classes by their name in recipes and in `config.json`; the first is the default."""
