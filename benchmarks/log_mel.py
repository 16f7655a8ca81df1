"""Log-mel of a batch of one-second clips: ours, a plain torch.stft, torchaudio, nnAudio and librosa.

    pip install nnAudio; python benchmarks/log_mel.py [--clips 256] [--repeats 15] [--out log_mel.csv]

All with 25 ms windows every 10 ms, an FFT of 512 and 64 HTK bands without norm; the others at their own
framing (centred or not costs the same). They run in turn; the table shows medians. A library that is not
installed is left out, and the table says so.
"""

import argparse
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from timing import interleaved, publish
from torch import Tensor

from audiostride.models.log_mel import LogMel

BANDS = {"sample_rate": 16000, "n_fft": 512, "hop_length": 160, "n_mels": 64, "f_min": 60.0, "f_max": 7800.0}


def ours() -> Callable[[Tensor], Tensor]:
    return LogMel()


def plain_stft() -> Callable[[Tensor], Tensor]:
    frontend = LogMel()

    def form(x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 512, 160, 400, frontend.window, center=False, return_complex=True)
        return (frontend.filters @ spectrum.abs().square() + 1e-5).log()

    return form


def torchaudio() -> Callable[[Tensor], Tensor]:
    # Its compiled part, which may not load beside this torch, takes no part in a spectrogram.
    extension = types.ModuleType("torchaudio._extension")
    extension.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=lambda f: f,
        _check_cuda_version=lambda: None,
    )
    sys.modules.setdefault("torchaudio._extension", extension)
    from torchaudio.transforms import MelSpectrogram

    mel = MelSpectrogram(win_length=400, center=False, **BANDS)
    return lambda x: (mel(x) + 1e-5).log()


def nnaudio() -> Callable[[Tensor], Tensor]:
    from nnAudio.features import MelSpectrogram

    mel = MelSpectrogram(
        sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=64, fmin=60, fmax=7800, htk=True, norm=None,
        center=False, verbose=False,
    )  # fmt: skip
    return lambda x: (mel(x) + 1e-5).log()


def librosa() -> Callable[[Tensor], Tensor]:
    import numpy as np
    from librosa.feature import melspectrogram

    def form(x: Tensor) -> Tensor:
        power = melspectrogram(
            y=x.numpy(), sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=64, fmin=60, fmax=7800, htk=True,
            norm=None, center=False,
        )  # fmt: skip
        return torch.from_numpy(np.log(power + 1e-5))

    return form


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("log_mel.csv"))
    args = parser.parse_args()
    x = 0.1 * torch.randn(args.clips, 16000)
    forms: dict[str, Callable[[], object]] = {}
    for make in (ours, plain_stft, torchaudio, nnaudio, librosa):
        try:
            form = make()
        except ImportError as error:
            print(f"{make.__name__} is left out: {error}")
            continue
        forms[make.__name__] = lambda form=form: form(x)  # type: ignore[misc]
    with torch.inference_mode():
        times = interleaved(forms, args.repeats, pause_s=0.5)
    fastest = min(value for name, value in times.items() if name not in ("ours", "plain_stft"))
    publish(
        [
            {"log-mel": name, "ms": f"{ms:.1f}", "time / fastest other library": f"{ms / fastest:.2f}"}
            for name, ms in times.items()
        ],
        args.out,
    )


if __name__ == "__main__":
    main()
