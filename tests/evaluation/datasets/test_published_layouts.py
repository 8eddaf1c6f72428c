"""Every dataset's reader, on tiny files in the published layout: beside torchvision's reader where it has one."""

import json
import sys
import types
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from diptych.data.images.decoding import read_rgb
from diptych.errors import DataError
from diptych.evaluation.datasets.benchmark import Benchmark, open_benchmark
from diptych.evaluation.datasets.dataset import all_datasets
from diptych.evaluation.datasets.frames import anchors_of
from diptych.evaluation.datasets.readers import ClassFolders
from diptych.evaluation.datasets.set_files import names_of
from tests.evaluation.datasets import published_layouts as layouts

Content = dict[bytes, str]  # the pixels of each picture, and its class


def content_of(benchmark: Benchmark) -> Content:
    examples = [benchmark.source[position] for position in range(len(benchmark.source))]
    assert len({example.key for example in examples}) == len(examples)
    return {read_rgb(example.image).tobytes(): str(example.label) for example in examples}


def pictures(pairs: Iterable[tuple[Image.Image, str]]) -> Content:
    return {np.asarray(image.convert("RGB")).tobytes(): label for image, label in pairs}


def drawn(*labels: str) -> Content:
    """Pictures 0, 1, ... of `published_layouts`, each of a class."""
    return {layouts.picture(number).tobytes(): label for number, label in enumerate(labels)}


def numbered(dataset: Any, first: int = 0) -> Content:
    return pictures((image, str(int(label) + first)) for image, label in dataset)


def named(dataset: Any, spell: Callable[[str], str] = str) -> Content:
    return pictures((image, spell(dataset.classes[label])) for image, label in dataset)


def underscored(name: str) -> str:
    return name.replace("/", "_").replace(" ", "_")


# Name of a dataset, what makes its files, the split, and torchvision's reading of them.
BESIDE_TORCHVISION: dict[tuple[str, str], tuple[Callable[[Path], None], Callable[[Any, Path], Content]]] = {
    ("food101", "test"): (layouts.food101, lambda tv, root: named(tv.Food101(root, "test"))),
    ("food101", "train"): (layouts.food101, lambda tv, root: named(tv.Food101(root, "train"))),
    ("dtd", "test"): (layouts.dtd, lambda tv, root: named(tv.DTD(root, "test"))),
    ("dtd", "trainval"): (layouts.dtd, lambda tv, root: named(tv.DTD(root, "train")) | named(tv.DTD(root, "val"))),
    ("fgvc_aircraft", "test"): (layouts.fgvc_aircraft, lambda tv, root: named(tv.FGVCAircraft(root, "test"))),
    ("fgvc_aircraft", "val"): (layouts.fgvc_aircraft, lambda tv, root: named(tv.FGVCAircraft(root, "val"))),
    ("flowers102", "test"): (layouts.flowers102, lambda tv, root: numbered(tv.Flowers102(root, "test"), 1)),
    ("flowers102", "trainval"): (
        layouts.flowers102,
        lambda tv, root: numbered(tv.Flowers102(root, "train"), 1) | numbered(tv.Flowers102(root, "val"), 1),
    ),
    ("stanford_cars", "test"): (layouts.stanford_cars, lambda tv, root: numbered(tv.StanfordCars(root, "test"), 1)),
    ("stanford_cars", "train"): (layouts.stanford_cars, lambda tv, root: numbered(tv.StanfordCars(root, "train"), 1)),
    ("eurosat", "all"): (layouts.eurosat, lambda tv, root: named(tv.EuroSAT(root))),
    ("country211", "test"): (layouts.country211, lambda tv, root: named(tv.Country211(root, "test"))),
    ("country211", "val"): (layouts.country211, lambda tv, root: named(tv.Country211(root, "valid"))),
    ("rendered_sst2", "test"): (layouts.rendered_sst2, lambda tv, root: named(tv.RenderedSST2(root, "test"))),
    ("rendered_sst2", "val"): (layouts.rendered_sst2, lambda tv, root: named(tv.RenderedSST2(root, "val"))),
    ("gtsrb", "test"): (layouts.gtsrb, lambda tv, root: numbered(tv.GTSRB(root, "test"))),
    ("clevr_counts", "val"): (layouts.clevr_counts, lambda tv, root: numbered(tv.CLEVRClassification(root, "val"))),
    ("cifar10", "test"): (layouts.cifar10, lambda tv, root: named(tv.CIFAR10(root, train=False))),
    ("cifar10", "train"): (layouts.cifar10, lambda tv, root: named(tv.CIFAR10(root, train=True))),
    ("cifar100", "test"): (
        partial(layouts.cifar100, names=names_of("cifar100").names),
        lambda tv, root: named(tv.CIFAR100(root, train=False)),
    ),
    ("stl10", "test"): (layouts.stl10, lambda tv, root: named(tv.STL10(root, "test"))),
    ("stl10", "train"): (layouts.stl10, lambda tv, root: named(tv.STL10(root, "train"))),
    ("stl10", "fold3"): (layouts.stl10, lambda tv, root: named(tv.STL10(root, "train", folds=3))),
    ("fer2013", "test"): (layouts.fer2013, lambda tv, root: numbered(tv.FER2013(root, "test"))),
    ("fer2013", "train"): (layouts.fer2013, lambda tv, root: numbered(tv.FER2013(root, "train"))),
    ("mnist", "test"): (
        partial(layouts.mnist, folder="MNIST/raw", packed=False),
        lambda tv, root: numbered(tv.MNIST(root, train=False)),
    ),
    ("fashion_mnist", "train"): (
        partial(layouts.mnist, folder="FashionMNIST/raw", packed=False),
        lambda tv, root: numbered(tv.FashionMNIST(root, train=True)),
    ),
    ("imagenet", "val"): (
        layouts.imagenet,
        lambda tv, root: named(tv.ImageFolder(root / "imagenet" / "val")),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "split"), BESIDE_TORCHVISION)
