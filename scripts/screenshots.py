"""The pictures of the page in the README and the documentation: `python scripts/screenshots.py [FOLDER]`.

Indexes the bundled drawings with the bundled model, serves them, and photographs the page in Chromium, light and dark.
"""

import asyncio
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chromium
from playwright.sync_api import sync_playwright

import diptych
from diptych.data.sources.opening import open_source
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.search.image_index import Index
from diptych.search.stores.connect import connect
from diptych.serving.guard.decoding_pool import DecodingPool
from diptych.serving.server import address_of, build_server, build_service, listening
from diptych.serving.server_settings import Settings

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SIZE: Any = {"width": 1280, "height": 800}
SHOTS: Any = {
    "search-light": ("light", "/?q=strawberry&min=0.6"),
    "search-dark": ("dark", "/?q=fruit&not=green"),
}


@contextmanager
def served() -> Iterator[str]:
    """The address of a server of the bundled drawings."""
    model, preprocess = diptych.load("diptych-mini")
    with (
        tempfile.TemporaryDirectory() as folder,
        DecodingPool() as decoding,
        listening("127.0.0.1", 0) as listener,
    ):
        database = connect(Path(folder) / "index")
        for part in ("sample:train", "sample:test"):
            refresh(database, open_source(part), Encoder(model, preprocess, "diptych-mini"))
        settings = Settings()
        service = build_service(
            Index(database), model, preprocess, "diptych-mini", settings, decode=decoding.decode
        )
        server = build_server(service, settings)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            while not server.started:
                thread.join(0.05)
            yield address_of(listener)
        finally:
            server.stop()
            thread.join()


def photograph(address: str, folder: Path) -> None:
    """Every one of `SHOTS` as a PNG."""
    with sync_playwright() as playwright:
        browser = chromium.launch(playwright)
        for name, (scheme, path) in SHOTS.items():
            page = browser.new_page(viewport=SIZE, color_scheme=scheme, base_url=address)
            page.goto(path)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    target.mkdir(parents=True, exist_ok=True)
    with served() as url:
        photograph(url, target)
