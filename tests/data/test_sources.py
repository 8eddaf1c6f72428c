import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.data import Source, open_source
from diptych.data.files import patterns
from diptych.data.files.patterns import expand
from diptych.data.sources import opening
from diptych.errors import DataError, SettingsError
from tests.data.tar_files import pairs, write_tar

pytestmark = pytest.mark.usefixtures("user_cache")


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """A folder with four shards of one pair each."""
    for number in range(4):
        write_tar(tmp_path / f"{number:03}.tar", pairs([f"k{number}"]))
    return tmp_path


def keys(source: Source) -> list[str]:
    return [source[position].key for position in range(len(source))]


def test_shards_are_found_by_pattern_braces_list_and_folder(four: Path) -> None:
    everything = ["000/k0", "001/k1", "002/k2", "003/k3"]
    assert keys(open_source(f"{four}/*.tar")) == everything
    assert keys(open_source(f"{four}/{{000..003}}.tar")) == everything
    assert keys(open_source(four)) == everything
    assert keys(open_source([four / "000.tar", f"{four}/00[123].tar"])) == everything
    assert keys(open_source(f"{four}/{{003..002}}.tar")) == ["003/k3", "002/k2"]
    assert keys(open_source(f"{four}/{{003,001}}.tar")) == ["003/k3", "001/k1"]
    assert keys(open_source(four / "002.tar")) == ["k2"]


def test_order_and_choice_of_shards_change_the_fingerprint(four: Path) -> None:
    made = [open_source(four), open_source(f"{four}/{{003..000}}.tar"), open_source(f"{four}/00[12].tar")]
    assert len({source.fingerprint for source in made}) == 3
    assert open_source(f"{four}/*.tar").fingerprint == made[0].fingerprint


def test_a_missing_shard_of_a_range_is_an_error(four: Path) -> None:
    (four / "002.tar").unlink()
    with pytest.raises(DataError, match=r"002\.tar: no such file or folder"):
        open_source(f"{four}/{{000..003}}.tar")


def test_braces_are_spelt_out_as_the_shell_does(tmp_path: Path) -> None:
    for name in ("a08", "a09", "a10", "b8", "b9", "b09", "b10", "x{y}.tar"):
        (tmp_path / name).touch()

    def names(pattern: str) -> list[str]:
        return [path.name for path in expand(f"{tmp_path}/{pattern}")]

    assert names("a{08..10}") == ["a08", "a09", "a10"]
    assert names("b{8..10}") == ["b8", "b9", "b10"]
    assert names("{a,b}10") == ["a10", "b10"]
    assert names("{a,b}{09..10}") == ["a09", "a10", "b09", "b10"]
    assert names("x{y}.tar") == ["x{y}.tar"]
    with pytest.raises(DataError, match="nested braces"):
        names("{a{08,09},b9}")


@given(first=st.integers(0, 300), last=st.integers(0, 300), width=st.integers(1, 5))
def test_number_ranges_count_every_number_once(first: int, last: int, width: int) -> None:
    spelt = list(patterns._braces(f"x{{{first:0{width}}..{last:0{width}}}}.tar"))
    step = 1 if first <= last else -1
    assert [int(name[1:-4]) for name in spelt] == list(range(first, last + step, step))


def test_a_folder_with_images_is_not_read_as_shards(four: Path) -> None:
    (four / "cat").mkdir()
    (four / "cat" / "a.jpg").touch()
    source = open_source(four)
    assert keys(source) == ["cat/a.jpg"]
    assert "4 (not an image: .tar): 000.tar, 001.tar, 002.tar, and 1 more" in source.describe()


def test_what_is_not_there_is_an_error_that_names_the_nearest(four: Path) -> None:
    (four / "captions.csv").touch()
    with pytest.raises(
        DataError, match=r"caption\.csv: no such file or folder; did you mean .*captions\.csv\?"
    ):
        open_source(four / "caption.csv")
    with pytest.raises(DataError, match=r"caption\.csv: no such file or folder"):
        open_source(four / "caption.csv", caption_column="x")
    with pytest.raises(DataError, match="no file matches this pattern"):
        open_source(f"{four}/x*.tar")
    with pytest.raises(DataError, match=r"expected a folder of images, a table .*, sample:train or another"):
        open_source("nowhere/at/all")


def test_what_is_no_source_is_an_error_that_says_what_is(four: Path) -> None:
    for name, message in [
        ("a.jpg", "is a single image"),
        ("a.zip", "its name does not show what it is"),
        ("a.tar.gz", "the archive is cut short"),
    ]:
        (four / name).touch()
        with pytest.raises(DataError, match=message):
            open_source(four / name)
    with pytest.raises(DataError, match="the list of shards is empty"):
        open_source([])
    for name in ("a.csv", "b.csv"):
        (four / name).write_text("image\na.jpg\n")
    for pattern in ("*.csv", "a*.csv"):
        with pytest.raises(DataError, match="is a table, which is opened alone"):
            open_source(f"{four}/{pattern}")


def test_the_same_file_name_twice_is_an_error(four: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_tar(tmp_path / "other" / "000.tar", pairs(["1"]))
    with pytest.raises(DataError, match="the same file name"):
        open_source([four / "000.tar", tmp_path / "other" / "000.tar"])


@pytest.mark.parametrize("option", [{"image_column": "x"}, {"caption_column": "x"}, {"delimiter": ","}])
def test_options_of_tables_are_refused_for_others(four: Path, option: dict[str, str]) -> None:
    for location in (four, four / "000.tar", "sample:test"):
        with pytest.raises(SettingsError, match="not a table"):
            open_source(location, **option)


def test_opening_a_source_imports_no_torch() -> None:
    package = Path(opening.__file__).parent
    for file in (package.parent / "example.py", *sorted(package.glob("*.py"))):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        } | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not any(module.split(".")[0] == "torch" for module in imported), file