def test_pictures_and_classes_are_torchvisions(
    name: str, split: str, torchvision_datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These compare the files with hashes of the real ones.
    for module in ("cifar", "stl10", "flowers102", "fer2013"):
        monkeypatch.setattr(getattr(torchvision_datasets, module), "check_integrity", lambda *_, **__: True)
    make, expected = BESIDE_TORCHVISION[name, split]
    make(tmp_path)
    assert content_of(open_benchmark(name, tmp_path, split)) == expected(torchvision_datasets, tmp_path)


def test_pets_are_torchvisions_but_for_capitals(torchvision_datasets: Any, tmp_path: Path) -> None:
    layouts.oxford_pets(tmp_path)
    found = content_of(open_benchmark("oxford_pets", tmp_path))
    expected = named(torchvision_datasets.OxfordIIITPet(tmp_path, "test"), underscored)
    assert {pixels: name.title() for pixels, name in found.items()} == expected
    assert set(found.values()) == {"Abyssinian", "american_bulldog", "British_Shorthair"}


def test_sun397_is_torchvisions_of_both_splits(torchvision_datasets: Any, tmp_path: Path) -> None:
    layouts.sun397(tmp_path)
    found = content_of(open_benchmark("sun397", tmp_path)) | content_of(
        open_benchmark("sun397", tmp_path, "train")
    )
    assert found == named(torchvision_datasets.SUN397(tmp_path), underscored)
    assert set(found.values()) == {"abbey", "apartment_building_outdoor"}


def test_caltech101_is_torchvisions_and_the_background(torchvision_datasets: Any, tmp_path: Path) -> None:
    layouts.caltech101(tmp_path)
    dataset = torchvision_datasets.Caltech101(tmp_path)
    expected = pictures((image, dataset.categories[label]) for image, label in dataset)
    assert content_of(open_benchmark("caltech101", tmp_path)) == expected | drawn("BACKGROUND_Google")


def test_traffic_signs_to_train_with_lie_in_folders_of_class_numbers(tmp_path: Path) -> None:
    layouts.gtsrb(tmp_path)
    found = content_of(open_benchmark("gtsrb", tmp_path, "train"))
    assert found == {layouts.picture(2).tobytes(): "0", layouts.picture(3).tobytes(): "42"}


def test_voc_has_the_classes_of_torchvisions_objects(torchvision_datasets: Any, tmp_path: Path) -> None:
    layouts.voc2007(tmp_path)
    # torchvision opens another folder of the same layout when it is told the year.
    dataset = torchvision_datasets.VOCDetection(tmp_path, year="2007", image_set="test")
    benchmark = open_benchmark("voc2007", tmp_path)
    assert len(benchmark.source) == len(dataset) == 3
    for position, (_, target) in enumerate(dataset):
        objects = [(item["name"], item["difficult"] == "1") for item in target["annotation"]["object"]]
        sure = {name for name, difficult in objects if not difficult}
        metadata = benchmark.source[position].metadata
        assert set(metadata["labels"]) == sure
        assert set(metadata["difficult"]) == {name for name, _ in objects} - sure
    assert benchmark.source[1].metadata == {"labels": (), "difficult": ("train",)}


def test_kittis_nearest_vehicle_falls_into_vtabs_classes(torchvision_datasets: Any, tmp_path: Path) -> None:
    layouts.kitti_distance(tmp_path)
    found = content_of(open_benchmark("kitti_distance", tmp_path))
    expected = {}
    for image, objects in torchvision_datasets.Kitti(tmp_path, train=True):
        near = min([1000.0, *(o["location"][2] for o in objects if o["type"] in ("Car", "Van", "Truck"))])
        label = 0 if near <= 8 else 1 if near <= 20 else 2 if near <= 999 else 3
        expected[np.asarray(image).tobytes()] = str(label)
    assert found == expected == drawn("0", "1", "2", "3")


# Layouts without an independent reader here: what the authors' description says.
BY_HAND: dict[tuple[str, str], tuple[Callable[[Path], None], Content]] = {
    ("resisc45", "all"): (layouts.resisc45, drawn("airplane", "baseball_diamond")),
    ("kinetics700", "val"): (layouts.kinetics700, drawn("abseiling", "zumba")),
    ("ucf101", "test1"): (layouts.ucf101, drawn("Archery", "HandstandPushups")),
    ("imagenetv2", "test"): (layouts.imagenet_v2, drawn("n01440764", "n01530575", "n15075141")),
    ("imagenet-r", "test"): (layouts.imagenet_r, drawn("n01443537", "n01484850")),
    ("imagenet-a", "test"): (layouts.imagenet_a, drawn("n01498041", "n01531178")),
    ("imagenet-sketch", "test"): (layouts.imagenet_sketch, drawn("n01440764", "n01443537")),
    ("objectnet", "test"): (layouts.objectnet, drawn("alarm_clock", "air_freshener")),
    ("birdsnap", "train"): (layouts.birdsnap, drawn("Acadian_Flycatcher")),
    (
        "hateful_memes",
        "test",
    ): (layouts.hateful_memes, {layouts.picture(1235).tobytes(): "1", layouts.picture(1236).tobytes(): "0"}),
}


@pytest.mark.parametrize(("name", "split"), BY_HAND)
def test_pictures_and_classes_are_as_described(name: str, split: str, tmp_path: Path) -> None:
    make, expected = BY_HAND[name, split]
    make(tmp_path)
    assert content_of(open_benchmark(name, tmp_path, split)) == expected


def test_birds_that_are_gone_from_flickr_are_left_out(tmp_path: Path) -> None:
    layouts.birdsnap(tmp_path)
    found = content_of(open_benchmark("birdsnap", tmp_path))
    expected = {
        layouts.picture(1).tobytes(): "Acadian_Flycatcher",
        layouts.picture(2).tobytes(): "Allens_Hummingbird",
    }
    assert found == expected


def test_every_class_in_a_fixture_is_one_of_the_published_names(tmp_path: Path) -> None:
    made = {name: make for (name, _), (make, _) in (BESIDE_TORCHVISION | BY_HAND).items()}
    for name, make in made.items():
        root = tmp_path / name
        make(root)
        benchmark = open_benchmark(name, root)
        if benchmark.labels is not None:
            assert set(content_of(benchmark).values()) <= set(benchmark.labels.names), name


def test_retrieval_has_every_caption_of_karpathys_split(tmp_path: Path) -> None:
    layouts.retrieval(tmp_path)
    flickr, coco = open_benchmark("flickr30k", tmp_path), open_benchmark("coco_captions", tmp_path)
    assert [(example.key, example.captions) for example in (flickr.source[0], coco.source[0])] == [
        ("1.jpg", ("A dog runs .", "Dog .")),
        ("val2014/a.jpg", ("One", "Two")),
    ]
    assert len(flickr.source) == len(coco.source) == 1
    train = open_benchmark("coco_captions", tmp_path, "train").source
    assert {train[position].key for position in range(len(train))} == {"val2014/b.jpg", "train2014/c.jpg"}
    assert read_rgb(coco.source[0].image).tobytes() == layouts.picture(2).tobytes()


@pytest.mark.parametrize("name", ["imagenet-vid-robust", "ytbb-robust"])
def test_frames_know_their_anchors(name: str, tmp_path: Path) -> None:
    layouts.vid_robust(tmp_path, name)
    source = open_benchmark(name, tmp_path).source
    assert [source[position].key for position in range(len(source))] == [
        "val/v1/000010.JPEG",
        "val/v2/000000.JPEG",
        "val/v1/000009.JPEG",
    ]
    anchors = anchors_of(source)
    assert [(a.frame, a.near, a.labels, a.near_labels) for a in anchors] == [
        (0, (2,), (3,), ((3, 4),)),
        (1, (), (0,), ()),
    ]


def test_patches_come_out_of_hdf5_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A stand-in: h5py is no dependency. What it gives is what the real one gives for these files: arrays by name.
    pixels = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    arrays = {"x": pixels, "y": np.array([1, 0, 1], np.uint8).reshape(3, 1, 1, 1)}
    (tmp_path / "pcam").mkdir()
    (tmp_path / "pcam" / "camelyonpatch_level_2_split_test_x.h5").write_bytes(b"")

    class File:
        def __init__(self, path: Path, _mode: str) -> None:
            assert path.name.startswith("camelyonpatch_level_2_split_test_")

        def __enter__(self) -> dict[str, Any]:
            return arrays

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=File))
    found = content_of(open_benchmark("pcam", tmp_path))
    assert found == {image.tobytes(): label for image, label in zip(pixels, "101", strict=True)}


