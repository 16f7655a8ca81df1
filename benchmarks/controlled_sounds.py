"""Two families of sounds whose classes a log-mel of 10 ms, 64 bands and a window of 25 ms cannot hold.

`modulated_noise` needs finer time: its classes differ in a modulation of 63 to 200 Hz, above the 50 Hz of 100 frames a
second. `partials` needs finer frequency: its classes are 8 Hz apart, a fifth of a mel band. `true_class` names the
class from the whole waveform, so neither family is hard as such.
"""

import numpy as np

SAMPLE_RATE = 16000
MODULATIONS_HZ = (66.0, 87.0, 114.0, 150.0, 190.0)
PARTIALS_HZ = (400.0, 408.0, 416.0, 424.0, 432.0)
FAMILIES = {"modulated noise": MODULATIONS_HZ, "partials": PARTIALS_HZ}


def modulated_noise(rate_hz: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """White noise whose amplitude is modulated by 30 to 60 %; float64 ``(clips, 16000)``, an RMS near 0.1."""
    depth, phase = random.uniform(0.3, 0.6, (len(rate_hz), 1)), random.uniform(0, 2 * np.pi, (len(rate_hz), 1))
    gain = 1 + depth * np.sin(2 * np.pi * rate_hz[:, None] * np.arange(SAMPLE_RATE) / SAMPLE_RATE + phase)
    return 0.1 * gain * random.standard_normal((len(rate_hz), SAMPLE_RATE))


def partials(frequency_hz: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """A sine 21 to 25 dB below white noise; float64 ``(clips, 16000)``, an RMS near 0.1."""
    level, phase = (
        random.uniform(-25, -21, (len(frequency_hz), 1)),
        random.uniform(0, 2 * np.pi, (len(frequency_hz), 1)),
    )
    sine = np.sin(2 * np.pi * frequency_hz[:, None] * np.arange(SAMPLE_RATE) / SAMPLE_RATE + phase)
    return 0.1 * (random.standard_normal((len(frequency_hz), SAMPLE_RATE)) + np.sqrt(2) * 10 ** (level / 20) * sine)


def make_family(family: str, n_clips: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clips of one second, int16 ``(clips, 16000)``, and their class numbers; all classes are equally frequent.

    Modulations vary by 5 % around those of their class, partials by 1.5 Hz.
    """
    random = np.random.RandomState(seed)
    labels = np.arange(n_clips) % 5
    centre, aside = np.array(FAMILIES[family])[labels], random.uniform(-1, 1, n_clips)
    if family == "partials":
        make, values = partials, centre + 1.5 * aside
    else:
        make, values = modulated_noise, centre * (1 + 0.05 * aside)
    waveforms = np.empty((n_clips, SAMPLE_RATE), np.int16)
    for first in range(0, n_clips, 100):
        sound = make(values[first : first + 100], random)
        waveforms[first : first + 100] = np.clip(np.rint(sound * 32768), -32768, 32767)
    return waveforms, labels


def true_class(family: str, waveforms: np.ndarray) -> np.ndarray:
    """Class of each clip by the peak of one long FFT, of the waveform or of its square (its envelope)."""
    sound = waveforms / 32768.0
    spectrum = np.abs(np.fft.rfft(sound if family == "partials" else sound**2, 2 * SAMPLE_RATE))  # bins of 0.5 Hz
    centres = np.array(FAMILIES[family])
    low, high = (round(2 * edge) for edge in ((396, 436) if family == "partials" else (60, 210)))
    peak_hz = (low + spectrum[:, low : high + 1].argmax(1)) / 2
    return np.abs(np.log(peak_hz[:, None] / centres)).argmin(1)
