"""Date, camera and place of photographs, and all captions, over HTTP and on the page; places only with the files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from diptych.data.sources.opening import open_source
from diptych.models.image_model import ImageModel
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.serving.app import create_app
from diptych.serving.page.filter_form import Filters
from diptych.serving.page.page_state import State
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.memory_store import MemoryDatabase
from tests.photograph_files import exif_of, photograph_file
from tests.tiny_model import preprocessing

NEAR = 'place near "47.4, 8.5, 20 km"'
HIDDEN = ["latitude > 0", "not longitude > 7", NEAR, f"label = x or ({NEAR})"]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, served_clip: ImageModel) -> MemoryDatabase:
    """Three photographs, of which the second has another camera, and the third nothing."""
    folder = tmp_path_factory.mktemp("photos")
    first = exif_of(
        taken="2024:06:01 14:30:05", offset="+02:00", make="Apple", model="iPhone", place=(47.4, 8.5)
    )
    second = exif_of(taken="2023:01:02 03:04:05", make="<b>Evil</b>", model="'\"&")
    (folder / "a.jpg").write_bytes(photograph_file(first))
    (folder / "b.jpg").write_bytes(photograph_file(second, colour=(9, 200, 9)))
    (folder / "c.png").write_bytes(photograph_file(b"", kind="PNG", colour=(9, 9, 200)))
    (folder / "a.txt").write_text("a red wall\nWand in Zürich\n")
    made = MemoryDatabase()
    refresh(made, open_source(folder), Encoder(served_clip, preprocessing(), "tiny"))
    return made


def client_of(service: Service) -> TestClient:
    return TestClient(create_app(service, service.settings), base_url="http://127.0.0.1:8000")


@pytest.fixture
def client(make_service: Callable[..., Service], database: MemoryDatabase) -> Iterator[TestClient]:
    with client_of(make_service(Settings(), database)) as client:
        yield client


@pytest.fixture
def closed(make_service: Callable[..., Service], database: MemoryDatabase) -> Iterator[TestClient]:
    """A server that hands out thumbnails only."""
    with client_of(make_service(Settings(originals=False), database)) as client:
        yield client


def names(items: list[dict[str, Any]]) -> list[str]:
    return [Path(item["uri"]).stem for item in items]


def test_the_api_shows_filters_and_sorts_what_the_camera_wrote(client: TestClient) -> None:
    items = client.get("/v1/items", params={"sort": "newest"}).json()["items"]
    assert names(items) == ["a", "b", "c"]
    shown = {name: items[0][name] for name in ("taken", "camera", "latitude", "longitude", "captions")}
    assert shown == {
        "taken": "2024-06-01T14:30:05+02:00",
        "camera": "Apple iPhone",
        "latitude": 47.4,
        "longitude": 8.5,
        "captions": ["a red wall", "Wand in Zürich"],
    }
    assert {items[2][name] for name in ("taken", "camera", "latitude", "longitude")} == {None}
    page = client.get("/v1/items", params={"sort": "oldest", "limit": 1}).json()
    assert names(page["items"]) == ["b"]
    page = client.get("/v1/items", params={"sort": "oldest", "limit": 9, "after": page["next"]}).json()
    assert (names(page["items"]), page["next"]) == (["a", "c"], None)
    assert client.get("/v1/items", params={"sort": "newest", "after": "0" * 32}).status_code == 400
    assert client.get("/v1/items", params={"sort": "score"}).status_code == 422
    assert names(client.get("/v1/items", params={"filter": NEAR}).json()["items"]) == ["a"]
    question = {"query": "a wall", "sort": "oldest", "filter": "taken >= 2000-01-01"}
    assert names(client.post("/v1/search", json=question).json()["results"]) == ["b", "a"]
    assert client.post("/v1/search", json=question | {"diversity": 0.5}).status_code == 400


def test_places_are_told_only_where_the_files_are_handed_out(closed: TestClient) -> None:
    items = closed.get("/v1/items", params={"sort": "newest"}).json()["items"]
    assert items[0]["taken"] == "2024-06-01T14:30:05+02:00"
    one = closed.get(f"/v1/items/{items[0]['id']}").json()
    found = closed.post("/v1/search", json={"query": "a wall", "unique": True}).json()["results"]
    similar = closed.get(f"/v1/items/{items[1]['id']}/similar").json()["results"]
    everything = [*items, one, *found, *similar, *(other for row in found for other in row["duplicates"])]
    assert all(item["latitude"] is item["longitude"] is None for item in everything)
    pages = [
        closed.get(path).text for path in ("/", "/?q=wall", f"/pictures/{one['id']}", "/results.csv?q=wall")
    ]
    assert not any("47.4" in page or "Near <input" in page for page in pages)


@pytest.mark.parametrize("filter_", HIDDEN)
def test_a_filter_does_not_tell_places_either(closed: TestClient, filter_: str) -> None:
    answers = [
        closed.get("/v1/items", params={"filter": filter_}),
        closed.post("/v1/search", json={"query": "a wall", "filter": filter_}),
        closed.get("/", params={"filter": filter_}),
        closed.get("/", params={"filter": filter_, "q": "wall"}),
        closed.get("/results.json", params={"filter": filter_, "q": "wall"}),
    ]
    assert all(answer.status_code in (400, 403) for answer in answers), [one.status_code for one in answers]
    assert all("--no-originals" in answer.text for answer in answers)


def test_the_page_shows_and_sorts_photographs(client: TestClient) -> None:
    page = client.get("/", params={"sort": "newest"}).text
    assert page.index("2024-06-01") < page.index("2023-01-02")
    item = client.get("/v1/items", params={"sort": "newest"}).json()["items"]
    picture = client.get(f"/pictures/{item[0]['id']}").text
    for words in ("Apple iPhone", "2024-06-01 14:30:05 (UTC+02:00)", "47.400000, 8.500000", "Wand in Zürich"):
        assert words in picture
    evil = client.get(f"/pictures/{item[1]['id']}").text
    assert "&lt;b&gt;Evil&lt;/b&gt;" in evil
    assert "<b>Evil" not in evil
    table = client.get("/results.csv?q=wall&sort=oldest").text.splitlines()
    assert table[0].endswith("taken,camera,latitude,longitude,further captions")
    assert "2023-01-02T03:04:05" in table[1]
    near = client.get("/", params={"near": "47.4, 8.5, 1 km"})
    assert near.text.count('<li class="card') == 1


def test_the_fields_for_photographs_become_conditions() -> None:
    filters = Filters(taken_from="2024-06-01", taken_to="2024-06-30", camera='i"P', near="1, 2, 3 km")
    assert filters.text() == (
        'camera contains "i\\"P" and place near "1, 2, 3 km" and taken >= 2024-06-01 and taken < 2024-07-01'
    )


def test_an_order_by_date_is_part_of_the_address() -> None:
    state, problems = State.read([("q", "pig"), ("sort", "newest"), ("variety", "40")])
    assert (state.query(), problems) == ("?q=pig&sort=newest", ())
    assert state.first_page().sort == "newest"
    state, problems = State.read([("q", "pig"), ("sort", "size")])
    assert (state.sort, problems) == (None, ("sort: 'size'; expected newest or oldest",))
