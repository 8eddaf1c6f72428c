"""The published class names and templates, against independent copies and the figures of the paper's repository."""

import importlib.util
import runpy
from pathlib import Path

import pytest

from diptych.evaluation.datasets.set_files import names_of, set_values
from diptych.evaluation.zero_shot.prompts import TEMPLATES

# Classes and templates of each set in OpenAI's data/prompts.md, counted there.
PUBLISHED = {
    "birdsnap": (500, 1),
    "caltech101": (102, 34),
    "cifar10": (10, 18),
    "cifar100": (100, 18),
    "clevr_counts": (8, 1),
    "country211": (211, 5),
    "dtd": (47, 8),
    "eurosat": (10, 3),
    "fer2013": (7, 6),
    "fgvc_aircraft": (100, 2),
    "flowers102": (102, 1),
    "food101": (101, 1),
    "gtsrb": (43, 3),
    "hateful_memes": (2, 1),
    "kinetics700": (700, 28),
    "kitti_distance": (4, 1),
    "mnist": (10, 1),
    "oxford_pets": (37, 1),
    "pcam": (2, 1),
    "rendered_sst2": (2, 1),
    "resisc45": (45, 18),
    "stanford_cars": (196, 8),
    "stl10": (10, 2),
    "sun397": (397, 2),
    "ucf101": (101, 48),
    "voc2007": (20, 1),
}
# Characters of data/prompts.md in its last version, and of the introduction before its first list.
PUBLISHED_CHARACTERS = 72_430
INTRODUCTION = 969


@pytest.mark.parametrize(
    ("name", "classes", "templates"), [(name, *counts) for name, counts in PUBLISHED.items()]
)
def test_classes_and_templates_are_as_many_as_published(name: str, classes: int, templates: int) -> None:
    labels = names_of(name)
    assert len(labels.names) == classes
    assert labels.templates is not None
    assert len(labels.templates) == len(set(labels.templates)) == templates


def test_all_lists_together_are_as_long_as_the_published_file() -> None:
    # A letter too many or too few in any name or template would show. The published file writes a row as
    # `    'name',`, and the phrases of an emotion as a list. Two characters are missing there: the comma after the
    # last name of Kinetics700, and one of the empty lines after the last set.
    headings = {
        "caltech101": "Caltech101", "dtd": "DescribableTextures", "fer2013": "FacialEmotionRecognition2013",
        "hateful_memes": "HatefulMemes", "kitti_distance": "KITTI", "rendered_sst2": "SST2", "voc2007": "PascalVOC2007",
        "pcam": "PatchCamelyon", "clevr_counts": "CLEVRCounts", "fgvc_aircraft": "FGVCAircraft",
        "oxford_pets": "OxfordPets", "stanford_cars": "StanfordCars",
    }  # fmt: skip
    total = INTRODUCTION - 2
    for name in PUBLISHED:
        labels = names_of(name)
        heading = headings.get(name, name)
        total += len(f"## {heading}\n\n```bash\nclasses = [\n]\n\ntemplates = [\n]\n```\n\n\n\n")
        for phrases in labels.phrases:
            row = ", ".join(f"'{phrase}'" for phrase in phrases)
            total += len(f"    {row},\n") + (2 if name == "fer2013" else 0)
        assert labels.templates is not None
        total += sum(len(f"    '{template}',\n") for template in labels.templates)
    assert total == PUBLISHED_CHARACTERS


def test_imagenets_names_equal_open_clips_copy() -> None:
    # The one file, since the package around it takes many seconds to import.
    open_clip = importlib.util.find_spec("open_clip")
    assert open_clip is not None
    assert open_clip.origin is not None
    metadata = runpy.run_path(str(Path(open_clip.origin).parent / "zero_shot_metadata.py"))
    labels = names_of("imagenet")
    assert tuple(phrase for (phrase,) in labels.phrases) == tuple(metadata["IMAGENET_CLASSNAMES"])
    assert len(set(labels.phrases)) == 998  # missile and sunglasses are there twice


def test_imagenets_ids_are_in_the_order_of_the_class_numbers() -> None:
    # timm comes with open_clip and lists the ids by class number.
    timm = importlib.util.find_spec("timm")
    assert timm is not None
    assert timm.origin is not None
    synsets = Path(timm.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    assert list(names_of("imagenet").names) == synsets.read_text().split()


def test_imagenets_templates_are_held_once() -> None:
    # Sets of one or two templates may be equal by chance; these would be copies.
    known = set(TEMPLATES["imagenet"])
    for name in PUBLISHED:
        assert len(known & set(set_values(name)["templates"])) < len(known) / 2, name


def test_the_names_of_a_class_in_the_data_differ_while_its_words_may_be_equal() -> None:
    labels = names_of("imagenet")
    words = dict(zip(labels.names, labels.phrases, strict=True))
    assert words["n03773504"] == words["n04008634"] == ("missile",)
    assert words["n04355933"] == words["n04356056"] == ("sunglasses",)


def test_emotions_keep_their_synonyms() -> None:
    assert names_of("fer2013").phrases[5] == ("surprised", "shocked", "spooked")
