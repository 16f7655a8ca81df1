"""The log-mel frontend: `LogMel` and its functional twin `log_mel`.

Frame t covers the samples [hop * t, hop * t + window) under a periodic Hann window, zero-padded at
the end, so that n samples give n // hop frames: one second at 16 kHz is exactly 100. Power spectrum,
HTK mel bands without norm, natural logarithm of power + 1e-5.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..mel_scale import LOG_OFFSET, mel_band_edges_hz
from .parts import Frontend, Positive, SampleRate, plain

MAX_FILTERS = 2**24
"""Most bands times FFT length: 256 bands of an FFT of 65,536 samples."""

FFTLength = Annotated[int, Field(ge=2, le=2**20)]
Bands = Annotated[int, Field(ge=1, le=2**14)]
Frequency = Annotated[float, Field(ge=0)]

LARGE_FILTERS = 2**16
"""From so many weights on it is faster to add real and imaginary parts before the filters than by them."""

CLIPS_IN_CACHE = 8
"""Clips transformed at once on a CPU: of one second, their spectra take 3 MB (`benchmarks/log_mel.py`)."""


def mel_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Triangular mel filters on the bins of an FFT, as `librosa.filters.mel(htk=True, norm=None)`.

    Returns:
        Float64 tensor of shape ``(n_mels, n_fft // 2 + 1)``, weights 0 to 1.

    Raises:
        ValueError: if the band limits do not fit the sample rate, or a band holds no FFT bin.

    Example:
        >>> mel_filters(16000, 512, 64, 60.0, 7800.0).shape
        torch.Size([64, 257])
    """
    if not 0 <= f_min < f_max:
        raise ValueError(f"f_min must lie in [0, f_max), got f_min={f_min} Hz and f_max={f_max} Hz")
    if f_max > sample_rate / 2:
        raise ValueError(
            f"f_max={f_max} Hz lies above the Nyquist frequency {sample_rate / 2} Hz of sample_rate={sample_rate}; "
            f"lower f_max or raise sample_rate"
        )
    if n_mels < 1:
        raise ValueError(f"n_mels must be at least 1, got {n_mels}")
    if n_mels * n_fft > MAX_FILTERS:
        raise ValueError(
            f"n_mels={n_mels} bands of n_fft={n_fft} are too many: their product may be at most {MAX_FILTERS:,}"
        )
    edges = torch.tensor(mel_band_edges_hz(n_mels, f_min, f_max), dtype=torch.float64)
    bins_hz = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (sample_rate / n_fft)
    rising = (bins_hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins_hz) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0)
    empty = (filters.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"mel band {empty[0]} ({edges[empty[0]]:.0f}-{edges[empty[0] + 2]:.0f} Hz) of n_mels={n_mels} holds no bin "
            f"of an n_fft={n_fft} at {sample_rate} Hz; lower n_mels or raise n_fft"
        )
    return filters


def log_mel(waveform: Tensor, window: Tensor, filters: Tensor, hop_length: int) -> Tensor:
    """Log-mel spectrogram of a waveform, in the waveform's precision.

    Args:
        waveform: shape ``(..., samples)``, full scale at +-1.
        window: analysis window of shape ``(window_length,)``.
        filters: mel filters of shape ``(n_mels, n_fft // 2 + 1)``.
        hop_length: samples from one frame to the next.

    Returns:
        Shape ``(..., time, mel)`` with ``samples // hop_length`` frames; natural log of power.

    Example:
        >>> filters = mel_filters(16000, 512, 64, 60.0, 7800.0)
        >>> silence = torch.zeros(16000, dtype=torch.float64)
        >>> spectrogram = log_mel(silence, torch.hann_window(400, dtype=torch.float64), filters, 160)
        >>> spectrogram.shape, round(spectrogram[0, 0].item(), 2)
        (torch.Size([100, 64]), -11.51)
    """
    # Whole batches of spectra would leave the processor's cache between the steps, which then take twice as long.
    if waveform.dim() > 1 and waveform.device.type == "cpu" and not torch.compiler.is_compiling():
        parts = waveform.split(CLIPS_IN_CACHE)
        return torch.cat([_log_mel(part, window, filters, hop_length) for part in parts])
    return _log_mel(waveform, window, filters, hop_length)


