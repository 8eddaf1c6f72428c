"""Read annotations of images in one JSON file: COCO's, or Karpathy's splits of COCO, Flickr30k and Flickr8k.

Each image is one example with all its captions. COCO's `captions_*.json` gives captions; its `instances_*.json` gives
the names of the categories in an image, as tags. Karpathy's `dataset_*.json` gives the split of each image.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diptych.data.example import Example, is_nothing, valid_unicode
from diptych.data.files.places import Place, image_at, stream
from diptych.data.files.remote import RemotePath
from diptych.data.left_out import LeftOut
from diptych.data.sources.image_root import find_image_root, spread
from diptych.data.sources.storage import Strings
from diptych.errors import DataError, SettingsError

ALL = "all"  # in place of the name of a split

# The fields that are kept: outlines, boxes and tokens are most of the size of these files.
# fmt: off
_FIELDS = frozenset((
    "images", "annotations", "categories", "id", "file_name", "image_id", "caption", "category_id", "name",
    "filepath", "filename", "split", "sentences", "raw",
))
# fmt: on
_SHAPES = (
    "expected COCO's annotations (an object of lists, images with `id` and `file_name` and annotations with "
    "`image_id` and `caption` or `category_id`), or those of Karpathy's splits (images with `filename`, `split` and "
    "`sentences`); write anything else as .jsonl, one object per image"
)


@dataclass(frozen=True)
class _Annotation:
    """The captions and tags of one image.

    file: as the annotations write it. image_id: COCO's. split: Karpathy's.
    """

    file: str
    captions: Sequence[str] = ()
    tags: Sequence[str] = ()
    image_id: int | str | None = None
    split: str = ""


class _StringLists:
    """A list of strings for each image, all in one buffer."""

    def __init__(self, lists: Iterable[Sequence[str]]) -> None:
        self._ends = array("q", [0])
        self._strings = Strings(self._flat(lists))

    def _flat(self, lists: Iterable[Sequence[str]]) -> Iterable[str]:
        for strings in lists:
            yield from strings
            self._ends.append(self._ends[-1] + len(strings))

    def __getitem__(self, position: int) -> tuple[str, ...]:
        return tuple(self._strings[at] for at in range(self._ends[position], self._ends[position + 1]))

    @property
    def total(self) -> int:
        return len(self._strings)


class AnnotationSource:
    """The examples of an annotation file, one per image.

    Attributes:
        left_out: empty, with a remark if the folder of the images was found and not given.
    """

    def __init__(
        self, path: Place, found: Sequence[_Annotation], form: str, sha256: str, image_root: Place | None
    ) -> None:
        self.name = str(path)
        self.fingerprint = sha256
        self._form = form
        self._files = Strings(words.file for words in found)
        self._captions = _StringLists(words.captions for words in found)
        self._tags = _StringLists(words.tags for words in found)
        self._about = Strings(json.dumps(_metadata(words)) for words in found)
        self._wordless = sum(not (words.captions or words.tags) for words in found)
        named = [] if isinstance(path, RemotePath) else [self._named(row) for row in spread(len(found))]
        root = find_image_root(self.name, path.parent, image_root, named)
        self._root = root.folder
        self.left_out = LeftOut(root.remarks)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        where, file = self._named(position)
        return Example(
            key=file,
            image=image_at(self._root / file, where, self._root),
            captions=self._captions[position],
            tags=self._tags[position],
            metadata=json.loads(self._about[position]),
        )

    def describe(self) -> str:
        """Summarise what was found, in a few lines."""
        said = [
            f"{count:,} {what}"
            for count, what in ((self._captions.total, "captions"), (self._tags.total, "tags"))
            if count
        ]
        lines = [f"{self.name}: {len(self):,} images with {' and '.join(said) or 'no words'}, {self._form}"]
        if self._wordless and said:
            lines.append(f"without words: {self._wordless:,} images")
        return "\n".join(
            [*lines, *(remark.removeprefix(f"{self.name}: ") for remark in self.left_out.remarks)]
        )

    def _named(self, position: int) -> tuple[str, str]:
        return f"{self.name}, image {position + 1:,}", self._files[position]


def open_annotations(path: Place, split: str | None, image_root: Place | None) -> AnnotationSource:
    """Open an annotation file.

    split: one of Karpathy's, several with commas (`train,restval`), or `all`; required if there are several.
    image_root: the folder that the names of images are relative to; found if not given.

    Raises:
        DataError: the file has neither form, an entry of it is broken, or no split was chosen among several.
        SettingsError: the file has no splits, or does not have this one.
    """
    content, sha256 = _read(path)
    images = content.get("images")
    if not isinstance(images, list) or not images or not all(isinstance(image, dict) for image in images):
        raise DataError(f"{path}: is an object with the fields {_listed(content)}; {_SHAPES}")
    if any("sentences" in image for image in images[:1]):
        return _open_karpathy(path, images, split, sha256, image_root)
    if not isinstance(content.get("annotations"), list):
        raise DataError(f"{path}: is an object with the fields {_listed(content)}; {_SHAPES}")
    if split is not None:
        raise SettingsError(f"{path}: COCO's annotations have no splits; leave out ?split={split}")
    return AnnotationSource(path, _coco(path, content), "COCO's annotations", sha256, image_root)


def _open_karpathy(
    path: Place, images: Sequence[Mapping[str, Any]], split: str | None, sha256: str, image_root: Place | None
) -> AnnotationSource:
    found = [_karpathy(image, f"{path}, image {number:,}") for number, image in enumerate(images, 1)]
    counts = Counter(words.split for words in found)
    listed = ", ".join(f"{name} ({count:,} images)" for name, count in counts.items())
    if split is None and len(counts) > 1:
        raise DataError(
            f"{path}: holds the splits {listed}; choose one, as in {path}?split={next(iter(counts))}, several "
            f"separated by commas, or {ALL}"
        )
    form = "Karpathy's splits"
    if split is not None and split != ALL:
        chosen = [name.strip() for name in split.split(",")]
        unknown = next((name for name in chosen if name not in counts), None)
        if unknown is not None:
            raise SettingsError(f"{path}: no split {unknown!r}; it holds {listed}; {ALL} selects all of them")
        found = [words for words in found if words.split in chosen]
        form = f"the split {' and '.join(chosen)} of Karpathy's"
        sha256 = hashlib.sha256(f"{sha256}\0{','.join(sorted(chosen))}".encode()).hexdigest()
    return AnnotationSource(path, found, form, sha256, image_root)


def _karpathy(image: Mapping[str, Any], where: str) -> _Annotation:
    sentences = image.get("sentences")
    if not isinstance(sentences, list) or not all(isinstance(each, dict) for each in sentences):
        raise DataError(f"{where}: `sentences` is not a list of objects; {_SHAPES}")
    name = _text(image, "filename", where)
    folder = image.get("filepath")
    return _Annotation(
        file=f"{folder}/{name}" if isinstance(folder, str) and folder else name,
        captions=_captions((each.get("raw") for each in sentences), where),
        split=str(image.get("split", "")),
    )


def _coco(path: Place, content: Mapping[str, Any]) -> list[_Annotation]:
    images: list[Mapping[str, Any]] = content["images"]
    rows: dict[Any, int] = {}
    for number, image in enumerate(images):
        if rows.setdefault(_id(image, "id", f"{path}, image {number + 1:,}"), number) != number:
            raise DataError(
                f"{path}, image {number + 1:,}: the id {image['id']!r} occurs twice; make ids unique"
            )
    names = _category_names(path, content)
    captions: list[dict[str, None]] = [{} for _ in images]
    tags: list[dict[str, None]] = [{} for _ in images]
    for number, annotation in enumerate(content["annotations"], 1):
        where = f"{path}, annotation {number:,}"
        if not isinstance(annotation, dict):
            raise DataError(f"{where}: is not an object; {_SHAPES}")
        row = rows.get(_id(annotation, "image_id", where))
        if row is None:
            raise DataError(f"{where}: no image has the id {annotation['image_id']!r}")
        captions[row] |= dict.fromkeys(_captions([annotation.get("caption")], where))
        category = annotation.get("category_id")
        if category is not None:
            if category not in names:
                raise DataError(f"{where}: no category has the id {category!r}")
            tags[row][valid_unicode(names[category])] = None
    return [
        _Annotation(
            _text(image, "file_name", f"{path}, image {row + 1:,}"),
            tuple(captions[row]),
            tuple(tags[row]),
            image["id"],
        )
        for row, image in enumerate(images)
    ]


def _category_names(path: Place, content: Mapping[str, Any]) -> dict[Any, str]:
    categories = content.get("categories") or []
    if not isinstance(categories, list) or not all(isinstance(each, dict) for each in categories):
        raise DataError(f"{path}: `categories` is not a list of objects; {_SHAPES}")
    return {
        _id(category, "id", f"{path}, category {number:,}"): _text(
            category, "name", f"{path}, category {number:,}"
        )
        for number, category in enumerate(categories, 1)
    }


def _captions(values: Iterable[Any], where: str) -> list[str]:
    """Return captions without surrounding space, each once."""
    found: dict[str, None] = {}
    for value in values:
        if is_nothing(value):
            continue
        if not isinstance(value, str):
            raise DataError(f"{where}: the caption is {value!r}; expected a string")
        if value.strip():
            found[valid_unicode(value.strip())] = None
    return list(found)


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {name!r} is {value!r}; expected the name of a file or a class")
    return value.strip()


def _id(record: Mapping[str, Any], name: str, where: str) -> int | str:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where}: {name!r} is {value!r}; expected a number or a string")
    return value


def _metadata(words: _Annotation) -> dict[str, Any]:
    about = {"image_id": words.image_id, "split": words.split or None}
    return {name: value for name, value in about.items() if value is not None}


def _read(path: Place) -> tuple[Mapping[str, Any], str]:
    with stream(path) as (file, _):
        data = file.read()
    try:
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_known_fields)
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); {_SHAPES}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: is a JSON {type(content).__name__}; {_SHAPES}")
    return content, hashlib.sha256(data).hexdigest()


def _known_fields(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if name in _FIELDS}


def _listed(content: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, content)) or "none that is known here"
