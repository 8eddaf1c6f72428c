"""The page without a browser: its addresses, its HTML, its files, and what happens when something is wrong."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from diptych.data.images.decoding import read_rgb
from diptych.data.images.thumbnails import MEDIA_TYPE
from diptych.errors import SearchIndexError, SettingsError
from diptych.search.query import UNWANTED, Match
from diptych.search.stores.filter_fields import condition
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.filters import Combination
from diptych.search.stores.image_rows import Item
from diptych.serving.app import create_app
from diptych.serving.batching import OverloadedError
from diptych.serving.guard.tokens import Scope, Tokens
from diptych.serving.page.downloads import as_csv
from diptych.serving.page.filter_form import Filters, quoted
from diptych.serving.page.login import COOKIE, own_address
from diptych.serving.page.page_state import PAGE, State, Term
from diptych.serving.page.query_images import Upload, Uploads
from diptych.serving.page.routes import TEMPLATES
from diptych.serving.page.view import card, facts, slider
from diptych.serving.server_settings import Settings

CLOCK = "four o\u2019clock"
TOKEN = "a-token-of-more-than-thirty-two-characters"
WORDS = st.text(min_size=1, max_size=30)


def state_of(query: str) -> State:
    """The state that a query string says; everything in it can be read."""
    state, problems = State.read(parse_qsl(query.removeprefix("?"), keep_blank_values=True))
    assert problems == ()
    return state


# ---- The address ---------------------------------------------------------------------------------------------


@given(
    terms=st.lists(
        st.builds(
            Term,
            st.sampled_from(["q", "like", "picture"]),
            WORDS.map(str.strip).filter(bool),
            st.sampled_from([1.0, -1.0, 0.2, -0.2, 0.5, -0.5, 2.125, 100.0]),
        ),
        max_size=8,
        unique=True,
    ),
    filters=st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(Filters)]),
        WORDS.map(str.strip),
        max_size=4,
    ),
    min_score=st.none() | st.integers(-1000, 1000).map(lambda number: number / 1000),
    flags=st.tuples(st.booleans(), st.booleans(), st.integers(0, 100), st.integers(0, 9_000)),
)
def test_an_address_says_the_whole_state(terms: Any, filters: Any, min_score: Any, flags: Any) -> None:
    state = State(tuple(terms), Filters(**filters), min_score, *flags)
    again = state_of(state.query())
    assert set(again.terms) == set(state.terms)
    assert dataclasses.replace(again, terms=state.terms) == state
    assert again.query() == state.query(), "the short form is its own short form"


def test_weights_belong_to_their_words_also_where_a_field_is_empty() -> None:
    state = state_of("q=&q_weight=9&q=pig&q_weight=2&q=house&not=&not=dog&not_weight=1&not_weight=0.5")
    assert state.terms == (Term("q", "pig", 2.0), Term("q", "house", 1.0), Term("q", "dog", -0.5))
    assert state.query() == "?q=pig&q=house&q_weight=2&q_weight=1&not=dog&not_weight=0.5"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min", "high"),
        ("min", "nan"),
        ("min", "2"),
        ("offset", "-1"),
        ("offset", "1e9"),
        ("variety", "101"),
        ("q", "x" * 2001),
        ("filter", "x" * 2001),
    ],
)
def test_what_cannot_be_read_is_named_and_left_out(field: str, value: str) -> None:
    state, problems = State.read([("q", "pig"), (field, value)])
    assert state == State((Term("q", "pig"),))
    assert len(problems) == 1
    assert problems[0].startswith(f"{field}: ")


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "1e9", "heavy"])
def test_a_weight_that_is_none_is_named_and_the_usual_one_is_used(weight: str) -> None:
    state, problems = State.read([("q", "pig"), ("q_weight", weight)])
    assert state.terms == (Term("q", "pig"),)
    assert problems[0].startswith("weight of q: ")
    assert problems[0].endswith("; 1 is used instead")
    state, problems = State.read([("not", "pig"), ("not_weight", weight)])
    assert state.terms == (Term("q", "pig", UNWANTED),)
    assert problems[0].endswith("; 0.2 is used instead")


def test_similar_begins_anew_and_exclude_goes_on() -> None:
    state = state_of("q=pig&tags=farm&offset=48&min=0.3")
    assert state.similar_to("1f").query() == "?like=1f&tags=farm"
    assert state.excluding("1f").query() == "?q=pig&unlike=1f&tags=farm&min=0.3"
    assert state_of("like=1f").excluding("1f").query() == "?unlike=1f"


def test_what_is_not_wanted_counts_as_much_as_everywhere_else() -> None:
    state = state_of("q=pig&not=house&unlike=1f&notpicture=ab")
    assert [term.weight for term in state.terms] == [1.0, UNWANTED, UNWANTED, UNWANTED]
    assert state.query() == "?q=pig&not=house&unlike=1f&notpicture=ab"


@pytest.mark.parametrize(("weight", "turned"), [(1.0, UNWANTED), (UNWANTED, 1.0), (0.5, -0.5), (-2.0, 2.0)])
def test_a_part_turned_round_keeps_a_weight_that_was_set(weight: float, turned: float) -> None:
    assert Term("q", "pig", weight).turned() == Term("q", "pig", turned)


# ---- Filters -------------------------------------------------------------------------------------------------


@given(WORDS)
def test_what_is_typed_into_a_field_is_only_a_value(text: str) -> None:
    assert parse(f"caption contains {quoted(text)}") == condition("caption", "contains", text)


def test_a_value_that_is_not_quoted_would_be_a_condition() -> None:
    """The broken twin."""
    typed = 'x" or width > 0 or label = "x'
    assert isinstance(parse(f'caption contains "{typed}"'), Combination)
    assert not isinstance(parse(f"caption contains {quoted(typed)}"), Combination)


def test_the_fields_become_one_filter() -> None:
    filters = Filters(
        name="holiday",
        tags="beach, sea ,",
        shape="landscape",
        width="1000",
        after="2024-05-01",
        before="2024-05-31",
        filter='label = "a" or label = "b"',
    )
    assert filters.text() == (
        'uri contains "holiday" and shape = "landscape" and width >= "1000" and tag = "beach" and tag = "sea" and '
        'modified >= 2024-05-01 and modified < 2024-06-01 and (label = "a" or label = "b")'
    )
    assert Filters().text() is None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("filter", "width > 3) or (width < 3", "found"),
        ("filter", "widht > 3", "did you mean 'width'"),
        ("width", "wide", "width: 'wide'"),
        ("shape", "round", "shape"),
        ("after", "yesterday", "after: 'yesterday' is not a date"),
        ("before", "2024-02-30", "before: '2024-02-30' is not a date"),
    ],
)
def test_a_field_with_a_mistake_is_named(field: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        Filters(**{field: value}).text()


def test_the_last_of_all_days_has_no_day_after_it() -> None:
    assert Filters(before="9999-12-31").text() == "modified < 9999-12-31"


# ---- HTML ----------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Every element of a page, with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def inline(text: str) -> list[str]:
    """What a strict policy would refuse: scripts and styles within the page, handlers, addresses of scripts."""
    found = []
    for tag, attributes in Elements(text).found:
        bad = [name for name in attributes if name.startswith("on") or name == "style"]
        bad += [
            name
            for name, value in attributes.items()
            if (value or "").strip().lower().startswith("javascript:")
        ]
        if bad or tag == "style" or (tag == "script" and not attributes.get("src")):
            found.append(f"{tag} {bad}")
    return found


ADDRESSES = (
    "/",
    "/?q=rooster&unique=1&min=0.4&tags=",
    "/?q=rooster&name=svg+onload",
    '/?q="><script>x</script>&not=<style>&filter=<img+src=x+onerror=x>',
    "/?offset=480",
    "/pictures/ID?q=%22%3E%3Cscript%3E",
    "/pictures/<script>",
    "/?like=<script>",
)


@pytest.fixture
def pages(html: TestClient, gallery: Any) -> dict[str, str]:
    """The HTML of addresses that have something hostile on them."""
    hostile = next(one for one in html.get('/v1/items?filter=uri contains "onload"').json()["items"])["id"]
    return {
        address: html.get(address.replace("ID", hostile), follow_redirects=True).text for address in ADDRESSES
    }


def test_nothing_hostile_becomes_an_element(pages: dict[str, str]) -> None:
    assert {address: inline(text) for address, text in pages.items() if inline(text)} == {}
    assert "&lt;svg onload=hacked=1&gt;" in pages["/pictures/ID?q=%22%3E%3Cscript%3E"]


def test_without_escaping_it_would(gallery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: the same page, not escaped."""
    careful = jinja2.Environment
    monkeypatch.setattr(jinja2, "Environment", lambda **options: careful(**options | {"autoescape": False}))
    service = gallery.service()
    app = create_app(service, service.settings)
    with TestClient(app, base_url="http://127.0.0.1:8000") as html:
        assert inline(html.get("/?q=rooster&name=svg+onload").text)


