"""/v1/items: listing, thumbnails, originals, adding, removing."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from diptych.data.images.decoding import DEFAULT_LIMITS
from diptych.data.sources.opening import open_source
from diptych.models.image_model import ImageModel
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.serving import originals
from diptych.serving.app import create_app
from diptych.serving.guard.tokens import Scope, Tokens
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service
from tests.memory_store import MemoryDatabase
from tests.serving.pictures_for_requests import data_uri, png
from tests.tiny_model import preprocessing

WRITE = "w" * 40


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate([(220, 20, 20), (20, 200, 20), (20, 20, 220)]):
        Image.new("RGB", (40, 30), colour).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def database(pictures: Path, served_clip: ImageModel) -> MemoryDatabase:
    """An index of three files of a folder."""
    made = MemoryDatabase()
    refresh(made, open_source(pictures), Encoder(served_clip, preprocessing(), "tiny"))
    return made


@pytest.fixture
def writing(
    make_service: Callable[..., Service], database: MemoryDatabase, tmp_path: Path
) -> Iterator[TestClient]:
    """A client with the right to change the index, and a server with a folder for uploads."""
    settings = Settings(tokens=Tokens([(Scope.WRITE, WRITE)]), uploads=tmp_path / "uploads")
    service = make_service(settings, database)
    with TestClient(
        create_app(service, settings),
        base_url="http://127.0.0.1",
        headers={"authorization": f"Bearer {WRITE}"},
    ) as client:
        yield client


def listed(client: TestClient, **parameters: object) -> dict[str, Any]:
    answer = client.get("/v1/items", params=parameters)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def test_pages_of_the_list_have_every_picture_once(client: TestClient) -> None:
    seen: list[str] = []
    after: dict[str, object] = {}
    while True:
        page = listed(client, limit=25, **after)
        assert page["total"] == 60
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert len(seen) == 60
    assert seen == sorted(set(seen))


def test_the_list_can_be_filtered(client: TestClient) -> None:
    page = listed(client, filter='caption contains "heart"')
    assert page["total"] == len(page["items"])
    assert all("heart" in item["caption"] for item in page["items"])
    refused = client.get("/v1/items", params={"filter": "caption like x"})
    assert (refused.status_code, "expected one of" in refused.json()["detail"]) == (400, True)


def test_one_picture_is_shown_as_in_the_list(client: TestClient) -> None:
    item = listed(client, limit=1)["items"][0]
    assert client.get(f"/v1/items/{item['id']}").json() == item
    assert client.get(f"/v1/items/{'0' * 32}").status_code == 404
    assert client.get("/v1/items/..%2f..%2fetc%2fpasswd").status_code in (404, 422)


def test_a_thumbnail_is_kept_by_its_version_and_asked_for_again_without(client: TestClient) -> None:
    address = listed(client, limit=1)["items"][0]["thumbnail"]
    lasting = client.get(address)
    assert (lasting.status_code, lasting.headers["content-type"]) == (200, "image/jpeg")
    assert lasting.content[:3] == b"\xff\xd8\xff"
    assert lasting.headers["cache-control"] == "private, max-age=31536000, immutable"
    plain = client.get(address.partition("?")[0])
    assert plain.headers["cache-control"] == "private, no-cache"
    for version in (
        lasting.headers["etag"],
        "W/" + lasting.headers["etag"],
        f'"x", {lasting.headers["etag"]}',
        "*",
    ):
        unchanged = client.get(address, headers={"if-none-match": version})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert client.get(address, headers={"if-none-match": '"other"'}).status_code == 200
    assert client.get(f"/v1/items/{'0' * 32}/thumbnail").status_code == 404


def test_the_picture_itself_is_the_recorded_file_and_no_other(writing: TestClient, pictures: Path) -> None:
    items = {Path(item["uri"]).name: item["id"] for item in listed(writing)["items"]}
    address = f"/v1/items/{items['0.png']}/picture"
    original = writing.get(address)
    assert original.content == (pictures / "0.png").read_bytes()
    assert original.headers["content-type"] == "image/png"
    assert writing.get(address, headers={"if-none-match": original.headers["etag"]}).status_code == 304
    secret = pictures.parent / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    (pictures / "0.png").unlink()
    assert writing.get(address).status_code == 404
    for replace in (
        lambda path: path.symlink_to(secret),
        lambda path: path.write_bytes(secret.read_bytes()),
        lambda path: path.mkdir(),
        os.mkfifo,
    ):
        path = pictures / "1.png"
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        replace(path)
        assert writing.get(f"/v1/items/{items['1.png']}/picture").status_code == 404


def test_every_format_that_is_read_has_a_type_to_be_handed_out_with() -> None:
    assert originals._TYPES.keys() == set(DEFAULT_LIMITS.formats)


def test_a_picture_inside_another_file_is_not_handed_out(client: TestClient) -> None:
    item = listed(client, limit=1)["items"][0]
    assert client.get(f"/v1/items/{item['id']}/picture").status_code == 404


def test_a_server_may_hand_out_thumbnails_only(
    make_service: Callable[..., Service], database: MemoryDatabase
) -> None:
    settings = Settings(originals=False)
    with TestClient(
        create_app(make_service(settings, database), settings), base_url="http://127.0.0.1"
    ) as client:
        item = listed(client, limit=1)["items"][0]
        assert client.get(f"/v1/items/{item['id']}/picture").status_code == 403
        assert client.get(item["thumbnail"]).status_code == 200


def test_an_added_picture_is_found_shown_and_kept_as_a_file(writing: TestClient, tmp_path: Path) -> None:
    data = png((200, 200, 20), (50, 20))
    answer = writing.post(
        "/v1/items", json={"items": [{"image": data_uri(data), "caption": "a yellow flag"}]}
    )
    assert answer.status_code == 201, answer.text
    (item,) = answer.json()["items"]
    assert (item["caption"], item["width"], item["height"]) == ("a yellow flag", 50, 20)
    assert writing.get(f"/v1/items/{item['id']}/picture").content == data
    found = writing.post("/v1/search", json={"query": [{"image": data_uri(data)}], "limit": 1}).json()
    assert found["results"][0]["id"] == item["id"]
    assert found["results"][0]["score"] > 0.999
    assert writing.get(item["thumbnail"]).status_code == 200
    kept = {path.name for path in (tmp_path / "uploads").iterdir()}
    name = hashlib.sha256(data).hexdigest()[:32]
    assert kept == {f"{name}.png", f"{name}.txt"}


def test_a_folder_of_uploads_can_be_indexed_again_and_nothing_is_new(
    writing: TestClient, tmp_path: Path, database: MemoryDatabase, served_clip: ImageModel
) -> None:
    new = [
        {"image": data_uri(png((200, 200, 20))), "caption": "yellow"},
        {"image": data_uri(png((2, 200, 200)))},
        {"image": data_uri(png((200, 200, 20))), "caption": "yellow, again"},
    ]
    added = writing.post("/v1/items", json={"items": new}).json()["items"]
    assert added[0]["id"] == added[2]["id"]
    assert listed(writing)["total"] == 5
    done = refresh(database, open_source(tmp_path / "uploads"), Encoder(served_clip, preprocessing(), "tiny"))
    assert (done.unchanged, done.added, done.updated, done.total) == (2, 0, 0, 5)
    assert writing.get(f"/v1/items/{added[0]['id']}").json()["caption"] == "yellow, again"


def test_a_removed_picture_is_gone_and_only_uploaded_files_go_with_it(
    writing: TestClient, pictures: Path, tmp_path: Path
) -> None:
    (own,) = writing.post("/v1/items", json={"items": [{"image": data_uri(png((9, 9, 99)))}]}).json()["items"]
    other = next(item for item in listed(writing)["items"] if item["id"] != own["id"])
    for item in (own, other):
        assert writing.delete(f"/v1/items/{item['id']}").status_code == 204
        assert writing.get(f"/v1/items/{item['id']}").status_code == 404
        assert writing.get(item["thumbnail"]).status_code == 404
        assert writing.delete(f"/v1/items/{item['id']}").status_code == 404
    assert list((tmp_path / "uploads").iterdir()) == []
    assert len(list(pictures.iterdir())) == 3
    assert listed(writing)["total"] == 2


def test_a_bad_picture_adds_nothing(writing: TestClient, tmp_path: Path) -> None:
    answer = writing.post("/v1/items", json={"items": [{"image": data_uri(png())}, {"image": "AAAA"}]})
    assert (answer.status_code, answer.json()["detail"][:8]) == (400, "image 1:")
    assert listed(writing)["total"] == 3
    assert not (tmp_path / "uploads").exists()


def test_another_writer_is_answered_503_with_when_to_ask_again(
    writing: TestClient, database: MemoryDatabase
) -> None:
    with database.writing():
        answer = writing.post("/v1/items", json={"items": [{"image": data_uri(png())}]})
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert "another process is writing" in answer.json()["detail"]


def test_without_a_folder_for_uploads_nothing_is_taken(
    make_service: Callable[..., Service], database: MemoryDatabase
) -> None:
    settings = Settings(tokens=Tokens([(Scope.WRITE, WRITE)]))
    with TestClient(
        create_app(make_service(settings, database), settings),
        base_url="http://127.0.0.1",
        headers={"authorization": f"Bearer {WRITE}"},
    ) as client:
        answer = client.post("/v1/items", json={"items": [{"image": data_uri(png())}]})
        assert (answer.status_code, "--uploads" in answer.json()["detail"]) == (403, True)


def test_names_that_are_no_unicode_are_shown_with_question_marks(
    make_service: Callable[..., Service], served_clip: ImageModel, pictures: Path
) -> None:
    os.rename(pictures / "0.png", os.fsencode(pictures) + b"/\xff.png")
    database = MemoryDatabase()
    refresh(database, open_source(pictures), Encoder(served_clip, preprocessing(), "tiny"))
    settings = Settings()
    with TestClient(
        create_app(make_service(settings, database), settings), base_url="http://127.0.0.1"
    ) as client:
        uris = [item["uri"] for item in listed(client)["items"]]
        assert f"{pictures}/?.png" in uris
