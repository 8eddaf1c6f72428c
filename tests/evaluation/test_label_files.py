import json
from pathlib import Path

import pytest

from diptych.errors import DataError, SettingsError
from diptych.evaluation.zero_shot.class_labels import LabelSet, labels_from, read_labels
from diptych.evaluation.zero_shot.prompts import read_templates


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.json", '["bicycle",\n"polar_bear"]\n'),
        ("l.JSON", '{"0": "bicycle", "1": "polar_bear"}'),
        ("l.json", '{"1": "polar_bear", "0": "bicycle"}'),
        ("l.json", '{"labels": ["bicycle", "polar_bear"]}'),
        ("l.TOML", 'labels = ["bicycle", "polar_bear"]'),
        ("l.TXT", "bicycle\npolar_bear\n"),
        ("classes", "bicycle\npolar_bear\n"),
        ("l.txt", '"bicycle"\n"polar_bear"\n'),
        ("l.txt", "'bicycle',\n'polar_bear'\n"),
        ("l.csv", "bicycle\npolar_bear\n"),
        ("l.csv", "label\nbicycle\npolar_bear\n"),
        ("l.csv", "id,label\n0,bicycle\n1,polar_bear\n"),
        ("l.csv", '\ufeffid,label,count\r\n7,"bicycle",2\r\n9,"polar_bear",3\r\n'),
        ("l.csv", "0,bicycle\n1,polar_bear\n"),
        ("l.csv", "id;label\n0;bicycle\n1;polar_bear\n"),
        ("l.tsv", "0\tbicycle\n1\tpolar_bear\n"),
        ("l.csv", "bicycle,0\npolar_bear,1\n"),
        ("l.csv", "label,name\n0,bicycle\n1,polar_bear\n"),
        ("l.csv", "class;label\nbicycle;0\npolar_bear;1\n"),
    ],
)
def test_names_of_classes_are_read_from_every_usual_file(tmp_path: Path, name: str, text: str) -> None:
    file = written(tmp_path, name, text)
    expected = LabelSet(("bicycle", "polar_bear"), (("bicycle",), ("polar bear",)))
    assert read_labels(file) == expected
    assert labels_from(str(file)) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.json", '{"n02119789": ["kit fox", "swift fox"], "n01440764": "tench"}'),
        ("l.json", '{"labels": {"n02119789": ["kit fox", "swift fox"], "n01440764": "tench"}}'),
    ],
)
def test_json_gives_phrases_for_the_names_in_the_data(tmp_path: Path, name: str, text: str) -> None:
    labels = read_labels(written(tmp_path, name, text))
    assert labels.names == ("n02119789", "n01440764")
    assert labels.phrases == (("kit fox", "swift fox"), ("tench",))


def test_a_table_gives_a_phrase_for_each_name(tmp_path: Path) -> None:
    expected = LabelSet(("n02119789", "n01440764"), (("kit fox, swift fox",), ("tench",)))
    rows = 'n02119789,"kit fox, swift fox"\nn01440764,tench\n'
    assert read_labels(written(tmp_path, "l.csv", rows)) == expected
    assert read_labels(written(tmp_path, "m.csv", f"class,phrase\n{rows}")) == expected


def test_the_class_index_of_imagenet_is_read(tmp_path: Path) -> None:
    index = {"1": ["n01443537", "goldfish"], "0": ["n01440764", "great_white_shark"]}
    labels = read_labels(written(tmp_path, "imagenet_class_index.json", json.dumps(index)))
    assert labels == LabelSet(("n01440764", "n01443537"), (("great white shark",), ("goldfish",)))


