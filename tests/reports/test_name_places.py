"""Where names stand: by hand."""

import numpy as np
import pytest

from diptych.reports.plots.name_places import Box, corners, place_name

FRAME = Box(0, 0, 1000, 1000)


def test_a_name_with_room_stands_to_the_right_of_its_point() -> None:
    place = place_name((500, 500), (80, 10), [], FRAME)
    assert (place.left, place.middle, place.far) == (510, 500, False)


@pytest.mark.parametrize(
    ("point", "taken", "side"),
    [
        ((500, 500), Box(505, 480, 700, 520), "left"),
        ((985, 500), Box(0, 0, 1, 1), "left"),  # the frame ends
        ((4, 500), Box(10, 400, 300, 600), "right"),  # nothing is free: rather over something than outside
    ],
)
def test_a_name_moves_away_from_what_it_would_cover(
    point: tuple[float, float], taken: Box, side: str
) -> None:
    place = place_name(point, (80, 10), [taken], FRAME)
    assert (place.left + 40 < point[0]) == (side == "left")
    assert place.box.shared(corners([FRAME])) == pytest.approx(place.box.area)


def test_a_name_in_a_crowd_goes_far_and_is_told_so() -> None:
    crowd = [Box.around(500 + x, 500 + y, 12) for x in range(-150, 151, 20) for y in range(-18, 19, 12)]
    place = place_name((500, 500), (80, 10), crowd, FRAME)
    assert place.far
    assert not place.box.shared(corners(crowd)).any()


def test_shared_areas_equal_counting_cells() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        (a, b, c, d), (e, f, g, h) = (
            np.sort(generator.integers(0, 12, (2, 2, 2)), axis=2).reshape(2, 4).tolist()
        )
        one, other = Box(a, c, b, d), Box(e, g, f, h)
        cells = sum(
            one.left <= x < one.right
            and other.left <= x < other.right
            and one.bottom <= y < one.top
            and other.bottom <= y < other.top
            for x in range(12)
            for y in range(12)
        )
        assert one.shared(corners([other])) == cells
        assert other.shared(corners([one])) == cells


def test_the_nearest_place_of_a_box_lies_on_its_edge_or_is_the_point_itself() -> None:
    box = Box(10, 20, 30, 40)
    assert box.nearest((0, 25)) == (10, 25)
    assert box.nearest((50, 50)) == (30, 40)
    assert box.nearest((15, 35)) == (15, 35)
