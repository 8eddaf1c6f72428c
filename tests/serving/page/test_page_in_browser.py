"""The page as people use it, in a real Chromium. Whatever a console says is a failure (`complaints`)."""

import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from diptych.serving.guard.tokens import Scope, Tokens
from diptych.serving.server_settings import Settings

CLOCK = "four o\u2019clock"
TOKEN = "a-token-of-more-than-thirty-two-characters"


def captions(page: Page) -> list[str]:
    page.wait_for_load_state("domcontentloaded")
    # Not the inner text, which is empty until the browser has laid the card out.
    return [text.strip() for text in page.locator(".card .caption").all_text_contents()]


def scores(page: Page) -> list[float]:
    page.wait_for_load_state("domcontentloaded")
    return [float(text) for text in page.locator(".card .score").all_text_contents()]


def give(page: Page, event: str, data: bytes, kind: str = "image/png") -> None:
    """Drop or paste a file, as the system would."""
    page.evaluate(
        """([event, data, kind]) => {
            const carried = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            carried.items.add(new File([bytes], "given.png", { type: kind }));
            const options = { bubbles: true, cancelable: true };
            if (event === "paste") {
                document.body.dispatchEvent(new ClipboardEvent("paste", { ...options, clipboardData: carried }));
            } else {
                for (const name of ["dragenter", "dragover", "drop"])
                    document.body.dispatchEvent(new DragEvent(name, { ...options, dataTransfer: carried }));
            }
        }""",
        [event, base64.b64encode(data).decode(), kind],
    )


def test_words_find_pictures_and_are_in_the_address(open_page: Any) -> None:
    page = open_page("/")
    expect(page.locator("h1")).to_have_text("Search 505 pictures")
    page.fill("#q", "clock")
    page.press("#q", "Enter")
    expect(page).to_have_url(re.compile(r"/\?q=clock$"))
    expect(page).to_have_title(re.compile("^Pictures like “clock” "))
    assert CLOCK in captions(page)[:3]
    assert scores(page) == sorted(scores(page), reverse=True)
    expect(page.locator("#announcer")).to_have_text("Matches 1 to 48")
    expect(page.locator(".summary small")).to_have_text(re.compile(r"^\d+ ms$"))
    expect(page.locator("#q")).to_be_focused()


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_given_picture_finds_itself(open_page: Any, gallery: Any, event: str) -> None:
    page = open_page("/?unique=1")
    give(page, event, gallery.bytes_of("pig face"))
    expect(page).to_have_url(re.compile(r"\?picture=[\w-]+&unique=1$"))
    assert captions(page)[0] == "pig face"
    assert scores(page)[0] > 0.99
    expect(page.locator(".chip img")).to_have_js_property("naturalWidth", 64)
    page.reload()
    assert captions(page)[0] == "pig face"
    assert not page.locator("body.dragging").count()


def test_a_chosen_picture_and_words_are_one_question(open_page: Any, gallery: Any) -> None:
    page = open_page("/?q=house")
    file = {"name": "pig.png", "mimeType": "image/png", "buffer": gallery.bytes_of("pig face")}
    page.set_input_files("#file", file)
    expect(page).to_have_url(re.compile(r"\?q=house&picture=[\w-]+$"))
    assert "pig face" in captions(page)
    assert captions(page)[0] != "pig face" or scores(page)[0] < 0.95, "the words count too"


def test_what_is_no_picture_is_said_and_changes_nothing(open_page: Any, complaints: Any) -> None:
    page = open_page("/?q=house")
    give(page, "drop", b"some text", "text/plain")
    expect(page.get_by_role("alert")).to_contain_text("This file is not a picture")
    expect(page).to_have_url(re.compile(r"\?q=house$"))
    complaints.expect("Failed to load resource: the server responded with a status of 400")
    give(page, "drop", b"GIF89a and then nothing")
    expect(page.get_by_role("alert")).to_contain_text("given.png")
    assert captions(page)[0] == "house with garden"


