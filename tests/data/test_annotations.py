"""Made-up copies of COCO's annotations and of Karpathy's splits."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from diptych.data import open_source
from diptych.errors import DataError, SettingsError

COCO: dict[str, Any] = {
    "info": {"year": 2017},
    "licenses": [{"id": 1, "name": "CC"}],
    "images": [
        {"id": 397133, "file_name": "000000397133.jpg", "height": 427, "width": 640, "license": 4},
        {"id": 37777, "file_name": "000000037777.jpg", "height": 230, "width": 352, "license": 1},
        {"id": 5, "file_name": "000000000005.jpg", "height": 230, "width": 352, "license": 1},
    ],
}
CAPTIONS = COCO | {
    "annotations": [
        {
            "image_id": 37777,
            "id": 1,
            "caption": "The dining table near the kitchen has a bowl of fruit on it.",
        },
        {"image_id": 397133, "id": 2, "caption": "A man is in a kitchen making pizzas. "},
        {"image_id": 397133, "id": 3, "caption": "Man in apron\nstanding in front of an oven"},
        {"image_id": 397133, "id": 4, "caption": "A man is in a kitchen making pizzas."},
        {"image_id": 397133, "id": 4, "caption": float("nan")},
    ]
}
INSTANCES = COCO | {
    "categories": [{"supercategory": "person", "id": 1, "name": "person"}, {"id": 44, "name": "wine bottle"}],
    "annotations": [
        {
            "image_id": 397133,
            "category_id": 44,
            "bbox": [1.5, 2, 3, 4],
            "segmentation": [[1.5, 2.5]],
            "id": 1,
        },
        {"image_id": 397133, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1.5]], "id": 2},
        {"image_id": 397133, "category_id": 44, "bbox": [1, 2, 3, 4], "segmentation": [[1.5]], "id": 3},
    ],
}


def karpathy(name: str, split: str, *captions: str, **more: Any) -> dict[str, Any]:
    sentences = [{"tokens": caption.split(), "raw": caption, "imgid": 0, "sentid": 0} for caption in captions]
    return {"sentids": [0], "imgid": 0, "sentences": sentences, "split": split, "filename": name, **more}


SPLITS = {
    "dataset": "flickr30k",
    "images": [
        karpathy("a.jpg", "train", "Two guys .", "Two men ."),
        karpathy("b.jpg", "test", "A dog ."),
        karpathy("c.jpg", "val", "A cat ."),
        karpathy("d.jpg", "test", "A bird .", "A small bird ."),
    ],
}


def written(folder: Path, name: str, content: Any) -> Path:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


@pytest.fixture(params=["annotations", "val2017", "images/val2017", "images"])
def coco(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The folder of COCO's annotations, with the images in one of the usual places."""
    for image in COCO["images"]:
        written(tmp_path / request.param, image["file_name"], "")
    return tmp_path / "annotations"


def test_captions_of_coco_are_one_example_an_image(coco: Path) -> None:
    source = open_source(written(coco, "captions_val2017.json", CAPTIONS))
    assert len(source) == 3
    assert source[0].key == "000000397133.jpg"
    assert isinstance(source[0].image, Path)
    assert source[0].image.is_file()
    assert source[0].captions == (
        "A man is in a kitchen making pizzas.",
        "Man in apron\nstanding in front of an oven",
    )
    assert source[0].metadata == {"image_id": 397133}
    assert len(source[1].captions) == 1
    assert source[2].captions == ()
    said = source.describe()
    assert "3 images with 3 captions, COCO's annotations\nwithout words: 1 images" in said
    assert ("its images are in" in said) == (source[0].image.parent != coco)


def test_categories_of_coco_are_tags(coco: Path) -> None:
    source = open_source(written(coco, "instances_val2017.json", INSTANCES))
    assert [source[row].tags for row in range(3)] == [("wine bottle", "person"), (), ()]
    assert source[0].captions == ()


def test_images_may_be_under_another_root(tmp_path: Path) -> None:
    for image in COCO["images"]:
        written(tmp_path / "elsewhere", image["file_name"], "")
    path = written(tmp_path / "annotations", "c.json", CAPTIONS)
    assert open_source(path, image_root=tmp_path / "elsewhere")[0].captions
    with pytest.raises(DataError) as caught:
        open_source(path)
    assert "c.json, image 1: no such image" in str(caught.value)
    assert f"{tmp_path / 'elsewhere'} has some of them: give the folder" in str(caught.value)


