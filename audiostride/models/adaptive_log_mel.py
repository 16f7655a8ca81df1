"""`AdaptiveLogMel`: a log-mel spectrogram whose window, frame rate and bands are learned.

A log-mel at a fine hop with many bands and a window of learned length, then `DiffStride` over time and mel. Learned
strides cost next to nothing here: one channel, before any convolution. Where the product of the two strides is held, so
is the size of the spectrogram and with it the cost of the network; what is learned is the shape of the resolution.

Sources: Riad et al., ICLR 2022 (strides); Leiber et al. 2022 (window length).
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..layers.downsampling import DiffStride
from ..layers.learned_window import LearnedWindow
from .log_mel import Bands, FFTLength, Frequency, LogMel, log_mel_map
from .parts import AtLeastOne, Frontend, Pair, Positive, SampleRate, plain

if TYPE_CHECKING:
    from .network import AudioNetwork

POWER_MS = 25.0
"""The window has the power of a Hann window of this length, that of `LogMel`, whatever its own length is."""


class FineLogMel(nn.Module):
    """A log-mel spectrogram under a window of learned length; arguments are those of `LogMel`.

    Attributes:
        learned_window: the `LearnedWindow`.
        hop_length: hop in samples.

    Example:
        >>> import torch
        >>> waveform = torch.randn(2, 16000)
        >>> torch.allclose(FineLogMel()(waveform), LogMel()(waveform), atol=1e-4)
        True
    """

    filters: Tensor

    def __init__(self, **settings: Any):
        super().__init__()
        plain = LogMel(**settings)
        rate, self.hop_length = plain.sample_rate, plain.hop_length
        length = plain.settings["window_ms"] / 1000 * rate
        power = 3 / 8 * POWER_MS / 1000 * rate
        self.learned_window = LearnedWindow(length, plain.settings["n_fft"], float(max(self.hop_length, 2)), power)
        self.register_buffer("filters", plain.filters, persistent=False)

    @property
    def window(self) -> Tensor:
        """The window as it is now, ``(samples,)``."""
        return self.learned_window()

    def forward(self, waveform: Tensor) -> Tensor:
        """Turn ``(batch, samples)`` into ``(batch, 1, time, mel)``; ``(samples,)`` into ``(1, time, mel)``.

        Raises:
            ValueError: if the waveform is shorter than one hop.
        """
        return log_mel_map(waveform, self.window, self.filters, self.hop_length)


class AdaptiveLogMel(Frontend):
    """Waveform to a log-mel spectrogram of learned resolution.

    Window length and strides are learned at `train.stride_learning_rate` and held in their range by `clamp_strides_`;
    `freeze_strides` makes them constants.

    Args:
        sample_rate: of the waveforms it will be given, in Hz.
        window_ms: initial length of the Hann window, at most the FFT's.
        hop_ms: time from one frame to the next before pooling.
        n_fft: FFT length in samples.
        n_mels: number of mel bands before pooling.
        f_min: lower edge of the first band, in Hz.
        f_max: upper edge of the last band, in Hz, at most half the sample rate.
        strides: initial (time, mel) stride of the pooling.
        smoothness: DiffStride's R.
        hold_product: the product of the strides stays what it is, see `DiffStride`.

    Attributes:
        spectrogram: the `FineLogMel`.
        pool: the `DiffStride`.
        hop_length: hop before pooling, in samples.
        n_mels: bands before pooling.
        frame_rate: frames per second before pooling, in Hz.
        settings: the arguments it was made with.

    Raises:
        ValueError: if the settings contradict each other; the message names them.

    Example:
        >>> import torch
        >>> frontend = AdaptiveLogMel()
        >>> frontend(torch.zeros(4, 16000)).shape
        torch.Size([4, 1, 101, 65])
        >>> frontend.tile(16000)["window_ms"], frontend.tile(16000)["frames_per_s"]
        (25.0, 101.0)
    """

    name = "adaptive_log_mel"
    hop_length: int
    n_mels: int
    frame_rate: float

    def __init__(
        self,
        sample_rate: SampleRate = 16000,
        window_ms: Positive = 25.0,
        hop_ms: Positive = 5.0,
        n_fft: FFTLength = 1024,
        n_mels: Bands = 128,
        f_min: Frequency = 60.0,
        f_max: Positive = 7800.0,
        strides: Pair = (2.0, 2.0),
        smoothness: AtLeastOne = 1.0,
        hold_product: bool = True,
    ):
        super().__init__()
        self.settings = plain(locals())
        if len(strides) != 2:
            raise ValueError(f"strides are a (time, mel) pair, got {list(strides)}")
        pooling = ("strides", "smoothness", "hold_product")
        self.spectrogram = FineLogMel(**{key: value for key, value in self.settings.items() if key not in pooling})
        self.pool = DiffStride(strides, smoothness, hold_product=hold_product)
        self.sample_rate, self.hop_length, self.n_mels = sample_rate, self.spectrogram.hop_length, n_mels
        self.frame_rate = sample_rate / self.hop_length

    @property
    def window(self) -> Tensor:
        """The window as it is now, ``(samples,)``."""
        return self.spectrogram.window

    @property
    def first_pool(self) -> DiffStride:
        return self.pool

    def before_pool(self, waveform: Tensor) -> Tensor:
        return self.spectrogram(waveform)

    @property
    def centre(self) -> float:
        return len(self.window) / 2

    @property
    def window_samples(self) -> int:
        """Length of the window as it is now, in samples."""
        return round(self.spectrogram.learned_window.length())

    def forward(self, waveform: Tensor) -> Tensor:
        """Turn ``(batch, samples)`` into ``(batch, 1, time, mel)`` of the learned resolution."""
        return self.pool(self.spectrogram(waveform))

    def map_size(self, n_samples: int) -> tuple[int, int]:
        """Size (time, mel) of the spectrogram of `n_samples` samples."""
        return self.pool.output_length(n_samples // self.hop_length, 0), self.pool.output_length(self.n_mels, 1)

    def tile(self, n_samples: int) -> dict[str, Any]:
        """What has been learned, for windows of `n_samples` samples.

        Returns:
            "window_ms"; "strides" (time, mel); "frames_per_s" and "bands" of the spectrogram; "cutoffs": the (time,
            mel) modulation up to which the strides keep it, in Hz and in cycles per mel band before pooling.
        """
        frames, bands = self.map_size(n_samples)
        time, mel = self.pool.strides()
        return {
            "window_ms": round(1000 / self.sample_rate * self.spectrogram.learned_window.length(), 4),
            "strides": [time, mel],
            "frames_per_s": frames * self.sample_rate / n_samples,
            "bands": bands,
            "cutoffs": [self.frame_rate / (2 * time), 1 / (2 * mel)],
        }


def learned_resolution(model: "AudioNetwork") -> dict[str, Any]:
    """``{"resolution": ...}`` of a model whose frontend is an `AdaptiveLogMel`, else nothing; for records of a run."""
    tile = model.frontend.tile(model.window_length)
    return {"resolution": tile} if tile else {}


def default_log_mel(frontend: LogMel | AdaptiveLogMel) -> LogMel:
    """The default resolution (window 25 ms, a frame every 10 ms, 64 bands) on a frontend's frequencies.

    Example:
        >>> default_log_mel(AdaptiveLogMel(sample_rate=32000)).settings["n_fft"]
        1024
    """
    own = {key: frontend.settings[key] for key in ("sample_rate", "f_min", "f_max")}
    n_fft = 512
    while True:  # the shortest FFT that holds the window and has a bin in every band
        try:
            return LogMel(**own, n_fft=n_fft)
        except ValueError:
            n_fft *= 2
