"""Spectrograms against the definition, WAV files there and back, and scenes that can be told by ear."""

import io
import wave
from functools import partial

import numpy as np
import pytest

from diptych.data.example import Example
from diptych.data.images.augmentations import CentreCrop
from diptych.data.images.canvas import canvas_for
from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Loader
from diptych.data.scenes.scene_images import SHAPES
from diptych.data.scenes.scene_sounds import RATE
from diptych.data.scenes.sounds import hear_example, log_mel, read_wav, wav_bytes
from diptych.data.sources.opening import open_source
from diptych.errors import DataError
from diptych.tokenizer import tokenize

TONE = np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)


def test_wav_files_come_back_within_a_step_of_16_bits() -> None:
    samples, rate = read_wav(wav_bytes(0.5 * TONE, 8000), "x")
    assert rate == 8000
    np.testing.assert_allclose(samples, 0.5 * TONE, atol=1.6 / 32768)


def test_channels_are_averaged_and_other_files_refused() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(100)
        out.writeframes(np.array([[100, 300], [-200, 0]], "<i2").tobytes())
    np.testing.assert_allclose(read_wav(file.getvalue(), "x")[0] * 32768, [200, -100])
    with pytest.raises(DataError, match=r"a/b: the sound is not a WAV file"):
        read_wav(b"nothing", "a/b")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(100)
        out.writeframes(b"12")
    with pytest.raises(DataError, match="8 bits per sample"):
        read_wav(file.getvalue(), "x")


def test_a_full_tone_has_its_power_in_the_band_of_its_pitch() -> None:
    found = log_mel(TONE, 8000, 20, 16)
    assert found.shape == (20, 16)
    assert found.dtype == np.float32
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 18) / 2595) - 1)
    centres = edges[1:-1]
    assert found[5].argmax() == abs(centres - 1000).argmin()
    # Power 1 through a triangle of height up to 1, over a floor of 1e-4.
    assert 0.7 * np.log(1e4) < found[5].max() < np.log(2e4)
    quieter = log_mel(0.1 * TONE, 8000, 20, 16)
    assert found[5].max() - quieter[5].max() == pytest.approx(np.log(100), rel=0.05)


def test_a_spectrogram_equals_the_sum_over_each_frame() -> None:
    random = np.random.default_rng(0).normal(0, 0.1, 600)
    window, hop = 256, 128
    found = np.expm1(log_mel(random, 8000, 3, 8).astype(float)) * 1e-4
    for frame in range(3):
        part = np.zeros(window)
        part[:] = random[frame * hop : frame * hop + window]
        part = part * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1)))
        power = [
            abs(sum(part * np.exp(-2j * np.pi * k * np.arange(window) / window))) ** 2 / 64**2
            for k in range(window // 2 + 1)
        ]
        edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 10) / 2595) - 1)
        for band in range(8):
            low, middle, high = edges[band : band + 3]
            total = 0.0
            for k, each in enumerate(power):
                hertz = k * 8000 / window
                total += each * max(
                    0, min(1, (hertz - low) / (middle - low), (high - hertz) / (high - middle))
                )
            assert found[frame, band] == pytest.approx(total, rel=1e-4, abs=1e-9)


def test_silence_and_what_follows_a_short_sound_is_zero() -> None:
    assert not log_mel(np.zeros(4000), 8000, 10, 8).any()
    found = log_mel(TONE[:300], 8000, 10, 8)
    assert found[0].any()
    assert not found[4:].any()


def test_scenes_sound_only_where_asked_and_the_same_again() -> None:
    silent, one = open_source("scenes:train?count=8"), open_source("scenes:train?count=8&sound=1")
    assert silent[3].sound is None
    assert one[3].sound == open_source("scenes:train?sound=1")[3].sound
    assert (one[3].image, one[3].captions) == (silent[3].image, silent[3].captions)
    assert silent.fingerprint != one.fingerprint
    with pytest.raises(DataError, match="has no sound"):
        hear_example(silent[0], 8, 8)


def test_pitch_is_shape_and_a_second_thing_comes_after_the_first() -> None:
    source = open_source("scenes:classes-test?count=48&sound=1&side=16")
    pitch: dict[str, list[float]] = {}
    for number in range(48):
        example = source[number]
        samples, rate = read_wav(example.sound or b"", "x")
        spectrum = abs(np.fft.rfft(samples))
        lowest = np.flatnonzero(spectrum > 0.2 * spectrum.max())[0] * rate / len(samples)
        pitch.setdefault(example.metadata["shape"], []).append(lowest)
    means = [np.mean(pitch[shape]) for shape in SHAPES]
    assert means == sorted(means)
    train = open_source("scenes:train?count=4&sound=1&side=16")
    lengths = [len(read_wav(train[number].sound or b"", "x")[0]) / RATE for number in range(4)]
    assert lengths == pytest.approx([0.24, 0.48, 0.24, 0.48])


def test_the_loader_hears_what_the_example_sounds_like() -> None:
    source = open_source("scenes:train?count=8&sound=1")
    loader = Loader(
        source=source,
        canvas=canvas_for(CentreCrop(), Preprocess(32)),
        tokenize=lambda texts: tokenize(texts, context_length=16, truncate=True),
        batch_size=4,
        seed=0,
        weights=np.ones(8),
        hear=partial(hear_example, frames=12, bands=10),
        workers=0,
    )
    batch = next(loader.batches(0))
    assert batch.sounds is not None
    assert batch.sounds.shape == (4, 12, 10)
    for row, sound in zip(batch.rows.tolist(), batch.sounds, strict=True):
        np.testing.assert_array_equal(sound.numpy(), hear_example(source[row], 12, 10))
    mute = Example("x", b"")
    with pytest.raises(DataError, match="x: has no sound"):
        hear_example(mute, 3, 3)