def test_words_can_be_unwanted(open_page: Any) -> None:
    page = open_page("/?q=clock")
    before = captions(page)
    page.fill("#not", "four o'clock")
    page.press("#not", "Enter")
    expect(page).to_have_url(re.compile(r"\?q=clock&not=four\+o%27clock$"))
    assert captions(page) != before
    expect(page.locator(".chip.not .words")).to_have_text("four o'clock")
    page.click(".chip .sign")
    expect(page).to_have_url(re.compile(r"\?q=clock&q=four\+o%27clock$"))
    page.click(".chip .remove")
    expect(page).to_have_url(re.compile(r"\?q=clock$"))
    assert captions(page) == before


def test_weights_move_the_result(open_page: Any) -> None:
    page = open_page("/?q=pig&q=house")
    page.fill("#w-1", "3")
    page.press("#w-1", "Tab")
    expect(page).to_have_url(re.compile(r"q_weight=1&q_weight=3$"))
    assert "house" in captions(page)[0]
    page.fill("#w-1", "0.2")
    page.press("#w-1", "Tab")
    expect(page).to_have_url(re.compile(r"q_weight=1&q_weight=0\.2$"))
    assert "house" not in captions(page)[0]


def test_similar_and_exclude_work_on_one_picture(open_page: Any, gallery: Any) -> None:
    page = open_page("/?q=clock")
    card = page.locator(".card", has_text=CLOCK)
    card.hover()
    card.locator(".similar").click()
    clock = gallery.item(CLOCK).id
    expect(page).to_have_url(re.compile(rf"\?like={clock}$"))
    assert CLOCK[-6:] in captions(page)[0]
    assert CLOCK not in captions(page), "it is the question, not an answer"
    other = page.locator(".card").first
    other.hover()
    other.locator(".exclude").click()
    expect(page).to_have_url(re.compile(rf"\?like={clock}&unlike=\w+$"))
    expect(page.locator(".chip img")).to_have_count(2)


def test_filters_narrow_and_can_be_taken_away(open_page: Any) -> None:
    page = open_page("/?q=clock")
    page.click("#filters > summary")
    page.fill("#f-tags", "time")
    page.press("#f-tags", "Enter")
    expect(page).to_have_url(re.compile(r"tags=time"))
    assert len(captions(page)) < 20
    expect(page.locator("#filters")).to_have_attribute("open", "")
    page.fill("#f-filter", 'not caption contains "thirty"')
    page.click(".apply button")
    expect(page.locator(".pill")).to_have_count(2)
    assert not [caption for caption in captions(page) if "thirty" in caption]
    page.locator(".pill .remove").first.click()
    expect(page.locator(".pill")).to_have_count(1)
    page.click(".apply a")
    expect(page).to_have_url(re.compile(r"\?q=clock$"))


def test_a_filter_with_a_mistake_is_explained_with_a_way_out(open_page: Any, complaints: Any) -> None:
    complaints.expect("Failed to load resource: the server responded with a status of 400")
    page = open_page("/?q=clock&filter=widht+%3E+3")
    expect(page.locator("main")).to_contain_text("did you mean 'width'?")
    expect(page.locator("#f-filter")).to_have_value("widht > 3")
    page.click("text=Without the filters")
    expect(page.locator(".card").first).to_be_visible()


