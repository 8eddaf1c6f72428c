"""`diptych index` in the wrong place, and on a source that has vanished; paths given as words."""

import shutil
from pathlib import Path

import pytest

from tests.cli.command_line import Run
from tests.photograph_files import exif_of, photograph_file


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        exif = exif_of(taken=f"2024:06:{1 + number:02} 10:00:00", model="X100", place=(47.5, 8.5))
        (folder / f"{number:02}.jpg").write_bytes(photograph_file(exif, colour=(20 * number, 99, 0)))
    return folder


@pytest.fixture
def album(empty_working_folder: Path) -> Path:
    return photos(empty_working_folder / "album", 12)


def test_an_index_inside_its_source_stays_out_of_itself(
    album: Path, tiny: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album)
    arguments = ("index", ".", "--index", "photos.index", "--model", tiny, "--json")
    assert run(*arguments).json["added"] == 12
    for _ in range(2):
        again = run(*arguments).json
        assert (again["added"], again["unchanged"], again["total"]) == (0, 12, 12)


def test_swapped_arguments_are_refused_and_nothing_is_written(album: Path, tiny: Path, run: Run) -> None:
    before = sorted(album.iterdir())
    for source in ("album", "album/", "elsewhere"):
        if source == "elsewhere":
            photos(album.parent / source, 1)
        outcome = run("index", source, "--index", "album", "--model", tiny)
        assert outcome.code == 1
        expected = (
            "holds other things (00.jpg, 01.jpg, 02.jpg, ...)" if source == "elsewhere" else "source itself"
        )
        assert expected in outcome.err
    assert sorted(album.iterdir()) == before
    assert run("index", "album", "--index", "i", "--model", tiny).code == 0
    outcome = run("index", "i", "--index", "album", "--model", tiny)
    assert (outcome.code, "swapped" in outcome.err) == (1, True)
    assert run("index", "i", "--index", "i", "--model", tiny).code == 1
    assert sorted(album.iterdir()) == before


def test_an_empty_folder_and_what_a_killed_run_left_are_taken(album: Path, tiny: Path, run: Run) -> None:
    place = album.parent / "i"
    (place / "thumbnails").mkdir(parents=True)
    (place / "lock").touch()
    (place / ".DS_Store").touch()
    assert run("index", "album", "--index", "i", "--model", tiny).code == 0


def test_a_source_that_has_vanished_empties_nothing_without_force(album: Path, tiny: Path, run: Run) -> None:
    arguments = ("index", "album", "--index", "i", "--model", tiny, "--json")
    assert run(*arguments).json["total"] == 12
    for number in range(10):
        (album / f"{number:02}.jpg").unlink()
    for gone, count in ((None, 10), ("folder is empty", 12), ("folder is gone", 12)):
        if gone == "folder is empty":
            shutil.rmtree(album)
            album.mkdir()
        elif gone:
            album.rmdir()
        outcome = run(*arguments)
        assert outcome.code == 1
        assert f"{count} of its 12 images" in outcome.err
        assert "--force" in outcome.err
        refused = outcome.json["refused"]
        assert (refused["count"], refused["total"]) == (count, 12)
        assert refused["first"][0] == str(album / "00.jpg")
    forced = run(*arguments, "--force")
    assert (forced.code, forced.json["removed"], forced.json["total"]) == (0, 12, 0)
    assert run("index", "never", "--index", "i", "--model", tiny, "--force").code == 1


@pytest.fixture
def search(album: Path, tiny: Path, run: Run) -> Run:
    assert run("index", "album", "--index", "i", "--model", tiny).code == 0
    return lambda *arguments: run("search", *arguments, "--index", "i", "--device", "cpu")


def test_an_image_file_as_the_query_is_taken_as_a_picture(search: Run) -> None:
    outcome = search("album/03.jpg", "--json")
    assert outcome.code == 0
    assert "taken as --image" in outcome.err
    assert outcome.json["query"] is None
    assert outcome.json["parts"] == [{"image": "album/03.jpg", "weight": 1.0}]
    assert outcome.json["results"][0]["uri"].endswith("/03.jpg")
    assert search("--text", "album/03.jpg", "--json").json["parts"][0]["text"] == "album/03.jpg"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("https://example.org/a.jpg",), "is an address, and Diptych does not download images"),
        (("album/99.jpg",), "no such image file"),
        (("a tree", "--not", "album/03.jpg"), "--not-image album/03.jpg"),
        (("--not", "http://example.org/a"), "an address"),
    ],
)
def test_a_path_or_an_address_as_words_is_an_error(
    search: Run, arguments: tuple[str, ...], said: str
) -> None:
    outcome = search(*arguments)
    assert outcome.code == 2
    assert said in outcome.err


def test_a_long_text_is_refused_without_an_option_that_is_not_there(search: Run) -> None:
    outcome = search("word " * 400)
    assert outcome.code == 1
    assert "shorten it" in outcome.err
    assert "pass truncate" not in outcome.err


def test_pictures_are_listed_and_sorted_by_date(search: Run) -> None:
    listed = search("--where", "taken >= 2024-06-10", "--json").json
    assert [Path(one["uri"]).stem for one in listed["results"]] == ["11", "10", "09"]
    assert listed["results"][0] | {"id": "", "uri": ""} == {
        "id": "",
        "uri": "",
        "score": None,
        "caption": None,
        "captions": [],
        "taken": "2024-06-12T10:00:00",
        "camera": "X100",
        "latitude": 47.5,
        "longitude": 8.5,
        "duplicates": [],
    }
    page = search("--sort", "oldest", "--count", "2", "--offset", "1", "--json").json
    assert ([Path(one["uri"]).stem for one in page["results"]], page["more"]) == (["01", "02"], True)
    found = search("a tree", "--sort", "newest", "-n", "3")
    assert [line.split()[1] for line in found.out.splitlines()[1:]] == [
        f"2024-06-{day}T10:00:00" for day in (12, 11, 10)
    ]
    assert search("--sort", "newest", "--unique").code == 2
    assert search("--where", "taken = 1").code == 2
