"""No violation of WCAG 2.2 A and AA, nor of axe's best practices, in any state of the page; no sideways scrolling."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from diptych.data.sources.opening import open_source
from diptych.search.building.build import refresh
from diptych.search.building.removal import remove
from diptych.search.encoder import Encoder
from diptych.search.stores.filter_syntax import parse
from diptych.serving.guard.tokens import Scope, Tokens
from diptych.serving.server_settings import Settings
from tests.memory_store import MemoryDatabase

CLOCK = "four o\u2019clock"
STATES = {
    "browse": "/",
    "results": "/?q=clock&q=green&not=face&tags=time&q_weight=1&q_weight=0.5&min=0.3",
    "stacks": "/?q=rooster&unique=1",
    "no matches": "/?q=clock&tags=no+such+tag",
    "error": "/?q=clock&filter=width+%3E%3E+3&min=high",
    "filters": "/?q=clock&tags=time",
    "lightbox": "/?q=clock&tags=time",
    "picture": "/pictures/ID?q=clock",
    "gone": "/pictures/00",
}


def violations(page: Page) -> list[str]:
    """One line for each element that breaks a rule."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:200]} {node['failureSummary'][:400]}"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing(open_page: Any, gallery: Any, complaints: Any, state: str) -> None:
    complaints.expect("Failed to load resource: the server responded with a status of 40")
    page = open_page(STATES[state].replace("ID", gallery.item(CLOCK).id))
    if state == "filters":
        page.click("#filters > summary")
        page.click("#download > summary")
    elif state == "stacks":
        page.locator(".stack summary").first.click()
    elif state == "lightbox":
        page.locator(".open").first.click()
        expect(page.locator("dialog[open] img")).to_be_visible()
    page.wait_for_load_state("networkidle")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert violations(page) == [], scheme


def test_axe_finds_what_is_wrong(open_page: Any) -> None:
    """The broken twin: an image without words, and grey on white."""
    page = open_page("/?q=clock")
    page.evaluate(
        """() => {
            document.querySelector(".card img").removeAttribute("alt");
            document.querySelector(".card .caption").style.color = "#ccc";
        }"""
    )
    found = "\n".join(violations(page))
    assert "image-alt" in found
    assert "color-contrast" in found


@pytest.mark.parametrize("width", [320, 390, 1280, 1920])
def test_nothing_scrolls_sideways(open_page: Any, gallery: Any, complaints: Any, width: int) -> None:
    complaints.expect("Failed to load resource: the server responded with a status of 40")
    page = open_page("/", width=width, touch=width < 500)
    for state in ("browse", "results", "stacks", "error", "picture", "filters"):
        page.goto(STATES[state].replace("ID", gallery.item(CLOCK).id))
        if state == "filters":
            page.click("#filters > summary")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state


def test_the_layout_is_there_before_the_pictures(open_page: Any) -> None:
    page = open_page("/?q=clock")
    height = page.evaluate("document.documentElement.scrollHeight")
    page.route("**/thumbnail", lambda route: None)
    page.reload(wait_until="domcontentloaded")
    assert page.evaluate("document.documentElement.scrollHeight") == height


def test_an_index_without_pictures_says_what_to_do(open_page: Any, gallery: Any) -> None:
    database = MemoryDatabase()
    encoder = Encoder(gallery.model, gallery.preprocess, "diptych-mini")
    refresh(database, open_source(str(gallery.folder)), encoder)
    remove(database, parse("width >= 0"))
    page = open_page("/", service=gallery.service(database=database))
    expect(page.locator("h1")).to_have_text("No pictures yet")
    expect(page.locator("pre")).to_contain_text("diptych index FOLDER --index")
    assert violations(page) == []


def test_signing_in_is_accessible(open_page: Any, gallery: Any, complaints: Any) -> None:
    complaints.expect("Failed to load resource: the server responded with a status of 401")
    service = gallery.service(Settings(tokens=Tokens([(Scope.READ, 8 * "token")])))
    page = open_page("/", service=service)
    page.fill("[name=token]", "wrong")
    page.press("[name=token]", "Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert violations(page) == [], scheme
