import json
from pathlib import Path

import pytest
from PIL import Image

from diptych.data import open_source
from diptych.tokenizer import default_tokenizer
from tests.cli.command_line import Run


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder with two good pictures, one cut short and one without words."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for number in range(4):
        Image.effect_noise((40, 30), 80).convert("RGB").save(folder / f"{number}.jpg")
        if number != 3:
            (folder / f"{number}.txt").write_text("words " * (100 if number == 0 else 1))
    cut = folder / "2.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    return folder


def test_verify_counts_by_reason_and_fails(damaged: Path, run: Run) -> None:
    outcome = run("data", "verify", damaged, "--json")
    assert outcome.code == 1
    answer = outcome.json
    assert (answer["ok"], answer["total"], answer["read"]) == (False, 4, 2)
    assert answer["bad"] == {"truncated image": 1, "no caption": 1}
    assert [(row["key"], row["reason"]) for row in answer["rows"]] == [
        ("2.jpg", "truncated image"),
        ("3.jpg", "no caption"),
    ]
    for people in (run("data", "verify", damaged), run("data", "verify", damaged, "--workers", 0)):
        assert people.code == 1
        assert "2 of 4 rows are good" in people.out
        assert "truncated image" in people.out
        assert "row 3:" in people.out


def test_verify_of_good_data_succeeds(pictures: Path, classes: Path, run: Run) -> None:
    assert run("data", "verify", pictures).code == 0
    assert run("data", "verify", classes).code == 1
    allowed = run("data", "verify", classes, "--allow-no-caption", "--json")
    assert (allowed.code, allowed.json["ok"], allowed.json["read"]) == (0, True, 6)


def test_inspect_tells_numbers_to_programs_and_to_people(damaged: Path, run: Run) -> None:
    answer = run("data", "inspect", damaged, "--json").json
    assert answer["source"] == str(damaged)
    assert (answer["count"], answer["formats"]) == (4, {"JPEG": 4})
    assert answer["width"] == {"least": 40, "median": 40.0, "mean": 40.0, "greatest": 40}
    # "words" is one token: a hundred of them, and the start and the end.
    assert answer["tokens"]["greatest"] == 102
    assert (answer["captions"], answer["too_long"], answer["without_caption"]) == (3, 1, 1)
    people = run("data", "inspect", damaged, "--rows", 2, "--show", 1).out
    assert "looked at 2 rows" in people
    assert "captions over 77 tokens: 1 of 2 (50.0 %)" in people
    assert "row 1  0.jpg  JPEG 40 x 30  words" in people


def test_pack_writes_what_training_reads(damaged: Path, run: Run) -> None:
    outcome = run("data", "pack", damaged, "--out", "shards", "--resize", 16, "--json")
    assert outcome.code == 0, outcome.err
    answer = outcome.json
    assert (answer["total"], answer["packed"], answer["shards"]) == (4, 2, 1)
    assert answer["dropped"] == {"truncated image": 1, "no caption": 1}
    assert len(open_source("shards")) == 2
    assert json.loads(Path("shards/pack.json").read_text())["total"] == 4
    again = run("data", "pack", damaged, "--out", "shards", "--resize", 16)
    assert again.code == 0
    assert "2 of 4 rows in 1 shard," in again.out
    assert "dropped rows are listed in shards/pack.json" in again.out
    other = run("data", "pack", damaged, "--out", "shards")
    assert other.code == 1
    assert "--out" in other.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "sample:test", "--rows", 0),
        ("verify", "sample:test", "--workers", -1),
        ("pack", "sample:test", "--out", "x", "--resize", 0),
        ("pack", "sample:test", "--out", "x", "--shard-size", 0),
        ("pack", "sample:test"),
    ],
)
def test_wrong_usage_is_told_apart_from_bad_data(arguments: tuple[object, ...], run: Run) -> None:
    assert run("data", *arguments).code == 2


def test_what_is_not_there_is_one_line(run: Run) -> None:
    for verb in ("inspect", "verify"):
        outcome = run("data", verb, "nowhere/at/all")
        assert outcome.code == 1
        assert "no such file or folder" in outcome.err
        assert len(outcome.err.splitlines()) == 1


def test_words_lists_the_ids_of_captions_that_occur_often_enough(tmp_path: Path, run: Run) -> None:
    table = tmp_path / "pairs.csv"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    table.write_text(
        "image,caption\n" + "".join(f"a.png,{text}\n" for text in ("red red cat", "red dog", "cat!"))
    )
    encode = default_tokenizer().encode
    red, cat, dog, mark = (encode(word)[0] for word in ("red", "cat", "dog", "!"))
    found = run("data", "words", table, "--least", 2, "--json").json
    assert found["known"] == sorted([red, cat])
    assert (found["distinct"], found["covered"]) == (4, pytest.approx(5 / 7))
    people = run("data", "words", table, "--least", 1)
    assert people.out.strip() == f"known = {sorted([red, cat, dog, mark])}"
    assert "4 of 4 ids occur in 1 rows or more" in people.err
    assert run("data", "words", table, "--least", 0).code == 2
