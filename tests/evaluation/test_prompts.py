"""Template sets and label files."""

import importlib.util
import os
import runpy
from pathlib import Path

import pytest

from diptych.errors import DataError, SettingsError
from diptych.evaluation.zero_shot.class_labels import LabelSet, labels_from, read_labels
from diptych.evaluation.zero_shot.prompts import (
    TEMPLATES,
    check_templates,
    fill,
    read_templates,
    templates_named,
)


@pytest.mark.parametrize(
    ("name", "published"),
    [("imagenet", "OPENAI_IMAGENET_TEMPLATES"), ("imagenet-7", "SIMPLE_IMAGENET_TEMPLATES")],
)
def test_published_templates_equal_open_clips_copy(name: str, published: str) -> None:
    # The one file, since the package around it takes many seconds to import.
    open_clip = importlib.util.find_spec("open_clip")
    assert open_clip is not None
    assert open_clip.origin is not None
    metadata = runpy.run_path(str(Path(open_clip.origin).parent / "zero_shot_metadata.py"))
    expected = [make("tench") for make in metadata[published]]
    assert [fill(template, "tench") for template in TEMPLATES[name]] == expected


def test_every_template_set_has_a_place_for_the_name() -> None:
    for name, templates in TEMPLATES.items():
        assert check_templates(templates, name) == templates


def test_braces_in_a_name_mean_nothing() -> None:
    assert fill("a photo of {}.", "{0} {x}") == "a photo of {0} {x}."


def test_a_template_written_out_is_a_set_of_one() -> None:
    assert templates_named("a sketch of a {}") == ("a sketch of a {}",)
    assert templates_named("photo") == ("a photo of a {}.",)


def test_an_unknown_template_set_is_an_error_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'imagenet'"):
        templates_named("imagnet")


def test_a_template_without_a_place_is_an_error() -> None:
    with pytest.raises(SettingsError, match="'a photo'"):
        check_templates(["{}", "a photo"], "labels.toml")
    with pytest.raises(SettingsError, match="no templates"):
        check_templates([], "labels.toml")


def test_templates_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a photo of a {}.\n\n  art of {} \n")
    (tmp_path / "words.toml").write_text('templates = ["{}", "my {}"]\n')
    (tmp_path / "labels.toml").write_text('templates = ["the {}"]\n[labels]\nx = "cat"\n')
    found = {file.name: templates_named(str(file)) for file in tmp_path.iterdir()}
    assert found == {
        "words.txt": ("a photo of a {}.", "art of {}"),
        "words.toml": ("{}", "my {}"),
        "labels.toml": ("the {}",),
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("no.txt", None, "no such template file"),
        ("empty.txt", "\n", "no templates"),
        ("place.txt", "a photo\n", "no {}"),
        ("typo.toml", 'template = ["{}"]', "did you mean 'templates'"),
        ("labels.toml", 'labels = ["cat"]', "missing setting 'templates'"),
    ],
)
def test_a_template_file_that_says_nothing_useful_is_an_error_with_its_name(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises((DataError, SettingsError), match=message) as caught:
        read_templates(tmp_path / name)
    assert name in str(caught.value)


def test_labels_with_commas_are_a_list() -> None:
    labels = labels_from("cat, polar_bear,dog,")
    assert labels.names == ("cat", "polar_bear", "dog")
    assert labels.phrases == (("cat",), ("polar bear",), ("dog",))


@pytest.mark.parametrize("name", ["absent.txt", "absent.toml", "folder/absent"])
def test_a_misspelt_label_file_never_becomes_a_class(name: str) -> None:
    with pytest.raises(DataError, match="no such label file"):
        labels_from(name)


def test_a_text_file_has_one_label_a_line(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("\ufeffcat\r\n\n  dog \n", encoding="utf-8")
    assert labels_from(str(file)).names == ("cat", "dog")


def test_a_toml_file_may_list_names_and_templates(tmp_path: Path) -> None:
    file = tmp_path / "labels.toml"
    file.write_text('labels = ["cat", "dog"]\ntemplates = ["{}", "a {}"]\n')
    assert read_labels(file) == LabelSet(("cat", "dog"), (("cat",), ("dog",)), ("{}", "a {}"))


def test_a_toml_table_gives_phrases_for_the_names_in_the_data(tmp_path: Path) -> None:
    file = tmp_path / "labels.toml"
    file.write_text('[labels]\nn02119789 = ["kit fox", "swift fox"]\nn01440764 = "tench"\n')
    labels = read_labels(file)
    assert labels.names == ("n02119789", "n01440764")
    assert labels.phrases == (("kit fox", "swift fox"), ("tench",))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.txt", "\n \n", "no labels in it"),
        ("twice.txt", "cat\ndog\ncat\n", "'cat' is there twice"),
        ("typo.toml", 'lables = ["cat"]', "did you mean 'labels'"),
        ("place.toml", 'labels = ["cat"]\ntemplates = ["a photo"]', "no {}"),
        ("phrase.toml", "[labels]\ncat = []", "has no phrase"),
        ("none.toml", "labels = []", "no labels"),
        ("broken.toml", "labels = [", "not valid TOML"),
    ],
)
def test_a_label_file_that_says_nothing_useful_is_an_error_with_its_name(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises((DataError, SettingsError), match=message) as caught:
        read_labels(file)
    assert name in str(caught.value)


def test_a_class_folder_whose_name_is_not_utf8_makes_a_prompt_that_can_be_tokenized() -> None:
    assert fill("a photo of a {}.", os.fsdecode(b"caf\xe9")) == "a photo of a caf\ufffd."
