"""Scenes: the same for everybody, drawn as they are described, and without the held-out combinations in training."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from diptych.data.scenes.scene_images import (
    CLASSES,
    COLOURS,
    INVERSE,
    RELATIONS,
    SEEN,
    SHAPES,
    UNSEEN,
    Thing,
    coverage,
    pair_scene,
)
from diptych.data.scenes.scene_source import PARTS, open_scenes
from diptych.data.scenes.scene_words import DISTRACTORS, SYNONYMS, caption, plain_caption
from diptych.data.sources.opening import open_source
from diptych.errors import DataError, SettingsError

COMBINATIONS = {f"{colour} {shape}" for colour, shape in UNSEEN}


def pixels(image: object) -> np.ndarray:
    assert isinstance(image, bytes)
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(float)


def test_a_scene_is_a_function_of_part_seed_and_number() -> None:
    one, again = (open_source("scenes:train?count=40&seed=3") for _ in range(2))
    assert [one[number] for number in range(40)] == [again[number] for number in reversed(range(40))][::-1]
    assert one.fingerprint == again.fingerprint
    longer, other, test = (
        open_source(f"scenes:{name}") for name in ("train?seed=3", "train?seed=4", "test?seed=3")
    )
    assert longer[7] == one[7]
    assert len({longer[7].image, other[7].image, test[7].image}) == 3
    assert len({source.fingerprint for source in (one, longer, other, test)}) == 4
    # These words are what the first version drew; who changes them changes `_VERSION`, and every result with them.
    assert one[0].captions == open_source("scenes:train?seed=3")[0].captions
    assert [open_source("scenes:train")[number].captions[0] for number in range(2)] == [
        "see page 621 of the catalogue. a small purple hoop",
        "a green triangle right of a pink circle. drawn by lena in 272.",
    ]


def test_size_and_distractors_change_no_scene() -> None:
    small, large = open_source("scenes:test?side=16&distractors=0"), open_source("scenes:test?side=128")
    for number in range(6):
        one, other = small[number], large[number]
        assert one.metadata == other.metadata
        assert pixels(one.image).shape == (16, 16, 3)
        mean, other_mean = (pixels(each.image).mean(axis=(0, 1)) for each in (one, other))
        np.testing.assert_allclose(mean, other_mean, atol=4)


def test_training_scenes_and_captions_never_have_an_unseen_combination() -> None:
    assert len(UNSEEN) == 8
    assert {colour for colour, _ in UNSEEN} == set(COLOURS)
    assert {shape for _, shape in UNSEEN} == set(SHAPES)
    for part in ("train", "test", "binding"):
        source = open_scenes(f"{part}?count=400&side=16")
        found = Counter(thing for number in range(400) for thing in source[number].metadata["things"])
        assert not COMBINATIONS & set(found)
        assert len(found) == len(SEEN)


def test_classes_are_even_and_say_whether_training_has_them() -> None:
    source = open_scenes("classes-test?count=96&side=16")
    examples = [source[number] for number in range(96)]
    assert set(Counter(example.label for example in examples).values()) == {2}
    assert len({example.label for example in examples}) == len(CLASSES)
    unseen = {example.label for example in examples if example.metadata["combination"] == "unseen"}
    assert unseen == COMBINATIONS


def test_a_thing_covers_the_area_of_its_shape_about_its_centre() -> None:
    areas = {
        "circle": np.pi * 0.8,
        "ring": np.pi * 0.6,
        "square": 1.5**2,
        "cross": 2 * 1.9 * 0.54 - 0.54**2,
        "triangle": 1.6**2 / np.sqrt(3),
        "star": 10 * 0.5 * 1.05 * 0.42 * np.sin(np.pi / 5),
    }
    for shape in SHAPES:
        thing = Thing("red", shape, "large", (0.45, 0.55), 0.3, 0.2)
        cover = coverage(thing, 64)
        assert cover.mean() == pytest.approx(areas[shape] * 0.09, rel=0.03), shape
        rows, columns = np.indices(cover.shape)
        centre = [float((where * cover).sum() / cover.sum() + 0.5) / 64 for where in (columns, rows)]
        assert centre == pytest.approx([0.45, 0.55], abs=0.035), shape


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_first_thing_stands_in_the_relation_to_the_second(relation: str) -> None:
    for seed in range(20):
        scene = pair_scene(np.random.default_rng(seed), (("red", "star"), ("blue", "ring")), relation)
        (x, y), (x2, y2) = (thing.centre for thing in scene.things)
        apart = {"left of": x2 - x, "right of": x - x2, "above": y2 - y, "below": y - y2}[relation]
        across = abs(y2 - y) if relation in ("left of", "right of") else abs(x2 - x)
        assert apart > 0.4
        assert across < 0.15
        # They touch neither each other nor the edge.
        assert apart > sum(thing.radius for thing in scene.things) - 0.02
        assert all(c - t.radius >= 0 and c + t.radius <= 1 for t in scene.things for c in t.centre)


def test_captions_say_what_is_there_either_way_round_among_distractors() -> None:
    scene = pair_scene(np.random.default_rng(0), (("red", "circle"), ("orange", "square")), "above")
    assert plain_caption(scene) == "a red circle above an orange square"
    said = [caption(scene, np.random.default_rng(seed), 0) for seed in range(200)]
    words = {synonym for name in ("circle", "square") for synonym in SYNONYMS[name]}
    for text in said:
        first_is_circle = text.index("red") < text.index("orange")
        relation = "above" if first_is_circle else INVERSE["above"]
        assert any(f" {synonym} a" in text for synonym in SYNONYMS[relation]), text
        assert sum(f" {word}" in text for word in words) == 2
    assert len(set(said)) > 100
    noisy = [caption(scene, np.random.default_rng(seed), 3) for seed in range(200)]
    assert all(text.count(".") + text.count("?") >= 3 for text in noisy)
    heard = {text.split("{")[0].split("#")[0].split("~")[0] for text in DISTRACTORS}
    assert all(any(start in text for text in noisy) for start in heard)
    assert not any("{" in text or "#" in text or "~" in text for text in noisy)


def test_binding_captions_have_the_same_words_and_only_one_is_true() -> None:
    source = open_scenes("binding?count=200&side=16")
    kinds: Counter[str] = Counter()
    for number in range(200):
        example = source[number]
        (right,), wrong = example.captions, example.metadata["foil"]
        assert right != wrong
        # "a" and "an" follow the sound of the next word.
        assert Counter(right.replace("an ", "a ").split()) == Counter(wrong.replace("an ", "a ").split())
        assert not any(unseen in wrong for unseen in COMBINATIONS)
        assert set(example.metadata["things"]) <= {" ".join(each) for each in SEEN}
        kinds[example.metadata["exchange"]] += 1
    assert kinds == {"colours": 100, "things": 100}


def test_classes_can_be_told_from_their_pixels() -> None:
    """The colour, by the mean of what is drawn: the nearest of the eight colours is the named one."""
    source = open_scenes("classes-test?count=96&side=64")
    table = np.array(list(COLOURS.values()))
    right = 0
    for number in range(96):
        example = source[number]
        flat = pixels(example.image).reshape(-1, 3)
        far = abs(flat - flat[:1]).sum(axis=1)
        shown = flat[far > np.quantile(far, 0.97)].mean(axis=0)
        nearest = list(COLOURS)[int(((table - shown) ** 2).sum(axis=1).argmin())]
        right += nearest == example.metadata["colour"]
    assert right >= 90


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scenes:trian", "unknown part of the scenes; expected one of train, test"),
        ("scenes:train?cuont=5", "unknown option 'cuont'; expected one of count, side"),
        ("scenes:train?side=8", "side = '8'; expected a whole number, 16 to 256"),
        ("scenes:train?count=-1", "count = '-1'"),
        ("scenes:train?count=", "count = ''"),
    ],
)
def test_a_wrong_name_says_what_there_is(name: str, said: str) -> None:
    with pytest.raises(DataError) as found:
        open_source(name)
    assert said in str(found.value)


def test_scenes_have_ends_and_no_columns() -> None:
    source = open_source("scenes:binding?count=3")
    assert len(source) == 3
    for beyond in (3, -1):
        with pytest.raises(IndexError):
            source[beyond]
    with pytest.raises(SettingsError, match="columns"):
        open_source("scenes:train", caption_column="text")
    assert "20,000 drawn scenes of 32 x 32" in open_source("scenes:train").describe()
    assert all(len(open_scenes(part)) == count for part, count in PARTS.items())
    assert len({source[number].image for number in range(3)}) == 3
