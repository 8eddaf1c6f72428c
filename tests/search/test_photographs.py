"""Date, camera and place of photographs in an index: recorded, filtered, sorted."""

import math
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from diptych.errors import SettingsError
from diptych.search.building.build import refresh
from diptych.search.image_index import Index
from diptych.search.query import QueryPart, Question
from diptych.search.searcher import SORTED, Searcher
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.filters import matches
from diptych.search.stores.image_rows import Item, item_id
from diptych.search.stores.protocol import Database
from tests.memory_store import MemoryDatabase
from tests.photograph_files import exif_of, photograph_file
from tests.search.fake_encoder import Contained, FakeEncoder, FakeQuestions, Folder
from tests.search.index_places import PLACES

ZURICH, SYDNEY, SUVA = (47.376887, 8.541694), (-33.856784, 151.215297), (-18.1416, 178.4419)


def pictures() -> dict[str, bytes]:
    return {
        "zurich": photograph_file(
            exif_of(
                taken="2024:06:01 14:30:05", offset="+02:00", model="iPhone 15", make="Apple", place=ZURICH
            )
        ),
        "sydney": photograph_file(
            exif_of(
                taken="2024:06:01 14:30:06", offset="+10:00", make="Canon", model="Canon R5", place=SYDNEY
            )
        ),
        "old": photograph_file(exif_of(taken="1969:12:31 23:59:59", fraction="999999")),
        "new": photograph_file(exif_of(taken="2025:01:01 00:00:00", model="iPhone 15", make="Apple")),
        "drawing": photograph_file(b"", kind="PNG"),
    }


@pytest.fixture(scope="module")
def index() -> Index:
    database = MemoryDatabase()
    refresh(database, Contained("memory://box", pictures()), FakeEncoder())
    return Index(database, freshness=0)


def keys(items: list[Item]) -> list[str]:
    return [item.uri.rpartition("#")[2] for item in items]


def test_what_the_camera_wrote_is_recorded(index: Index) -> None:
    (found,) = index.items('uri contains "zurich"')
    assert (found.taken, found.camera) == ("2024-06-01T14:30:05+02:00", "Apple iPhone 15")
    assert (found.latitude, found.longitude) == ZURICH
    (found,) = index.items('uri contains "drawing"')
    assert (found.taken, found.camera, found.latitude, found.longitude) == (None, None, None, None)


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ("taken >= 2024-06-01", "new sydney zurich"),
        ("taken > 2024-06-01T14:30:05 and taken < 2025-01-01", "sydney"),
        ("taken < 1970-01-01", "old"),
        ("not taken >= 2024-06-01", "drawing old"),
        ("not taken < 9999-12-31", "drawing"),
        ('camera = "Apple iPhone 15"', "new zurich"),
        ("camera contains IPHONE", "new zurich"),
        ("camera starts Canon", "sydney"),
        ('camera in ("Canon R5", "")', "drawing old sydney"),
        ("latitude > 0", "zurich"),
        ("latitude >= 47.376887 and latitude <= 47.376887", "zurich"),
        ("latitude < 0", "sydney"),
        ("longitude > -180", "sydney zurich"),
        ("not longitude > -180", "drawing new old"),
        ('place near "47.37, 8.54, 5 km"', "zurich"),
        ('place near "47.37 8.54 500m"', ""),
        ('place near "-33.8 151.2 10km"', "sydney"),
        ('place near "0, 0, 20000 km"', "sydney zurich"),
        ('not place near "47.37, 8.54, 5 km"', "drawing new old sydney"),
    ],
)
def test_filters_by_date_camera_and_place(index: Index, filter_: str, expected: str) -> None:
    assert sorted(keys(list(index.items(filter_)))) == expected.split()


def test_near_holds_every_place_within_the_distance() -> None:
    """Over the 180th meridian and over a pole, beside the formula of haversines."""
    dice = random.Random(0)
    for _ in range(400):
        latitude = round(math.degrees(math.asin(dice.uniform(-1, 1))), 6)
        longitude = round(dice.choice([dice.uniform(-180, 180), dice.choice([-179.9, 179.9])]), 6)
        kilometres = round(10 ** dice.uniform(0, 3.5), 1)
        near = parse(f'place near "{latitude:f}, {longitude:f}, {kilometres:f} km"')
        for _ in range(10):
            direction, way = dice.uniform(0, 2 * math.pi), dice.uniform(0, 0.999) * kilometres / 6371
            phi = math.radians(latitude)
            sine = math.sin(phi) * math.cos(way) + math.cos(phi) * math.sin(way) * math.cos(direction)
            other = math.asin(max(-1, min(1, sine)))
            aside = math.atan2(
                math.sin(direction) * math.sin(way) * math.cos(phi),
                math.cos(way) - math.sin(phi) * math.sin(other),
            )
            there = (math.degrees(longitude * math.pi / 180 + aside) + 540) % 360 - 180
            row = picture(math.degrees(other), there).to_row()
            assert matches(near, row), (latitude, longitude, kilometres, math.degrees(other), there)


