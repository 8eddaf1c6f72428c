"""`Index.first`: the pictures in the order of their ids, page by page, in every kind of place."""

from collections.abc import Callable
from contextlib import closing

import pytest

from diptych.search.building.build import refresh
from diptych.search.image_index import Index
from diptych.search.stores.protocol import Database
from tests.search.fake_encoder import Contained, FakeEncoder
from tests.search.index_places import PLACES


@pytest.mark.parametrize("place", PLACES)
def test_pages_have_every_picture_once_whatever_goes_meanwhile(
    place: str, opened: Callable[[str], Database]
) -> None:
    source = Contained("box", {f"{number:02}": f"picture {number}".encode() for number in range(20)})
    with closing(opened(place)) as database:
        refresh(database, source, FakeEncoder())
        index = Index(database, freshness=0)
        everything = sorted(item.id for item in index.items())
        assert [item.id for item in index.first(50)] == everything
        assert [item.id for item in index.first(5, offset=7)] == everything[7:12]
        assert index.first(5, offset=20) == []
        first = [item.id for item in index.first(8)]
        gone = next(key for key in source.pictures if index.get([first[0]]).items[0].uri.endswith(f"#{key}"))
        del source.pictures[gone]
        refresh(database, source, FakeEncoder())
        # By the last id the pages go on where they were; by an offset one picture would be passed over.
        second = [item.id for item in index.first(50, after=first[-1])]
        assert first + second == everything
        named = [item.id for item in index.first(50, filter_='uri contains "1"')]
        assert named == sorted(item.id for item in index.items('uri contains "1"'))
