"""A procedural dataset of scenes: coloured shapes and their relations, with captions, in any number.

`scenes:PART` opens a part, and `scenes:PART?count=5000&side=64` with options:

    count        the number of scenes
    side         pixels of an image's side, 16 to 256; default 32
    distractors  sentences of a caption that do not describe the image, 0 to 8; default 1
    seed         another seed gives another set; default 0
    sound        1: each scene also has a sound, one tone per thing: its shape sets the pitch, its colour the timbre

The parts, whose scenes are all different:

    train          for pre-training: half the scenes have one thing, half have two and a relation. 8 of the 48
                   combinations of a colour and a shape never occur
    test           the same for evaluation: other scenes, without the 8 combinations
    classes-train  single things, labelled with one of the 48 combinations, each equally often
    classes-test   likewise; `combination` in the metadata says whether train has it ("seen", "unseen")
    binding        two things each, with a true caption and, as `foil` in the metadata, a wrong one of the same words:
                   the colours exchanged, or the things (`exchange`). A model that ignores word order cannot
                   distinguish them

A scene is a function of the part, the seed and its number.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from urllib.parse import parse_qsl

import numpy as np

from diptych.data.example import Example
from diptych.data.scenes.scene_images import (
    CLASSES,
    RELATIONS,
    SEEN,
    UNSEEN,
    Scene,
    draw,
    pair_scene,
    single_scene,
)
from diptych.data.scenes.scene_sounds import sound
from diptych.data.scenes.scene_words import caption, plain_caption
from diptych.errors import DataError

# The default number of scenes of each part. The index of a part in this table is part of the seed of its scenes.
PARTS = {"train": 20_000, "test": 2_000, "classes-train": 4_800, "classes-test": 2_400, "binding": 2_000}
_LIMITS = {
    "count": (1, 100_000_000),
    "side": (16, 256),
    "distractors": (0, 8),
    "seed": (0, (1 << 32) - 1),
    "sound": (0, 1),
}
_VERSION = 1  # of the scenes: to be raised with anything that changes an image or a caption


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """The options after the part in the name of a source."""

    count: int
    side: int = 32  # pixels
    distractors: int = 1  # sentences per caption
    seed: int = 0
    sound: int = 0  # whether scenes have one


class SceneSource:
    """The scenes of one part, drawn when they are read."""

    def __init__(self, part: str, options: SceneOptions) -> None:
        self._part = part
        self._options = options
        usual = SceneOptions(count=PARTS[part])
        values = {field.name: getattr(options, field.name) for field in fields(options)}
        said = "&".join(f"{name}={value}" for name, value in values.items() if value != getattr(usual, name))
        self.name = f"scenes:{part}" + (f"?{said}" if said else "")

    @property
    def fingerprint(self) -> str:
        """Hash the part, its options and the version of the generator."""
        return hashlib.sha256(f"{self._part} {self._options} {_VERSION}".encode()).hexdigest()

    def __len__(self) -> int:
        return self._options.count

    def __getitem__(self, position: int, /) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        scene, foil = self._scene(position)
        # The caption and the noise of the image have random streams of their own, so that a scene shows the same with
        # more distractors or more pixels.
        words = caption(scene, self._random(position, 1), self._options.distractors)
        metadata: dict[str, object] = {"things": [" ".join(thing.combination) for thing in scene.things]}
        label = None
        if foil:
            words = plain_caption(scene)
            metadata |= foil
        if self._part.startswith("classes"):
            (thing,) = scene.things
            label = f"{thing.colour} {thing.shape}"
            metadata |= {
                "colour": thing.colour,
                "shape": thing.shape,
                "combination": "unseen" if thing.combination in UNSEEN else "seen",
            }
        return Example(
            key=f"{position:08d}",
            image=draw(scene, self._options.side, self._random(position, 2)),
            captions=(words,),
            label=label,
            metadata=metadata,
            sound=sound(scene, self._random(position, 3)) if self._options.sound else None,
        )

    def describe(self) -> str:
        options = self._options
        return f"{self.name}: {options.count:,} drawn scenes of {options.side} x {options.side} pixels"

    def _random(self, position: int, stream: int) -> np.random.Generator:
        part = list(PARTS).index(self._part)
        return np.random.default_rng((self._options.seed, part, position, stream))

    def _scene(self, position: int) -> tuple[Scene, dict[str, str]]:
        """Return a scene, and for the binding part the metadata of its foil."""
        random = self._random(position, 0)
        if self._part.startswith("classes"):
            return single_scene(random, CLASSES[position % len(CLASSES)]), {}
        if self._part == "binding":
            return _binding(random, position)
        first, second = (SEEN[int(number)] for number in random.integers(len(SEEN), size=2))
        if position % 2:
            return pair_scene(random, (first, second), RELATIONS[int(random.integers(4))]), {}
        return single_scene(random, first), {}


def open_scenes(name: str) -> SceneSource:
    """Open the part that a name gives, with its options: `train?count=5000&side=64`.

    Raises:
        DataError: an unknown part or option, or a value out of its range.
    """
    part, _, said = name.partition("?")
    if part not in PARTS:
        raise DataError(f"scenes:{name}: unknown part of the scenes; expected one of {', '.join(PARTS)}")
    options = SceneOptions(count=PARTS[part])
    for key, value in parse_qsl(said, keep_blank_values=True):
        if key not in _LIMITS:
            raise DataError(f"scenes:{name}: unknown option {key!r}; expected one of {', '.join(_LIMITS)}")
        low, high = _LIMITS[key]
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            raise DataError(f"scenes:{name}: {key} = {value!r}; expected a whole number, {low:,} to {high:,}")
        options = replace(options, **{key: int(value)})
    return SceneSource(part, options)


def _binding(random: np.random.Generator, position: int) -> tuple[Scene, dict[str, str]]:
    """Compose a scene of two things, and a wrong caption of the same words.

    Every combination of both captions occurs in training, so that neither caption is less familiar.
    """
    while True:
        first, second = (SEEN[int(number)] for number in random.integers(len(SEEN), size=2))
        crossed = (second[0], first[1]), (first[0], second[1])
        if first[0] != second[0] and first[1] != second[1] and not UNSEEN & set(crossed):
            break
    relation = RELATIONS[int(random.integers(4))]
    scene = pair_scene(random, (first, second), relation)
    exchange = ("colours", "things")[position % 2]
    wrong = crossed if exchange == "colours" else (second, first)
    things = tuple(
        replace(thing, colour=colour, shape=shape)
        for thing, (colour, shape) in zip(scene.things, wrong, strict=True)
    )
    return scene, {"foil": plain_caption(replace(scene, things=things)), "exchange": exchange}