def test_patches_without_h5py_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pcam").mkdir()
    (tmp_path / "pcam" / "camelyonpatch_level_2_split_test_x.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"pip install h5py; or put the set there as tar shards"):
        open_benchmark("pcam", tmp_path)


def test_digits_are_all_of_scikit_learns_with_their_grey_spread() -> None:
    parts = [open_benchmark("digits", "anywhere", split) for split in ("train", "test")]
    assert [len(part.source) for part in parts] == [1541, 256]
    bundled = load_digits()
    first = read_rgb(parts[1].source[0].image)[:, :, 0]
    np.testing.assert_array_equal(first, np.round(bundled.images[6] / 16 * 255))
    labels = [str(part.source[position].label) for part in parts for position in range(len(part.source))]
    assert sorted(labels) == sorted(map(str, bundled.target))


def test_every_dataset_has_a_layout_that_is_tested_here_or_is_bundled() -> None:
    elsewhere = {"oxford_pets", "sun397", "caltech101", "voc2007", "kitti_distance", "flickr30k", "coco_captions",
                 "imagenet-vid-robust", "ytbb-robust", "pcam", "digits"}  # fmt: skip
    copied = {"pacs", "tiny_imagenet", "grocery_store"}  # test_copied_layouts.py
    starter = {"sample", "vendor_shift", "openclipart_retrieval"}  # tar shards: tests/data/test_shards.py
    tested = {name for name, _ in BESIDE_TORCHVISION} | {name for name, _ in BY_HAND}
    folders = {name for name, dataset in all_datasets().items() if isinstance(dataset.reader, ClassFolders)}
    assert tested | elsewhere | copied | starter | folders == set(all_datasets())


def test_gzip_and_plain_idx_files_are_the_same_pictures(tmp_path: Path) -> None:
    layouts.mnist(tmp_path / "packed", packed=True)
    layouts.mnist(tmp_path / "plain", packed=False)
    packed, plain = (open_benchmark("mnist", tmp_path / kind) for kind in ("packed", "plain"))
    assert content_of(packed) == content_of(plain)
    assert (
        packed.source.fingerprint != open_benchmark("mnist", tmp_path / "packed", "train").source.fingerprint
    )


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    layouts.cifar10(tmp_path)
    file = tmp_path / "cifar-10-batches-py" / "test_batch"
    ran = tmp_path / "ran"
    file.write_bytes(b"\x80\x02}(U\x04datacbuiltins\nopen\n(X" + len(str(ran)).to_bytes(4, "little")
                     + str(ran).encode() + b"U\x01wtRu.")  # fmt: skip
    with pytest.raises(DataError, match=r"test_batch.*builtins.*nothing was run"):
        open_benchmark("cifar10", tmp_path)
    assert not ran.exists()


def _spoilt(name: str, root: Path) -> None:
    spoil: dict[str, tuple[Callable[[Path], None], str, bytes]] = {
        "food101": (layouts.food101, "food-101/meta/test.txt", b"\n"),
        "oxford_pets": (layouts.oxford_pets, "oxford-iiit-pet/annotations/test.txt", b"nounderscore 1 1 1\n"),
        "dtd": (layouts.dtd, "dtd/dtd/labels/test1.txt", b"banded/a.jpg\nbanded/a.jpg\n"),
        "flowers102": (layouts.flowers102, "flowers-102/setid.mat", b"not a matrix"),
        "voc2007": (layouts.voc2007, "VOCdevkit/VOC2007/Annotations/000001.xml", b"<annotation><object>"),
        "gtsrb": (layouts.gtsrb, "gtsrb/GT-final_test.csv", b"a,b\n1,2\n"),
        "hateful_memes": (layouts.hateful_memes, "hateful_memes/dev_seen.jsonl", b'{"img": "img/1.png"}\n'),
        "clevr_counts": (layouts.clevr_counts, "clevr/CLEVR_v1.0/scenes/CLEVR_val_scenes.json", b"{}"),
        "kitti_distance": (layouts.kitti_distance, "Kitti/raw/training/label_2/000000.txt", b"Car 0 0\n"),
        "mnist": (layouts.mnist, "mnist/t10k-labels-idx1-ubyte.gz", b"not gzip"),
        "cifar10": (layouts.cifar10, "cifar-10-batches-py/test_batch", b"\x80\x02}."),
        "stl10": (layouts.stl10, "stl10_binary/test_X.bin", b"short"),
        "fer2013": (layouts.fer2013, "fer2013/fer2013.csv", b"emotion,pixels,Usage\n1,1 2 3,PublicTest\n"),
        "flickr30k": (
            layouts.retrieval,
            "flickr30k/dataset_flickr30k.json",
            b'{"images": [{"split": "test"}]}',
        ),
        "imagenet-vid-robust": (layouts.vid_robust, "imagenet-vid-robust/metadata/labels.json", b"{}"),
        "birdsnap": (layouts.birdsnap, "birdsnap/images.txt", b"url\tmd5\n"),
    }
    make, path, content = spoil[name]
    make(root)
    (root / path).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("food101", "lists no images"),
        ("oxford_pets", "line 1.*names no class"),
        ("dtd", "twice"),
        ("flowers102", "MATLAB 5 file"),
        ("voc2007", "not well-formed XML"),
        ("gtsrb", "no columns 'Filename'"),
        ("hateful_memes", "line 1.*'label'"),
        ("clevr_counts", "a list 'scenes'"),
        ("kitti_distance", "3 fields; expected 15"),
        ("mnist", "cannot be read"),
        ("cifar10", "not one of CIFAR's files"),
        ("stl10", "not a whole number of images"),
        ("fer2013", "row 1 of the split 'test'"),
        ("flickr30k", "item 0 of 'images' has no 'filename'"),
        ("imagenet-vid-robust", "no labels for"),
        ("birdsnap", "no column 'path'"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(name: str, message: str, tmp_path: Path) -> None:
    _spoilt(name, tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        open_benchmark(name, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_listed_picture_that_is_missing_is_an_error_with_its_list(tmp_path: Path) -> None:
    layouts.food101(tmp_path)
    (tmp_path / "food-101" / "images" / "waffles" / "3.jpg").unlink()
    source = open_benchmark("food101", tmp_path).source
    with pytest.raises(DataError, match=r"waffles/3\.jpg: no such file, though .*test\.txt lists it"):
        source[1]


def test_a_ppm_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    layouts.gtsrb(tmp_path)
    path = tmp_path / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / "00001.ppm"
    path.write_bytes(path.read_bytes()[:40])
    source = open_benchmark("gtsrb", tmp_path).source
    with pytest.raises(DataError, match=r"00001\.ppm: not a binary PPM"):
        source[1]


def test_memes_of_the_first_release_are_found_too(tmp_path: Path) -> None:
    layouts.hateful_memes(tmp_path)
    base = tmp_path / "hateful_memes"
    (base / "dev_seen.jsonl").rename(base / "dev.jsonl")
    source = open_benchmark("hateful_memes", tmp_path).source
    assert source[0].metadata["text"] == json.loads((base / "dev.jsonl").read_text().splitlines()[0])["text"]
