"""Synthesise the sounds of scenes: the shape of a thing sets the pitch of its tone, the colour sets the timbre."""

import numpy as np

from diptych.data.scenes.scene_images import COLOURS, SHAPES, Scene, Thing
from diptych.data.scenes.sounds import Samples, wav_bytes

RATE = 8000  # samples a second
SECONDS = 0.24  # of a thing's tone

_LOWEST, _STEP = 220.0, 2 ** (4 / 12)  # hertz; four semitones between shapes
# Strengths of a tone's overtones, from its own pitch on.
_TIMBRES = (
    (1.0,),
    (1.0, 0.0, 0.6),
    (1.0, 0.7),
    (0.4, 1.0),
    (1.0, 0.0, 0.0, 0.7),
    (0.6, 0.6, 0.6, 0.6),
    (1.0, 0.5, 0.3, 0.2, 0.15),
    (0.3, 0.0, 1.0),
)


def sound(scene: Scene, random: np.random.Generator) -> bytes:
    """Return the tones of the scene's things one after the other, as a WAV file; slightly detuned and noisy."""
    tones = [_tone(thing, random) for thing in scene.things]
    together = np.concatenate(tones)
    return wav_bytes(together + random.normal(0, 0.01, len(together)), RATE)


def _tone(thing: Thing, random: np.random.Generator) -> Samples:
    pitch = _LOWEST * _STEP ** SHAPES.index(thing.shape) * 2 ** random.uniform(-0.5 / 12, 0.5 / 12)
    strengths = _TIMBRES[list(COLOURS).index(thing.colour)]
    seconds = np.arange(round(SECONDS * RATE)) / RATE
    tone = np.zeros(len(seconds))
    for number, strength in enumerate(strengths, 1):
        phase = random.uniform(0, 2 * np.pi)
        tone += strength * np.sin(2 * np.pi * number * pitch * seconds + phase)
    # Ten milliseconds to rise and to fall, because a tone that starts or stops abruptly clicks.
    edge = np.minimum(1, np.minimum(seconds, seconds[::-1]) / 0.01)
    whole: Samples = random.uniform(0.3, 0.6) * edge * tone / sum(strengths)
    return whole