def _log_mel(waveform: Tensor, window: Tensor, filters: Tensor, hop_length: int) -> Tensor:
    n_frames, n_fft = waveform.shape[-1] // hop_length, 2 * (filters.shape[-1] - 1)
    needed = (n_frames - 1) * hop_length + n_fft
    padded = F.pad(waveform, (0, max(0, needed - waveform.shape[-1])))
    frames = padded[..., : max(needed, 0)].unfold(-1, n_fft, hop_length)
    spectrum = torch.fft.rfft(frames * F.pad(window, (0, n_fft - len(window))))
    squares = torch.view_as_real(spectrum).square()
    if filters.numel() > LARGE_FILTERS:
        return (squares.sum(-1) @ filters.T + LOG_OFFSET).log()
    # Real and imaginary parts are side by side: the filters of each bin add them up to its power.
    return (squares.flatten(-2) @ filters.repeat_interleave(2, dim=1).T + LOG_OFFSET).log()


class LogMel(Frontend):
    """Waveform to log-mel spectrogram, on the waveform's device, batched.

    Args:
        sample_rate: of the waveforms it will be given, in Hz.
        window_ms: length of the periodic Hann window.
        hop_ms: time from one frame to the next.
        n_fft: FFT length in samples, at least the window's.
        n_mels: number of mel bands.
        f_min: lower edge of the first band, in Hz.
        f_max: upper edge of the last band, in Hz, at most half the sample rate.

    Attributes:
        hop_length: hop in samples.
        frame_rate: frames per second, in Hz.
        settings: the arguments it was made with.

    Raises:
        ValueError: if the settings contradict each other; the message names them.

    Source:
        Frontend of Riad et al. 2022, Appendix A.2; filters as in HTK.

    Example:
        >>> frontend = LogMel()
        >>> frontend(torch.zeros(4, 16000)).shape
        torch.Size([4, 1, 100, 64])
        >>> frontend.frame_rate
        100.0
    """

    name = "log_mel"
    window: Tensor
    filters: Tensor
    hop_length: int
    n_mels: int
    frame_rate: float

    def __init__(
        self,
        sample_rate: SampleRate = 16000,
        window_ms: Positive = 25.0,
        hop_ms: Positive = 10.0,
        n_fft: FFTLength = 512,
        n_mels: Bands = 64,
        f_min: Frequency = 60.0,
        f_max: Positive = 7800.0,
    ):
        super().__init__()
        self.settings = plain(locals())
        window_length, hop_length = round(sample_rate * window_ms / 1000), round(sample_rate * hop_ms / 1000)
        if hop_length < 1:
            raise ValueError(f"hop_ms={hop_ms} is shorter than one sample at sample_rate={sample_rate}")
        if not 1 <= window_length <= n_fft:
            raise ValueError(
                f"window_ms={window_ms} is {window_length} samples at sample_rate={sample_rate}, "
                f"which must lie between 1 and n_fft={n_fft}; raise n_fft"
            )
        self.sample_rate, self.hop_length, self.n_mels = sample_rate, hop_length, n_mels
        self.frame_rate, self.looks_ahead = sample_rate / hop_length, n_fft
        dtype = torch.get_default_dtype()
        filters = mel_filters(sample_rate, n_fft, n_mels, f_min, f_max)
        self.register_buffer("window", torch.hann_window(window_length, dtype=dtype), persistent=False)
        self.register_buffer("filters", filters.to(dtype), persistent=False)

    @property
    def centre(self) -> float:
        return len(self.window) / 2

    @property
    def window_samples(self) -> int:
        """Length of the window, in samples."""
        return len(self.window)

    def forward(self, waveform: Tensor) -> Tensor:
        """Turn ``(batch, samples)`` into ``(batch, 1, time, mel)``; ``(samples,)`` into ``(1, time, mel)``.

        Raises:
            ValueError: if the waveform is shorter than one hop.
        """
        return log_mel_map(waveform, self.window, self.filters, self.hop_length)


def log_mel_map(waveform: Tensor, window: Tensor, filters: Tensor, hop_length: int) -> Tensor:
    """`log_mel` as a map of one channel, ``(..., 1, time, mel)``, computed in 32 bits at least.

    Raises:
        ValueError: if the waveform is shorter than one hop.
    """
    if waveform.shape[-1] < hop_length:
        raise ValueError(f"a waveform of {waveform.shape[-1]} samples is shorter than one hop of {hop_length}")
    with torch.autocast(waveform.device.type, enabled=False):  # the logarithm needs more than 8 bits of power
        if window.dtype not in (torch.float16, torch.bfloat16):
            return log_mel(waveform, window, filters, hop_length).unsqueeze(-3)
        wide = log_mel(waveform.float(), window.float(), filters.float(), hop_length)
        return wide.to(window.dtype).unsqueeze(-3)