def test_every_template_escapes() -> None:
    for template in TEMPLATES.iterdir():
        text = template.read_text()
        assert "|safe" not in text.replace(" ", ""), template
        assert "autoescape" not in text, template


def test_a_form_leads_to_the_short_address(html: TestClient) -> None:
    response = html.get("/?q=+clock&q_weight=1&q=&not=&name=&min=&variety=0&file=pig.png&utm_source=x")
    assert response.status_code == 303
    assert response.headers["location"] == "/?q=clock"
    assert html.get("/?q=clock").status_code == 200


def test_a_name_that_is_no_unicode_can_be_shown() -> None:
    item = Item(
        id="1f",
        uri="/a/\udcff.png",
        source="/a",
        size=1,
        mtime_ns=10**30,
        sha256="0",
        caption="\ud800",
        tags=("\udcff",),
    )
    shown = card(State(), item)
    assert (shown.name, shown.caption) == ("?.png", "?")
    json.dumps([*facts(item)], ensure_ascii=False).encode()
    as_csv([Match(item, 0.5)]).encode()


def test_the_slider_reaches_from_the_weakest_to_the_strongest() -> None:
    item = Item(id="1f", uri="/a", source="/", size=1, mtime_ns=None, sha256="0")
    found = [Match(item, 0.318), Match(item, 0.207)]
    made = slider(State(), found)
    assert made is not None
    assert (made.least, made.most, made.value) == ("0.2", "0.32", "")
    assert made.marks == ("98.33", "5.83")
    beyond = slider(State(min_score=0.5), found)
    assert beyond is not None
    assert (beyond.least, beyond.most, beyond.value) == ("0.2", "0.5", "0.5")
    assert slider(State(), []) is None


