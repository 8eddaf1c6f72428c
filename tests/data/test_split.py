"""Two parts that share no image: equal ones, near copies, and groups that a column names."""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.data.images.decoding import read_rgb
from diptych.data.sources.opening import Source, open_source
from diptych.data.subsets.near_copies import near_copies
from diptych.data.subsets.split import Split, split
from diptych.errors import DataError
from tests.data.bursts import scene, write_bursts


def of(source: Source, share: float = 0.25, *, copies: bool = True, group_by: str | None = None) -> Split:
    return split(source, share, label_from="label", copies=copies, group_by=group_by)


def held_names(source: Source, found: Split) -> set[str]:
    return {source[int(row)].key for row in np.flatnonzero(found.held_out)}


def small_images(source: Source) -> np.ndarray:
    pixels = [
        np.asarray(Image.fromarray(read_rgb(source[row].image)).resize((12, 12)), np.float32).ravel()
        for row in range(len(source))
    ]
    return np.stack(pixels)


def nearest_neighbour_accuracy(train: Source, rows: np.ndarray, test: Source, tested: np.ndarray) -> float:
    known, asked = small_images(train)[rows], small_images(test)[tested]
    near = np.square(asked[:, None] - known[None]).sum(axis=2).argmin(axis=1)
    labels = [train[int(row)].label for row in rows]
    return float(
        np.mean(
            [labels[place] == test[int(row)].label for place, row in zip(near.tolist(), tested, strict=True)]
        )
    )


def test_held_out_accuracy_on_bursts_is_that_of_new_images_once_bursts_stay_together(tmp_path: Path) -> None:
    source = open_source(write_bursts(tmp_path / "bursts", classes=4, scenes=12, frames=5))
    fresh = open_source(write_bursts(tmp_path / "fresh", classes=4, scenes=12, frames=1, seed=1))
    everything = np.arange(len(fresh))

    def accuracy(copies: bool) -> float:
        held = of(source, copies=copies).held_out
        return nearest_neighbour_accuracy(source, np.flatnonzero(~held), source, np.flatnonzero(held))

    true = nearest_neighbour_accuracy(source, np.arange(len(source)), fresh, everything)
    assert true < 0.45  # scenes say nothing about the class: a guess is right once in four
    assert accuracy(copies=False) > 0.9
    assert accuracy(copies=True) < 0.5


def test_the_frames_of_a_burst_are_one_group_and_other_scenes_are_not(tmp_path: Path) -> None:
    source = open_source(write_bursts(tmp_path / "bursts", classes=2, scenes=30, frames=4))
    found = of(source, 0.2)
    scenes: dict[str, set[int]] = defaultdict(set)
    for row in range(len(source)):
        scenes[source[row].key.rpartition("_")[0]].add(int(found.groups[row]))
    whole = [groups for groups in scenes.values() if len(groups) == 1]
    assert len(whole) >= 57  # of 60 bursts
    owners = Counter(group for groups in scenes.values() for group in groups)
    assert max(owners.values()) == 1  # no scene is joined with another
    per_class = Counter(source[int(row)].label for row in np.flatnonzero(found.held_out))
    assert all(abs(count - 24) <= 2 for count in per_class.values())
    assert found.to_json()["largest"] == 4
    assert found.to_json()["grouped"] >= 230
    assert "by whole groups (near copies)" in found.describe()


