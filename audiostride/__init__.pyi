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

__version__: str