def test_files_of_the_page_are_kept_by_browsers_and_nothing_else_is_served(html: TestClient) -> None:
    address = re.search(r'src="(/static/\w+/page\.js)"', html.get("/").text)
    assert address is not None
    response = html.get(address[1])
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in response.headers["cache-control"]
    folder = address[1].rpartition("/")[0]
    for name in ("page.py", "..%2fpage.py", "%2e%2e/page.py", "....//page.py", "%00", "templates"):
        assert html.get(f"{folder}/{name}").status_code == 404
    assert html.get("/static/0/page.js").status_code == 404


# ---- Uploaded pictures ---------------------------------------------------------------------------------------


def test_an_uploaded_picture_has_an_address_until_it_is_forgotten(
    gallery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    uploads = Uploads(clock=lambda: now[0])
    monkeypatch.setattr("diptych.serving.page.routes.Uploads", lambda: uploads)
    service = gallery.service()
    app = create_app(service, service.settings)
    with TestClient(app, base_url="http://127.0.0.1:8000", follow_redirects=False) as html:
        file = ("pig.png", gallery.bytes_of("pig face"), "image/png")
        response = html.post("/", data={"q": "", "unique": "1"}, files={"file": file})
        assert response.status_code == 303
        address = response.headers["location"]
        assert re.fullmatch(r"/\?picture=[\w-]{22}&unique=1", address)
        page = html.get(address).text
        assert "pig face" in page
        thumbnail = html.get(re.findall(r'src="(/uploads/[\w-]+)"', page)[0])
        assert thumbnail.headers["content-type"] == MEDIA_TYPE
        assert read_rgb(thumbnail.content).shape == (64, 64, 3)
        now[0] = 3601.0
        page = html.get(address).text
        assert "no longer stored" in page
        assert html.get(thumbnail.url.path).status_code == 404


def test_uploads_are_bounded_and_the_newest_stays() -> None:
    uploads = Uploads(most_bytes=100)
    tokens = [uploads.put(Upload(bytes(30), bytes(10))) for _ in range(3)]
    assert [uploads.get(token) is not None for token in tokens] == [False, True, True]
    large = uploads.put(Upload(bytes(1000), b""))
    assert uploads.get(large) is not None
    assert len(uploads) == 1


def test_a_damaged_picture_is_named_and_the_rest_of_the_question_stays(html: TestClient) -> None:
    response = html.post(
        "/", data={"q": "pig"}, files={"file": ("<b>.png", b"\x89PNG\r\n\x1a\n", "image/png")}
    )
    assert response.status_code == 400
    assert "&lt;b&gt;.png: " in response.text
    assert 'value="pig"' in response.text


def test_too_many_files_are_refused(html: TestClient) -> None:
    files = [("file", (f"{number}.png", b"x", "image/png")) for number in range(9)]
    assert html.post("/", files=files).status_code == 400


# ---- Files of results ----------------------------------------------------------------------------------------


def test_results_are_files_for_programs_and_for_spreadsheets(html: TestClient) -> None:
    response = html.get("/results.json?q=clock&offset=48")
    assert response.headers["content-disposition"] == 'attachment; filename="diptych-results.json"'
    found = response.json()
    assert found["query"] == "q=clock&offset=48"
    assert len(found["results"]) > PAGE
    assert set(found["results"][0]) == {
        *(
            "id",
            "uri",
            "score",
            "caption",
            "captions",
            "taken",
            "camera",
            "latitude",
            "longitude",
            "duplicates",
        )
    }
    rows = list(csv.DictReader(io.StringIO(html.get("/results.csv?q=clock").text)))
    assert [row["id"] for row in rows] == [row["id"] for row in found["results"]]
    assert html.get("/results.csv").status_code == 400
    assert html.get("/results.json?q=clock&filter=widht").status_code == 400


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_caption_is_no_formula(start: str) -> None:
    item = Item(id="1f", uri="/a", source="/", size=1, mtime_ns=None, sha256="0", caption=f"{start}cmd()")
    row = next(iter(csv.DictReader(io.StringIO(as_csv([Match(item, -0.5)]), newline=""))))
    assert row["caption"] == f"'{start}cmd()"
    assert float(row["score"]) == -0.5


# ---- When something is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OverloadedError("texts", 256, 7), 429, "The server is busy"),
        (SearchIndexError("/secret/place: damaged"), 503, "The index cannot be read"),
        (SettingsError("the parts cancel each other"), 400, "the parts cancel each other"),
    ],
)
def test_an_error_is_a_page_with_a_next_step(
    gallery: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, said: str
) -> None:
    service = gallery.service()

    async def failing(_: Any) -> Any:
        raise error

    monkeypatch.setattr(service, "search", failing)
    with TestClient(create_app(service, service.settings), base_url="http://127.0.0.1:8000") as html:
        response = html.get("/?q=pig")
    assert response.status_code == status
    assert said in response.text
    assert 'value="pig"' in response.text, "nothing that was typed is lost"
    assert "/secret" not in response.text
    assert [link for link in Elements(response.text).found if link[1].get("class") == "button"]
    assert response.headers.get("retry-after") == ("7" if status == 429 else None)


