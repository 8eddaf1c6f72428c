"""`diptych search`: its parts, its weights, its pages, and what it says when it cannot answer."""

import gc
import shutil
from pathlib import Path

import pytest

from diptych.search.image_index import Index
from diptych.search.query import UNWANTED
from tests.cli.command_line import Outcome, Run


@pytest.fixture(scope="session")
def filled(tiny: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of a red, a green and a blue square, and a second red one with a strange caption."""
    from diptych import load  # noqa: PLC0415 - what the commands under test import themselves
    from diptych.data.sources.opening import open_source  # noqa: PLC0415
    from diptych.search.building.build import refresh  # noqa: PLC0415
    from diptych.search.encoder import Encoder  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("data") / "four"
    shutil.copytree(pictures, folder)
    shutil.copy(folder / "red.png", folder / "red again.png")
    (folder / "red again.txt").write_text("a red \x1b[31msquare\x1b[0m\tagain")
    place = tmp_path_factory.mktemp("indexes") / "i"
    refresh(place, open_source(folder), Encoder(*load(tiny, "cpu"), str(tiny)))
    return place


@pytest.fixture
def search(filled: Path, run: Run) -> Run:
    def search(*arguments: object) -> Outcome:
        return run("search", *arguments, "--index", filled, "--device", "cpu", "--precision", "float32")

    return search


def names(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.err
    return [Path(result["uri"]).stem for result in outcome.json["results"]]


def test_words_without_quotes_are_not_guessed_at(search: Run) -> None:
    outcome = search("cat", "--not", "brown", "dog")
    assert (outcome.code, outcome.out) == (2, "")
    assert "'cat dog': the words of a text need quotes" in outcome.err


def test_every_option_for_a_part_becomes_one(search: Run, pictures: Path, filled: Path) -> None:
    red = next(item for item in Index(filled).items() if item.uri.endswith("/red.png"))
    answer = search(
        *(
            "one:",
            "--text",
            "two: 0.5",
            "--text",
            "three",
            "--image",
            pictures / "red.png",
            "--like",
            red.uri,
        ),
        *("--not", "four", "--not-image", pictures / "blue.png", "--not-like", red.id, "--json"),
        *("--weight", "two: 0.5", "0.25", "--weight", "four", 2, "--weight", red.id, 0.3),
    ).json
    assert answer["query"] == "one:"
    assert answer["parts"] == [
        {"text": "one:", "weight": 1.0},
        {"text": "two: 0.5", "weight": 0.25},
        {"text": "three", "weight": 1.0},
        {"image": str(pictures / "red.png"), "weight": 1.0},
        {"id": red.id, "weight": 1.0},
        {"text": "four", "weight": -2.0},
        {"image": str(pictures / "blue.png"), "weight": UNWANTED},
        {"id": red.id, "weight": -0.3},
    ]
    assert red.id not in {result["id"] for result in answer["results"]}
    assert answer["more"] is False
    assert answer["seconds"].keys() == {"embedding", "searching"}


def test_a_part_that_is_given_twice_counts_twice(search: Run) -> None:
    parts = search("cat", "--text", "cat", "--text", "dog", "--json").json["parts"]
    assert [part["text"] for part in parts] == ["cat", "cat", "dog"]


def test_like_takes_a_file_as_it_is_typed(search: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = next(item for item in Index(filled).items() if item.uri.endswith("/green.png"))
    monkeypatch.chdir(Path(item.uri).parent)
    assert (
        search("--like", "green.png", "--json").json["results"]
        == search("--like", item.id, "--json").json["results"]
    )


def test_pages_follow_one_another(search: Run) -> None:
    whole = names(search("square", "--json"))
    assert len(whole) == 4
    assert [
        *names(search("square", "-n", 3, "--json")),
        *names(search("square", "--offset", 3, "--json")),
    ] == whole
    assert search("square", "-n", 3, "--json").json["more"] is True


def test_filters_and_a_least_score_narrow_the_answer(search: Run, pictures: Path) -> None:
    assert set(names(search("square", "--filter", "uri contains red", "--json"))) == {"red", "red again"}
    found = search("--image", pictures / "red.png", "--min-score", 0.999, "--json")
    assert set(names(found)) == {"red", "red again"}


def test_unique_shows_one_of_equal_pictures(search: Run, pictures: Path) -> None:
    answer = search("--image", pictures / "red.png", "--unique", "--min-score", "0.999", "--json").json
    (result,) = answer["results"]
    (same,) = result["duplicates"]
    assert same.keys() == {"id", "uri"}
    assert {Path(result["uri"]).stem, Path(same["uri"]).stem} == {"red", "red again"}
    lines = search("--image", pictures / "red.png", "--unique", "--min-score", 0.999).out.splitlines()
    assert lines[0].split() == ["score", "same", "image", "caption"]
    assert lines[1].split()[1] == "+1"


def test_a_table_of_pictures_without_captions_has_no_column_for_them(
    pictures: Path, tiny: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(pictures / "red.png", tmp_path / "photos/a b.png")
    assert run("index", tmp_path / "photos", "--index", tmp_path / "i", "--model", tiny).code == 0
    listed = run("search", "--sort", "newest", "--index", tmp_path / "i")
    assert listed.out.splitlines()[0].split() == ["taken", "image"]
    removed = run("remove", tmp_path / "photos/a b.png", "--index", tmp_path / "i", "--purge")
    assert removed.out == f"{tmp_path / 'i'}: 1 image removed, and nothing of it is left\n"


def test_diversity_moves_an_equal_picture_back(search: Run, pictures: Path) -> None:
    plain = names(search("--image", pictures / "red.png", "--json"))
    diverse = names(search("--image", pictures / "red.png", "--diversity", 0.9, "--json"))
    assert {*plain[:2]} == {"red", "red again"}
    assert diverse[0] == plain[0]
    assert diverse[1] != plain[1]
    assert sorted(diverse) == sorted(plain)


def test_exact_is_the_same_in_a_small_index(search: Run) -> None:
    assert names(search("square", "--exact", "--json")) == names(search("square", "--json"))


def test_a_caption_cannot_command_the_terminal(search: Run) -> None:
    out = search("square").out
    assert "\x1b" not in out
    assert "a red \\x1b[31msquare\\x1b[0m\\tagain" in out


def test_captions_are_cut_to_the_width_of_a_terminal(search: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    captions = [line.rpartition(".png")[2].strip() for line in search("square").out.splitlines()[1:]]
    assert max(map(len, captions)) == 20
    assert "a red \\x1b[31msquar…" in captions


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ([], 2, ["nothing to search for"]),
        ([""], 2, ["nothing to search for"]),
        (["cat", "--not", " "], 2, ["the text is empty"]),
        (["cat", "--not", "cat", "--weight", "cat", 1], 2, ["--weight 'cat'", "is 2 of the parts"]),
        (["cat", "--weight", "dog", 1], 2, ["--weight 'dog'", "is 0 of the parts", "'cat'"]),
        (["cat", "--weight", "cat", -1], 2, ["above 0", "--not"]),
        (["cat", "--weight", "cat", "nan"], 2, ["above 0"]),
        (["cat", "--weight", "cat", 1000], 2, ["100"]),
        (["cat", "--text", "cat", "--weight", "cat", 1], 2, ["is 2 of the parts"]),
        (["cat", "--count", 0], 2, ["count 0"]),
        (["cat", "--offset", -1], 2, ["offset -1"]),
        (["cat", "--count", 20_000], 2, ["10,000"]),
        (["cat", "--min-score", 2], 2, ["minimum score 2"]),
        (["cat", "--diversity", 2], 2, ["diversity 2"]),
        (["cat", "--filter", "colour = red"], 2, ["unknown field 'colour'"]),
        (["cat", "--filter", "width >"], 2, ["width >", "expected"]),
        (["--like", "absent.png"], 1, ["absent.png: not in the index", "--image"]),
        (["--like", "f" * 32], 1, ["f" * 32, "not in the index"]),
        (["--image", "absent.png"], 1, ["absent.png"]),
        (["--text", "cat", "--text", "cat", "--not", "cat", "--not-image", "absent.png"], 1, ["absent.png"]),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    search: Run, arguments: list[object], code: int, parts: list[str]
) -> None:
    outcome = search(*arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("error: ")
    assert all(part in outcome.err for part in parts), outcome.err


def test_parts_that_cancel_each_other_say_so(search: Run, pictures: Path) -> None:
    red = pictures / "red.png"
    outcome = search(
        "--image", red, "--not-image", red.parent / "." / "red.png", "--text", "x", "--weight", "x", "1e-9"
    )
    assert outcome.code == 0  # with different weights something is left
    outcome = search("cat", "--not", "cat ", "--weight", "cat ", 1)
    assert (outcome.code, outcome.out) == (1, "")
    assert "cancel each other" in outcome.err


def test_an_answer_without_results_says_why(search: Run) -> None:
    for arguments, reason in (
        (["--min-score", 0.999], "nothing found"),
        (["--filter", "width > 9999"], "no image meets the filter"),
        (["--offset", 10], "no more than 10 results"),
    ):
        outcome = search("square", *arguments)
        assert (outcome.code, outcome.out) == (0, "")
        assert reason in outcome.err
        assert search("square", *arguments, "--json").json["results"] == []


def test_an_index_without_pictures_is_an_error_with_what_to_run(tiny: Path, pictures: Path, run: Run) -> None:
    run("index", pictures, "--index", "i", "--model", tiny)
    run("remove", pictures, "--index", "i")
    outcome = run("search", "red", "--index", "i")
    assert outcome.code == 1
    assert "no images; add some: diptych index SOURCE --index i" in outcome.err


def test_the_garbage_collector_works_again_after_a_search(search: Run) -> None:
    assert gc.isenabled()
    search("square")
    assert gc.isenabled()
    search("--like", "absent.png")
    assert gc.isenabled()