def test_rows_of_one_image_are_on_one_side(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(40):
        scene(random).save(tmp_path / f"{number}.png")
        shutil.copy(tmp_path / f"{number}.png", tmp_path / f"copy{number}.png")
    rows = [
        f"{name}{n}.png,caption {name}{n} {k}" for n in range(40) for name in ("", "copy") for k in range(3)
    ]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "\n".join(rows) + "\n")
    source = open_source(tmp_path / "captions.csv")
    held = of(source, copies=False).held_out
    sides: dict[int, set[bool]] = defaultdict(set)
    for row in range(len(source)):
        sides[row // 6].add(bool(held[row]))
    assert all(len(side) == 1 for side in sides.values())
    assert held.sum() == 60


def test_a_column_or_the_folder_names_the_group(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = []
    for number in range(60):
        place = tmp_path / f"shop{number % 6}" / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        scene(random).save(place)
        lines.append(
            json.dumps(
                {"image": str(place.relative_to(tmp_path)), "label": "ab"[number // 30], "shop": number % 6}
            )
        )
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    source = open_source(tmp_path / "rows.jsonl")
    for group_by in ("shop", "folder"):
        found = of(source, 0.2, group_by=group_by)
        shops = {row % 6 for row in np.flatnonzero(found.held_out).tolist()}
        assert len(shops) == 1, group_by  # a sixth, nearer to a fifth than two are
        assert found.held_out.sum() == 10
    with pytest.raises(DataError, match=r"group_by = 'shops': no row has such a field.*'shop'"):
        of(source, 0.2, group_by="shops")


def test_other_classes_change_nothing_and_a_second_look_agrees(tmp_path: Path) -> None:
    folder = write_bursts(tmp_path / "bursts", classes=2, scenes=8, frames=3)
    before = held_names(open_source(folder), of(open_source(folder)))
    assert held_names(open_source(folder), of(open_source(folder))) == before
    write_bursts(tmp_path / "more", classes=1, scenes=8, frames=3, seed=5)
    (tmp_path / "more" / "class0").rename(folder / "new")
    after = held_names(open_source(folder), of(open_source(folder)))
    assert {name for name in after if not name.startswith("new")} == before


def test_alike_images_of_one_thing_do_not_become_one_group(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "dots").mkdir()
    for number in range(40):
        image = np.full((64, 64, 3), 255, np.uint8)
        down, across = random.integers(18, 30, 2)
        rows, columns = np.ogrid[:64, :64]
        size = random.integers(10, 20)
        image[(rows - down) ** 2 + (columns - across) ** 2 < size**2] = (200, 30, 30)
        Image.fromarray(image).save(tmp_path / "dots" / f"{number}.png")
    (tmp_path / "other").mkdir()
    for number in range(10):
        scene(random).save(tmp_path / "other" / f"{number}.png")
    found = of(open_source(tmp_path))
    assert found.strict == ("dots",)
    assert "are so alike that only the nearest count as copies" in found.describe()
    assert found.to_json()["largest"] < 40
    assert found.without == ()


def test_a_class_of_one_burst_gives_nothing_and_says_so(tmp_path: Path) -> None:
    write_bursts(tmp_path / "all", classes=2, scenes=1, frames=8)
    found = of(open_source(tmp_path / "all"))
    assert not found.held_out.any()
    assert "nothing is held out from 'class0', 'class1'" in found.describe()


def test_the_bundled_drawings_do_not_collapse() -> None:
    source = open_source("sample:train")
    captions = [source[row].captions[0] for row in range(len(source))]
    found = near_copies(source, range(len(source)), [None] * len(captions))
    sizes = np.unique(found.groups, return_counts=True)[1]
    assert len(sizes) > 1_000
    assert sizes.max() < len(source) / 3


def test_a_class_too_large_to_search_is_not_decoded_and_is_named(tmp_path: Path) -> None:
    source = open_source(write_bursts(tmp_path / "bursts", classes=2, scenes=3, frames=4))
    labels = [source[row].label for row in range(len(source))]
    labels[-1] = labels[0]  # 13 images against 11
    found = near_copies(source, range(len(source)), labels, most=12)
    assert found.unsearched == (labels[0],)
    large = [row for row, label in enumerate(labels) if label == labels[0]]
    assert found.groups[large].tolist() == large
    others = [row for row, label in enumerate(labels) if label != labels[0]]
    assert len(set(found.groups[others].tolist())) < len(others)


def test_what_was_not_searched_is_said() -> None:
    found = Split(np.array([True, False]), np.arange(2), "near copies", (), ("cats",), ())
    assert "'cats': more than 50,000 images" in found.describe()


def test_rows_without_near_copies_are_said_to_be_alone() -> None:
    rows = np.arange(4)
    found = Split(
        held_out=rows == 0, groups=rows, grouped_by="near copies", strict=(), unsearched=(), without=()
    )
    assert (
        found.describe()
        == "held out 1 of 4 rows, by whole groups (near copies): there are none; each row is alone"
    )