def test_json_may_hold_templates(tmp_path: Path) -> None:
    file = written(tmp_path, "l.json", '{"labels": ["cat", "dog"], "templates": ["{}", "a {}"]}')
    assert read_labels(file).templates == ("{}", "a {}")
    assert read_templates(file) == ("{}", "a {}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", '["bicycle",\n"umbrella"]\n', r"looks like JSON .*'\[\"bicycle\",'.*name it l\.json"),
        ("l.txt", "{0: 'tench, Tinca tinca',\n 1: 'goldfish'}", "looks like JSON"),
        ("l.txt", "id,label\n0,cat\n1,dog\n", r"looks like a table .*name it l\.csv"),
        ("l.txt", "0,cat\n1,dog\n", "looks like a table"),
        ("l.txt", "n1\tcat\nn2\tdog\n", "looks like a table"),
        ("l.yaml", "- cat\n- dog\n", r"a \.yaml file is not read as labels; expected text \(\.txt\)"),
        ("l.json", '{"a": 1}', "'a' is '1'; expected a list of names"),
        ("l.json", '[{"name": "cat"}]', "expected a list of names"),
        ("l.json", '{"cat": []}', "expected a list of names"),
        ("l.json", '["cat", "cat"]', "'cat' is there twice"),
        ("l.json", '{"cat": "a", "cat": "b"}', "'cat' is there twice"),
        ("l.json", "[cat]", "not valid JSON"),
        ("l.json", "[]", "no labels in it"),
        ("l.csv", "", "expected a column named"),
        ("l.csv", "a,b,c\n1,2,3\n", "the first row is 'a, b, c'; expected a column named label"),
        ("l.csv", "id,label\n0,cat\n1,\n", "a label is empty"),
        ("l.csv", "label\ncat\ndog, big\n", "more cells than the 1 columns"),
        ("l.csv", '"cat","dog"\n', "expected .* a row a class"),
        ("l.txt", "cat,dog\n", "expected one label a line"),
        ("l.txt", '"cat", "dog"\n', "expected one label a line"),
        ("l.txt", "0 cat\n1 dog\n", "expected one label a line"),
        ("l.txt", "1. cat\n2. dog\n", "expected one label a line"),
        ("l.txt", "n01440764 tench, Tinca\nn01443537 goldfish\n", "expected one label a line"),
        ("l.csv", '"cat\ndog\n', "cannot be read as a table"),
    ],
)
def test_a_file_that_is_not_labels_is_refused_with_what_is_read(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises((DataError, SettingsError), match=message) as caught:
        read_labels(written(tmp_path, name, text))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"cat","dog"', ("cat", "dog")),
        ("'cat', 'dog'", ("cat", "dog")),
        ('["cat", "dog"]', ("cat", "dog")),
        ('"red, round",blue', ("red, round", "blue")),
        ("5\" disk, rock 'n' roll", ('5" disk', "rock 'n' roll")),
        ("cat", ("cat",)),
    ],
)
def test_quotes_around_names_are_not_part_of_them(text: str, names: tuple[str, ...]) -> None:
    assert labels_from(text).names == names


def test_names_that_begin_with_numbers_stay_names(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, "l.txt", "3 musketeers\n5 o'clock\n")).names == (
        "3 musketeers",
        "5 o'clock",
    )
    assert read_templates(written(tmp_path, "t.txt", "a {}, a bird\n")) == ("a {}, a bird",)


def test_a_quote_that_is_never_closed_is_an_error() -> None:
    with pytest.raises(SettingsError, match="close every quote"):
        labels_from('"cat,dog')


@pytest.mark.parametrize("name", ["absent.json", "absent.csv", "absent.TOML"])
def test_a_misspelt_file_of_any_form_never_becomes_a_class(name: str) -> None:
    with pytest.raises(DataError, match="no such label file"):
        labels_from(name)


def test_templates_in_json_are_a_list_and_no_template_with_brackets(tmp_path: Path) -> None:
    assert read_templates(written(tmp_path, "t.JSON", '["a {}", "the {}"]')) == ("a {}", "the {}")
    assert read_templates(written(tmp_path, "t.TOML", 'templates = ["a {}"]')) == ("a {}",)
    assert read_templates(written(tmp_path, "t.txt", "{}\na {}")) == ("{}", "a {}")
    with pytest.raises(SettingsError, match="looks like JSON"):
        read_templates(written(tmp_path, "u.txt", '["a {}", "the {}"]'))
    with pytest.raises(SettingsError, match="a JSON str; expected a list of templates"):
        read_templates(written(tmp_path, "v.json", '"a {}"'))