def picture(latitude: float, longitude: float) -> Item:
    return Item(item_id("x"), "x", "x", 1, None, "0" * 64, latitude=latitude, longitude=longitude)


@pytest.mark.parametrize(
    ("filter_", "said"),
    [
        ("taken >= yesterday", "not a date"),
        ("taken >= 2024-06-01T12:00:00Z", "has a time zone"),
        ("taken = 2024-06-01", "expected one of the operators < <= > >="),
        ("latitude > 91", "from -90 to 90"),
        ("longitude > 1.1234567", "6 decimals"),
        ("latitude > north", "degrees"),
        ("place = Paris", "expected one of the operators near"),
        ('place near "Paris"', '"47.377, 8.54, 5 km"'),
        ('place near "47, 8, 0 km"', "above 0"),
        ('place near "47, 8, 1.2.3 km"', "latitude, longitude and distance"),
        ('camera near "47, 8, 1 km"', "camera near"),
        ("width near 3", "width near"),
    ],
)
def test_a_condition_that_cannot_be_says_what_is_expected(filter_: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(filter_)
    assert said in str(caught.value)


@pytest.mark.parametrize("place", PLACES)
def test_pictures_are_listed_by_the_cameras_clock_unknown_last(
    place: str, opened: Callable[[str], Database]
) -> None:
    with closing(opened(place)) as database:
        refresh(database, Contained("memory://box", pictures()), FakeEncoder())
        index = Index(database, freshness=0)
        # By the clock Sydney is one second later; as a moment it is eight hours earlier.
        newest, oldest = index.first(9, sort="newest"), index.first(9, sort="oldest")
        assert keys(newest) == ["new", "sydney", "zurich", "old", "drawing"]
        assert keys(oldest) == ["old", "zurich", "sydney", "new", "drawing"]
        assert index.first(2, offset=1, sort="newest") == newest[1:3]
        assert index.first(9, after=newest[1].id, sort="newest") == newest[2:]
        assert keys(index.first(9, filter_="camera contains iphone", sort="oldest")) == ["zurich", "new"]
        assert index.count('place near "47.37, 8.54, 5 km" or taken < 1970-01-01') == 2
        with pytest.raises(SettingsError, match="no image of the index has the id"):
            index.first(2, after="0" * 32, sort="newest")


def test_matches_of_a_question_are_sorted_by_date(index: Index) -> None:
    searcher = Searcher(index, FakeQuestions())
    parts = (QueryPart(image=pictures()["old"]),)
    by_score = searcher.search(Question(parts)).found
    newest = searcher.search(Question(parts, sort="newest")).found
    assert {one.item.id for one in newest} == {one.item.id for one in by_score}
    assert keys([one.item for one in newest]) == ["new", "sydney", "zurich", "old", "drawing"]
    page = searcher.search(Question(parts, sort="newest", count=2, offset=1))
    assert (keys([one.item for one in page.found]), page.more) == (["sydney", "zurich"], True)
    best = searcher.search(Question(parts, sort="newest", min_score=0.99)).found
    assert keys([one.item for one in best]) == ["old"]


def test_the_sorted_answer_ends_with_the_best_matches() -> None:
    many = {
        f"{number:03}": photograph_file(
            exif_of(taken=f"2024:01:01 00:{number // 60:02}:{number % 60:02}"), colour=(number, 0, 0)
        )
        for number in range(SORTED + 30)
    }
    database = MemoryDatabase()
    refresh(database, Contained("memory://box", many), FakeEncoder(batch_size=50))
    searcher = Searcher(Index(database, freshness=0), FakeQuestions())
    parts = (QueryPart(image=many["000"]),)
    best = searcher.search(Question(parts, count=SORTED)).found
    found = searcher.search(Question(parts, count=200, sort="oldest")).found
    assert keys([one.item for one in found]) == sorted(keys([one.item for one in best]))
    least = best[-1].score - 0.05
    more = searcher.search(Question(parts, count=200, sort="oldest", min_score=least)).found
    assert len(more) > SORTED
    assert all(one.score >= least for one in more)


def test_sort_and_diversity_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="sort and diversity"):
        Question((QueryPart(text="x"),), sort="newest", diversity=0.1)
    with pytest.raises(SettingsError, match="expected one of newest, oldest"):
        Question((QueryPart(text="x"),), sort="date")  # type: ignore[arg-type]


def test_a_moved_photograph_keeps_what_its_camera_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(pictures()["zurich"])
    database = MemoryDatabase()
    refresh(database, Folder(folder), FakeEncoder())
    (folder / "a.png").rename(folder / "b.png")
    encoder = FakeEncoder()
    assert refresh(database, Folder(folder), encoder).moved == 1
    assert encoder.embedded == []
    (found,) = Index(database).items()
    assert (found.camera, found.latitude) == ("Apple iPhone 15", ZURICH[0])