def test_the_threshold_divides_strong_from_weak(open_page: Any) -> None:
    page = open_page("/?q=clock")
    expect(page.locator("#divider")).to_have_count(0)
    threshold = (scores(page)[4] + scores(page)[5]) / 2
    page.evaluate(
        """(value) => {
            const slider = document.querySelector("#slider");
            slider.step = "any";
            slider.value = value;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        threshold,
    )
    expect(page.locator(".card.weak")).to_have_count(43)
    place = page.evaluate(
        "[...document.querySelector('#grid').children].findIndex((one) => one.id === 'divider')"
    )
    assert place == 5
    page.evaluate("document.querySelector('#slider').dispatchEvent(new Event('change', { bubbles: true }))")
    expect(page).to_have_url(re.compile(r"&min=0\.\d+$"))
    expect(page.locator(".card.weak")).to_have_count(43)
    page.check("#hide")
    expect(page).to_have_url(re.compile(r"&hide=1$"))
    expect(page.locator(".card")).to_have_count(5)
    expect(page.locator("#divider")).to_have_count(0)


def test_pages_follow_one_another_and_the_way_back_is_kept(open_page: Any) -> None:
    page = open_page("/?q=clock")
    first = captions(page)
    page.click("#next")
    expect(page).to_have_url(re.compile(r"offset=48$"))
    expect(page.locator(".summary")).to_contain_text("Matches 49 to 96")
    assert captions(page) != first
    page.evaluate("scrollTo(0, 300)")
    page.evaluate("document.querySelector('#next').click()")
    expect(page.locator(".summary")).to_contain_text("Matches 97 to 144")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(page.locator(".summary")).to_contain_text("Matches 49 to 96")
    expect(page.locator("#q")).to_have_value("clock")
    assert page.evaluate("scrollY") == 300
    page.go_back()
    expect(page.locator(".summary")).to_contain_text("Matches 1 to 48")
    assert captions(page) == first
    page.go_forward()
    expect(page.locator(".summary")).to_contain_text("Matches 49 to 96")


def test_the_grid_is_one_stop_and_arrows_move_in_it(open_page: Any) -> None:
    page = open_page("/?q=clock")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.locator(".open").first.focus()
    assert page.locator("#grid [tabindex='0']").count() == 3, "one card: the picture, similar, exclude"
    columns = page.evaluate(
        "[...document.querySelectorAll('.card')].filter((card, _, all) => card.offsetTop === all[0].offsetTop).length"
    )
    for key, place in [
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("ArrowLeft", columns),
        ("ArrowUp", 0),
        ("End", 47),
        ("ArrowDown", 47),
        ("Home", 0),
        ("ArrowLeft", 0),
    ]:
        page.keyboard.press(key)
        expect(page.locator(".open").nth(place)).to_be_focused()
    page.keyboard.press("x")
    expect(page).to_have_url(re.compile(r"unlike="))
    expect(page.locator(".open").first).to_be_focused()
    page.keyboard.press("s")
    expect(page).to_have_url(re.compile(r"\?like=\w+$"))


def test_single_letters_can_be_turned_off(open_page: Any) -> None:
    page = open_page("/?q=clock")
    page.uncheck("#shortcuts")
    page.reload()
    expect(page.locator("#shortcuts")).not_to_be_checked()
    page.locator(".open").first.focus()
    page.keyboard.press("/")
    page.keyboard.press("s")
    expect(page.locator(".open").first).to_be_focused()
    expect(page).to_have_url(re.compile(r"\?q=clock$"))


def test_the_lightbox_shows_a_picture_and_gives_the_focus_back(open_page: Any) -> None:
    page = open_page("/?q=clock")
    names = captions(page)
    page.locator(".open").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog h1")).to_have_text(names[1])
    expect(page).to_have_url(re.compile(r"/pictures/\w+\?q=clock$"))
    expect(page.locator("dialog img")).to_have_js_property("naturalWidth", 64)
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog h1")).to_have_text(names[2])
    page.click("#lightbox-previous")
    page.click("#lightbox-previous")
    expect(page.locator("dialog h1")).to_have_text(names[0])
    expect(page.locator("#lightbox-previous")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    expect(page).to_have_url(re.compile(r"/\?q=clock$"))
    expect(page.locator(".open").first).to_be_focused()
    page.locator(".open").nth(3).click()
    expect(page.locator("dialog h1")).to_have_text(names[3])
    page.go_back()
    expect(page.locator("dialog")).to_be_hidden()
    page.go_forward()
    expect(page.locator("dialog h1")).to_have_text(names[3])
    page.click("dialog .do a >> nth=0")
    expect(page).to_have_url(re.compile(r"/\?like=\w+$"))
    expect(page.locator("dialog")).to_be_hidden()
    page.go_back()
    expect(page.locator("#heading")).to_have_text("Pictures like “clock”")
    assert captions(page) == names


def test_results_can_be_taken_away_as_files(open_page: Any, tmp_path: Path) -> None:
    page = open_page("/?q=clock&tags=time")
    for name in ("JSON", "CSV"):
        page.click("#download > summary")
        with page.expect_download() as started:
            page.click(f"#download a:has-text('{name}')")
        started.value.save_as(tmp_path / name)
        page.keyboard.press("Escape")
        page.reload()
    results = json.loads((tmp_path / "JSON").read_text())["results"]
    assert [f"{row['score']:.3f}" for row in results] == page.locator(".score").all_text_contents()
    assert (tmp_path / "CSV").read_text().count("\n") == len(results) + 1


def test_the_colours_follow_the_system_until_somebody_chooses(open_page: Any) -> None:
    def background(page: Page) -> Any:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page = open_page("/?q=clock", scheme="dark")
    dark = background(page)
    page.click(".light-on")
    light = background(page)
    assert light != dark
    expect(page.locator(".dark-on")).to_be_focused()
    page.reload()
    assert background(page) == light
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_duplicates_are_one_stack(open_page: Any) -> None:
    page = open_page("/?q=rooster&unique=1")
    stack = page.locator(".card.stacked").first
    expect(stack.locator("summary")).to_contain_text("5")
    stack.locator("summary").click()
    other = stack.locator("li a").first
    name = (other.text_content() or "").strip()
    assert name != (stack.locator(".caption").text_content() or "").strip()
    other.click()
    expect(page.locator("dialog dd").first).to_contain_text(name)
    expect(page.locator("dialog img")).to_have_js_property("complete", True)


def test_hostile_names_and_captions_are_only_words(open_page: Any, gallery: Any) -> None:
    hostile = '<script>hacked=1</script>"><img src=x onerror=hacked=1>'
    page = open_page("/")
    page.fill("#q", hostile)
    page.press("#q", "Enter")
    expect(page.locator("h1")).to_contain_text(hostile)
    page.goto("/?q=rooster&name=svg+onload")
    expect(page.locator(".card .caption").first).to_contain_text("<script>hacked = 1</script>")
    page.locator(".open").first.click()
    expect(page.locator("dialog dl")).to_contain_text("<svg onload=hacked=1>")
    page.reload()
    expect(page.locator("dl")).to_contain_text("<svg onload=hacked=1>")
    assert page.evaluate("typeof hacked") == "undefined"


def test_a_server_that_is_away_is_said_and_nothing_is_lost(open_page: Any, complaints: Any) -> None:
    page = open_page("/?q=clock")
    complaints.expect("Failed to load resource: net::ERR_FAILED")
    page.route("**/*", lambda route: route.abort())
    page.click("#next")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    assert len(captions(page)) == 48
    page.unroute("**/*")
    page.click("#next")
    expect(page).to_have_url(re.compile(r"offset=48$"))


def test_a_slow_answer_leaves_outlines_and_the_last_question_wins(
    open_page: Any, gallery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = gallery.service()
    search = service.search

    async def slow(question: Any) -> Any:
        await asyncio.sleep(1.0 if question.parts[0].text == "pig" else 0)
        return await search(question)

    monkeypatch.setattr(service, "search", slow)
    page = open_page("/?q=clock", service=service)
    page.fill("#q", "pig")
    page.press("#q", "Enter")
    expect(page.locator("#results.busy")).to_have_attribute("aria-busy", "true")
    page.fill("#q", "house")
    page.press("#q", "Enter")
    expect(page.locator("#heading")).to_have_text("Pictures like “house”")
    page.wait_for_timeout(1200)
    expect(page.locator("#heading")).to_have_text("Pictures like “house”")
    expect(page.locator("#results.busy")).to_have_count(0)
    expect(page).to_have_url(re.compile(r"\?q=house$"))


def test_pasted_words_are_words(open_page: Any) -> None:
    page = open_page("/?q=house")
    page.evaluate(
        """() => {
            const carried = new DataTransfer();
            carried.items.add(new File(["x"], "words.png", { type: "image/png" }));
            carried.setData("text/plain", "words");
            const paste = new ClipboardEvent("paste", { bubbles: true, cancelable: true, clipboardData: carried });
            window.prevented = !document.querySelector("#q").dispatchEvent(paste);
        }"""
    )
    assert page.evaluate("prevented") is False
    expect(page).to_have_url(re.compile(r"\?q=house$"))


def test_everything_works_without_a_script(open_page: Any, gallery: Any) -> None:
    page = open_page("/", javascript=False)
    page.fill("#q", "clock")
    page.click(".box .primary")
    expect(page).to_have_url(re.compile(r"/\?q=clock$"))
    assert CLOCK in captions(page)[:3]
    page.fill("#not", "thirty")
    page.fill("#least", "0.5")
    page.click("text=Set")
    expect(page).to_have_url(re.compile(r"\?q=clock&not=thirty&min=0\.5$"))
    expect(page.locator("#divider")).to_be_visible()
    page.click(".chip.not .remove")
    expect(page).to_have_url(re.compile(r"\?q=clock&min=0\.5$"))
    page.click("#next")
    expect(page.locator(".summary")).to_contain_text("Matches 49 to 96")


def test_filters_and_links_work_without_a_script(open_page: Any) -> None:
    page = open_page("/?q=clock&caption=clock", javascript=False)
    page.click("#filters > summary")
    page.fill("#f-tags", "time")
    page.click(".apply button")
    expect(page).to_have_url(re.compile(r"\?q=clock&caption=clock&tags=time$"))
    page.click(".pill .remove >> nth=0")
    expect(page).to_have_url(re.compile(r"\?q=clock&tags=time$"))
    page.locator(".similar").first.click(force=True)
    expect(page).to_have_url(re.compile(r"\?like=\w+&tags=time$"))
    page.locator(".open").first.click()
    expect(page.locator("#picture h1")).to_be_visible()
    page.click("text=Back to the results")
    expect(page).to_have_url(re.compile(r"/\?like="))


def test_a_picture_and_the_colours_can_be_chosen_without_a_script(open_page: Any, gallery: Any) -> None:
    page = open_page("/", javascript=False)
    file = {"name": "pig.png", "mimeType": "image/png", "buffer": gallery.bytes_of("pig face")}
    page.set_input_files("#file", file)
    page.click("text=Search with this picture")
    expect(page).to_have_url(re.compile(r"/\?picture=[\w-]+$"))
    assert captions(page)[0] == "pig face"
    page.click(".dark-on")
    expect(page).to_have_url(re.compile(r"/\?picture=[\w-]+$"))
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


@pytest.mark.parametrize("javascript", [True, False])
def test_a_server_with_tokens_asks_for_one(
    open_page: Any, gallery: Any, complaints: Any, javascript: bool
) -> None:
    complaints.expect("Failed to load resource: the server responded with a status of 401")
    service = gallery.service(Settings(tokens=Tokens([(Scope.READ, TOKEN)])))
    page = open_page("/?q=clock", service=service, javascript=javascript)
    expect(page).to_have_url(re.compile(r"/login\?next="))
    page.fill("[name=token]", "something else that is long enough to be one")
    page.click("text=Sign in >> nth=-1")
    expect(page.get_by_role("alert")).to_contain_text("does not know this token")
    page.fill("[name=token]", TOKEN)
    page.press("[name=token]", "Enter")
    expect(page).to_have_url(re.compile(r"/\?q=clock$"))
    expect(page.locator(".card img").first).to_have_attribute("src", re.compile("/v1/items/"))
    cookie = next(one for one in page.context.cookies() if one["name"] == "diptych_token")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.click("text=Sign out")
    expect(page).to_have_url(re.compile(r"/login$"))
    page.goto("/?q=clock")
    expect(page).to_have_url(re.compile(r"/login\?next="))
