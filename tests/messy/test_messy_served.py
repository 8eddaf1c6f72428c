"""A server over a messy folder: every picture of the index has its page, its thumbnail and its file."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from diptych.data.images.decoding import Pixels, read_rgb
from diptych.data.sources.opening import open_source
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from diptych.serving.app import create_app
from diptych.serving.server import build_service
from diptych.serving.server_settings import Settings
from tests.memory_store import MemoryDatabase
from tests.messy.messy_folder import permit, write_pile
from tests.messy.messy_model import PREPROCESS, tiny_clip


async def decode(data: bytes) -> Pixels:
    return read_rgb(data)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    model = tiny_clip()
    folder = Path(tempfile.mkdtemp(prefix="messy-"))
    truth = write_pile(folder / "pile", 300)
    try:
        database = MemoryDatabase()
        refresh(database, open_source(folder / "pile"), Encoder(model, PREPROCESS, "tiny"))
        service = build_service(
            Index(database, freshness=0), model, PREPROCESS, "tiny", Settings(), decode=decode
        )
        with TestClient(create_app(service, service.settings), base_url="http://127.0.0.1") as made:
            yield made
    finally:
        permit(truth)
        shutil.rmtree(folder)


def items(client: TestClient) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    page: dict[str, object] = {"next": ""}
    while page.get("next") is not None:
        parameters = {"limit": "100"} | ({"after": str(page["next"])} if page["next"] else {})
        page = client.get("/v1/items", params=parameters).json()
        found += page["items"]  # type: ignore[arg-type]
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on odd metadata
def test_every_picture_has_its_page_its_thumbnail_and_its_file(client: TestClient) -> None:
    listed = items(client)
    assert len(listed) > 300
    for item in listed:
        page = client.get(f"/pictures/{item['id']}")
        assert page.status_code == 200, item["uri"]
        addresses = set(re.findall(r'(?:src|href)="(/v1/items/[^"]+)"', page.text))
        assert addresses, item["uri"]
        for address in addresses:
            assert client.get(address.replace("&amp;", "&")).status_code == 200, (item["uri"], address)


def test_every_page_of_results_can_be_shown_and_saved(client: TestClient) -> None:
    for query in ("", "?q=a+red+square", "?q=a+red+square&page=3"):
        assert client.get(f"/{query}").status_code == 200, query
    assert client.get("/results.csv?q=a+red+square").status_code == 200
    assert client.get("/results.json?q=a+red+square").status_code == 200