@pytest.mark.parametrize(
    ("split", "keys"),
    [
        ("?split=test", ["b.jpg", "d.jpg"]),
        ("?split=train,val", ["a.jpg", "c.jpg"]),
        ("?split=all", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]),
    ],
)
def test_a_split_of_karpathys_is_chosen(tmp_path: Path, split: str, keys: list[str]) -> None:
    path = written(tmp_path, "dataset_flickr30k.json", SPLITS)
    for image in SPLITS["images"]:
        written(tmp_path / "flickr30k-images", image["filename"], "")  # type: ignore[index]
    source = open_source(f"{path}{split}")
    assert [source[row].key for row in range(len(source))] == keys
    if split == "?split=test":
        assert source[1].captions == ("A bird .", "A small bird .")
        assert source[1].metadata == {"split": "test"}
        assert "2 images with 3 captions, the split test of Karpathy's" in source.describe()
    copy = pickle.loads(pickle.dumps(source))
    assert copy[0] == source[0]


def test_each_split_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, "d.json", SPLITS)
    for image in SPLITS["images"]:
        written(tmp_path, image["filename"], "")  # type: ignore[index]
    names = [f"{path}?split={split}" for split in ("test", "train", "all", "test,train", "train,test")]
    prints = [open_source(name).fingerprint for name in names]
    assert len(set(prints)) == 4
    assert prints[3] == prints[4]


def test_splits_of_coco_name_the_folder_of_an_image(tmp_path: Path) -> None:
    written(tmp_path / "val2014", "COCO_val2014_1.jpg", "")
    content = {"images": [karpathy("COCO_val2014_1.jpg", "restval", "A man .", filepath="val2014", cocoid=1)]}
    source = open_source(written(tmp_path, "dataset_coco.json", content))
    assert (source[0].key, source[0].image) == (
        "val2014/COCO_val2014_1.jpg",
        tmp_path / "val2014" / "COCO_val2014_1.jpg",
    )


def test_a_split_must_be_chosen_among_several_and_exist(tmp_path: Path) -> None:
    path = written(tmp_path, "d.json", SPLITS)
    with pytest.raises(
        DataError, match=r"holds the splits train \(1 images\), test \(2 images\), .*d\.json\?split=train"
    ):
        open_source(path)
    with pytest.raises(SettingsError, match=r"no split 'tset'; it holds train"):
        open_source(f"{path}?split=tset")
    with pytest.raises(SettingsError, match="COCO's annotations have no splits"):
        open_source(f"{written(tmp_path, 'c.json', CAPTIONS)}?split=test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "is a JSON list; expected COCO's annotations"),
        ("{", "not valid JSON"),
        ({"labels": [1], "name": "x"}, "an object with the fields 'name'; expected COCO's"),
        ({"images": [{"id": 1, "file_name": "a"}]}, "an object with the fields 'images'; expected"),
        (COCO | {"annotations": [{"image_id": 8, "caption": "x"}]}, "annotation 1: no image has the id 8"),
        (COCO | {"annotations": [{"image_id": 5, "caption": 3}]}, "annotation 1: the caption is 3"),
        (
            COCO | {"annotations": [{"image_id": 5, "category_id": 3}]},
            "annotation 1: no category has the id 3",
        ),
        (COCO | {"annotations": [7]}, "annotation 1: is not an object"),
        ({"images": [{"id": 1}], "annotations": []}, "image 1: 'file_name' is None"),
        (
            {"images": [{"id": 1, "file_name": "a"}] * 2, "annotations": []},
            "image 2: the id 1 occurs twice",
        ),
        ({"images": [{"filename": "a", "sentences": "x"}]}, "image 1: `sentences` is not a list"),
    ],
)
def test_annotations_that_cannot_be_read_are_an_error_with_their_place(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_source(written(tmp_path, "a.json", content))
    assert "a.json" in str(caught.value)


def test_positions_beyond_the_ends_are_index_errors(coco: Path) -> None:
    source = open_source(written(coco, "captions_val2017.json", CAPTIONS))
    for position in (-1, 3):
        with pytest.raises(IndexError):
            source[position]