def test_an_index_that_cannot_be_read_is_a_page_too(gallery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = gallery.service()

    async def failing(_: Any) -> Any:
        raise SearchIndexError("/secret/place: damaged")

    monkeypatch.setattr(service, "item", failing)
    with TestClient(create_app(service, service.settings), base_url="http://127.0.0.1:8000") as html:
        for address in ("/?q=pig&like=1f", "/pictures/1f?q=pig", "/pictures/1f?q=pig&like=1f"):
            response = html.get(address)
            assert response.status_code == 503
            assert "The index cannot be read" in response.text
            assert 'value="pig"' in response.text
            assert "/secret" not in response.text


def test_a_picture_that_is_gone_is_said_and_the_rest_is_answered(html: TestClient) -> None:
    response = html.get("/?q=clock&like=00")
    assert response.status_code == 200
    assert "no longer in the index" in response.text
    assert CLOCK in response.text
    assert html.get("/pictures/00").status_code == 404


def test_what_cannot_be_read_is_said_above_the_rest(html: TestClient) -> None:
    response = html.get("/?q=clock&min=high")
    assert response.status_code == 400
    assert "expected a number from -1 to 1" in response.text
    assert CLOCK in response.text


def test_nothing_found_has_a_way_out(html: TestClient) -> None:
    text = html.get("/?q=clock&tags=nothing&min=0.99&hide=1").text
    assert "No matches" in text
    assert 'href="/?q=clock&amp;min=0.99&amp;hide=1">Without the filters' in text
    assert 'href="/?q=clock&amp;tags=nothing&amp;min=0.99">Show weak matches' in text


# ---- Signing in ----------------------------------------------------------------------------------------------

HOSTILE_NEXT = (
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "/%2f/evil.example",
    "javascript:alert(1)",
    "/pictures/..%2f..%2fetc",
    "/pictures//evil.example",
    "http://[::1",
    "/\t/evil.example",
    "/?q=x\r\nSet-Cookie: a=b",
)


def leaves(address: str) -> bool:
    """Whether a redirect to `address` could lead to another site, or be another header."""
    return not re.fullmatch(r"/(pictures/[0-9a-zA-Z]+)?(\?[\w=&%+.~-]*)?", address)


@pytest.mark.parametrize("address", HOSTILE_NEXT)
def test_signing_in_never_leads_to_another_site(address: str) -> None:
    assert not leaves(own_address(address))
    assert leaves(address) or "%" in address, "the broken twin, which takes the address as it is, is seen"


def test_an_own_address_is_kept() -> None:
    for address in ("/", "/?q=clock&offset=48", "/pictures/1f?q=clock"):
        assert own_address(address) == address


@pytest.fixture
def guarded(gallery: Any) -> Iterator[TestClient]:
    """A client of a server that demands a token."""
    service = gallery.service(Settings(tokens=Tokens([(Scope.READ, TOKEN)])))
    app = create_app(service, service.settings)
    with TestClient(app, base_url="http://127.0.0.1:8000", follow_redirects=False) as client:
        yield client


def test_a_browser_is_led_to_the_form_and_a_program_is_told(guarded: TestClient) -> None:
    page = guarded.get("/?q=clock", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=%2F%3Fq%3Dclock")
    assert guarded.get("/?q=clock", headers={"accept": "application/json"}).status_code == 401
    assert guarded.post("/", files={"file": ("a", b"x")}, headers={"accept": "text/html"}).status_code == 401
    assert guarded.get("/login").status_code == 200


def test_the_cookie_is_for_this_site_alone_and_stands_for_the_token(guarded: TestClient) -> None:
    wrong = guarded.post("/login", data={"token": "wrong", "next": "/?q=clock"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = guarded.post("/login", data={"token": TOKEN, "next": "/?q=clock"})
    assert (right.status_code, right.headers["location"]) == (303, "/?q=clock")
    cookie = right.headers["set-cookie"].lower()
    assert cookie.startswith(f"{COOKIE}={TOKEN}")
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert guarded.get("/?q=clock").status_code == 200
    assert guarded.get("/?q=clock", headers={"authorization": "Bearer wrong"}).status_code == 401
    out = guarded.post("/login", data={"token": ""})
    assert out.headers["location"] == "/login"
    assert guarded.get("/?q=clock").status_code == 401


def test_the_colours_are_remembered_by_a_cookie(html: TestClient) -> None:
    response = html.get("/theme?theme=dark&next=/?q=clock")
    assert response.headers["location"] == "/?q=clock"
    assert '<html lang="en" data-theme="dark">' in html.get("/?q=clock").text
    assert "set-cookie" not in html.get("/theme?theme=%22%3E&next=/").headers
