"""Turn 16-bit WAV files into log-mel spectrograms."""

import functools
import io
import math
import wave

import numpy as np
import numpy.typing as npt

from diptych.data.example import Example
from diptych.errors import DataError

Samples = npt.NDArray[np.float64]

_WINDOW = 0.032  # seconds of a frame; frames overlap by half
_FLOOR = 1e-4  # the power that counts as silence: -40 dB of a full-scale tone


def wav_bytes(samples: Samples, rate: int) -> bytes:
    """Write one channel of samples in -1..1 as a 16-bit WAV file. rate: samples per second."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def read_wav(data: bytes, where: str) -> tuple[Samples, int]:
    """Read a 16-bit WAV file: its samples in -1..1, channels averaged, and the samples per second.

    Raises:
        DataError: it is not such a file; `where` names it.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{where}: the sound is not a WAV file ({error}); save it as 16-bit WAV") from None
    if width != 2:
        raise DataError(f"{where}: the sound has {8 * width} bits per sample; save it as 16-bit WAV")
    whole = np.frombuffer(frames[: len(frames) - len(frames) % (2 * channels)], "<i2")
    return whole.reshape(-1, channels).mean(axis=1) / 32768, rate


def log_mel(samples: Samples, rate: int, frames: int, bands: int) -> npt.NDArray[np.float32]:
    """Compute the logarithmic power of each mel band in each frame, (frames, bands); 0 is silence.

    A sound is cut, or padded with silence, to that many frames.
    """
    window = max(2, round(_WINDOW * rate))
    hop = window // 2
    needed = (frames - 1) * hop + window
    padded = np.zeros(needed)
    padded[: min(needed, len(samples))] = samples[:needed]
    parts = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    spectrum = np.fft.rfft(parts * np.hanning(window), axis=1)
    power = np.abs(spectrum) ** 2 / (window / 4) ** 2  # 1 for a full-scale tone
    return np.log1p(power @ _filters(rate, window, bands) / _FLOOR).astype(np.float32)


def hear_example(example: Example, frames: int, bands: int) -> npt.NDArray[np.float32]:
    """Return `log_mel` of an example's sound. Raises DataError if it has none."""
    if example.sound is None:
        raise DataError(f"{example.key}: has no sound; expected a 16-bit WAV file")
    return log_mel(*read_wav(example.sound, example.key), frames, bands)


@functools.cache
def _filters(rate: int, window: int, bands: int) -> Samples:
    """Return triangular filters on the mel scale (O'Shaughnessy 1987): (window // 2 + 1, bands)."""
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(window, 1 / rate)[:, None]
    # At low pitches a triangle would be narrower than the step of the spectrum: each is at least one step wide.
    step = rate / window
    rising = (frequency - edges[:-2]) / np.maximum(np.diff(edges)[:-1], step)
    falling = (edges[2:] - frequency) / np.maximum(np.diff(edges)[1:], step)
    triangles: Samples = np.minimum(rising, falling).clip(0, 1)
    return triangles
