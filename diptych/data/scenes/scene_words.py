"""Write captions of scenes: what they show in varying words, among sentences that do not describe it."""

from collections.abc import Sequence

import numpy as np

from diptych.data.scenes.scene_images import INVERSE, Scene, Thing

# The first word of each row is the plain one, and as likely as the others together.
SYNONYMS = {
    "circle": ("circle", "disc", "dot"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle",),
    "cross": ("cross", "plus sign"),
    "star": ("star",),
    "ring": ("ring", "hoop"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
OPENINGS = ("", "", "", "a picture of ", "here is ", "we see ", "a drawing with ")

# Sentences that appear beside images on the web; `{}` is a name, `#` a number, `~` "bright" or "dark", as the image is.
DISTRACTORS = (
    "the picture is ~.",
    "photo by {}.",
    "drawn by {} in #.",
    "from the collection of {}.",
    "click to enlarge.",
    "number # of the series.",
    "free download, no sign up.",
    "shared # times this week.",
    "for sale, ask {} for the price.",
    "a gift from {}.",
    "all rights reserved.",
    "see page # of the catalogue.",
    "my favourite one so far.",
    "what do you think, {}?",
    "taken on a rainy day.",
    "size # by # pixels.",
    "file # of the archive.",
    "made with love for {}.",
    "please do not copy.",
    "the original hangs in the hall.",
    "first shown in #.",
    "thanks to {} and {} for their help.",
    "part # of the lesson for children.",
    "more like this on the next page.",
)
NAMES = ("anna", "ben", "carla", "david", "emma", "farid", "grace", "hugo", "iris", "jonas", "kim", "lena")


def plain_caption(scene: Scene) -> str:
    """Describe the scene in the plainest words, without sizes: "a red circle left of a blue square"."""
    words = [f"a {thing.colour} {thing.shape}" for thing in scene.things]
    # "an orange star": articles follow the sound.
    words = [f"an{each[1:]}" if each[2] in "aeiou" else each for each in words]
    return f" {scene.relation} ".join(words)


def caption(scene: Scene, random: np.random.Generator, distractors: int) -> str:
    """Describe the scene in random words, among `distractors` sentences that do not describe it."""
    nouns = [_noun(thing, random) for thing in scene.things]
    relation = scene.relation
    if relation and random.random() < 0.5:
        nouns, relation = nouns[::-1], INVERSE[relation]
    said = f" {_word(relation, random)} ".join(nouns) if relation else nouns[0]
    sentences = [f"{OPENINGS[int(random.integers(len(OPENINGS)))]}{said}"]
    for _ in range(distractors):
        place = int(random.integers(len(sentences) + 1))
        sentences.insert(place, _distractor(scene, random))
    # The scene's own sentence ends with a full stop only if another follows.
    return " ".join(
        each if each[-1] in ".?" or number == len(sentences) - 1 else f"{each}."
        for number, each in enumerate(sentences)
    )


def _noun(thing: Thing, random: np.random.Generator) -> str:
    size = f"{thing.size} " if random.random() < 0.4 else ""
    words = f"{size}{thing.colour} {_word(thing.shape, random)}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _word(plain: str, random: np.random.Generator) -> str:
    words: Sequence[str] = SYNONYMS[plain]
    if len(words) == 1 or random.random() < 0.5:
        return plain
    return words[1 + int(random.integers(len(words) - 1))]


def _distractor(scene: Scene, random: np.random.Generator) -> str:
    text = DISTRACTORS[int(random.integers(len(DISTRACTORS)))]
    text = text.replace("~", "bright" if scene.is_bright else "dark")
    while "{}" in text:
        text = text.replace("{}", NAMES[int(random.integers(len(NAMES)))], 1)
    while "#" in text:
        text = text.replace("#", str(int(random.integers(2, 2000))), 1)
    return text
