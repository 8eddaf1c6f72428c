"""Write the pairs that diptych-mini is trained on: photographs and drawings, with texts as people write them.

    python experiments/mini/pairs.py --corpus CORPUS --photos PHOTOS --wordnet WORDNET --out build/mini

CORPUS has train-*.tar (drawings), PHOTOS train-*.parquet (photographs; leave it out for free data alone), WORDNET
data.noun and index.noun. Each row of OUT/*.parquet gets `captions`, a list that a text is drawn from uniformly: a form
that is to be seen more often stands in it more than once.
"""

import argparse
import colorsys
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from wordnet import ABSTRACT, WordNet

PHOTO_FORMS = ("a photo of {a}", "a photo of {a}", "a picture of {a}", "a blurry photo of {a}", "a close-up of {a}",
               "a good photo of {a}", "there is {a} in the picture")  # fmt: skip
DRAWN_FORMS = (
    "a drawing of {a}",
    "a picture of {a}",
    "an icon of {a}",
    "an emoji of {a}",
    "a cartoon of {a}",
)
# Share of the figure's pixels that have the colour, above which its name gets it.
MOST_OF_IT = 0.45
# Icons of one colour, whose names are more often acts than things.
ICONS = {f"@iconify-json/{name}" for name in
         ("mdi", "tabler", "game-icons", "icon-park", "lucide", "ph", "fa6-solid", "healthicons")}  # fmt: skip
SCHEMA = pa.schema(
    [("image", pa.binary()), ("captions", pa.list_(pa.string())), ("source", pa.string()), ("vendor", pa.string()),
     ("author", pa.string()), ("label", pa.string()), ("part", pa.string())]
)  # fmt: skip


def with_article(name: str) -> str:
    """Return `a dog`, `an apple`; a name in the plural, with an article or in capitals stays as it is."""
    first = name.split(" ", 1)[0].lower()
    if first in ("a", "an", "the", "two", "three", "my", "some", "flag") or re.search(r"[^su]s$", name):
        return name
    return f"{'an' if first[0] in 'aeiou' else 'a'} {name}"


def forms_of(name: str, forms: Sequence[str], count: int) -> list[str]:
    """Return 3 times `count` texts: the name, the name with its article, and the name in turn in each form.

    Which forms: a run of them whose start depends on the name.
    """
    article = with_article(name)
    start = sum(name.encode()) % len(forms)
    framed = [forms[(start + step) % len(forms)].format(a=article) for step in range(count)]
    return [*[name] * count, *[article] * count, *framed]


def photo_texts(row: dict[str, Any]) -> list[str]:
    """Return the texts of a photograph of one thing: its name, synonyms, what it is, and its definition."""
    name = row["caption"] or row["label"]
    texts = forms_of(name, PHOTO_FORMS, 5)
    kinds = [tag for tag in row["tags"] or () if tag.lower() != name.lower() and tag not in ABSTRACT]
    for kind in kinds[:4]:
        texts += forms_of(kind, PHOTO_FORMS, 1)[1:]
    if row["gloss"]:
        texts += [row["gloss"], f"{name}, {row['gloss']}"]
    return texts


def drawn_texts(row: dict[str, Any], image: bytes, wordnet: WordNet) -> list[str]:
    """Return the texts of a drawing: its names, its keywords, what WordNet says of them, its colour."""
    texts: list[str] = []
    for caption in row["captions"]:
        texts += [caption] * 12
        if len(caption.split()) <= 3:
            texts += forms_of(caption, DRAWN_FORMS, 1)
    name = row["captions"][0]
    tags = [tag for tag in row.get("tags") or () if tag.lower() != name.lower()]
    if tags:
        texts += [", ".join(tags[:3]), f"{name}, {', '.join(tags[:3])}", *tags[:4]]
    bare = re.sub(r"\b(face|outline|filled|head|simple|contour|\d+)\b|\(.*\)", "", name).strip()
    hints = {word.lower() for word in (*tags, *(row.get("group") or "").split())}
    synset = wordnet.visible(bare, hints)
    if synset is None and row["source"] not in ICONS and 2 <= len(bare.split()) <= 3:
        last = bare.split()[-1].lower()
        synset = (
            None if last in ("button", "sign", "symbol", "icon", "suit") else wordnet.visible(last, hints)
        )
    if synset:
        for kind in [*synset.words[1:2], *wordnet.kinds(synset)]:
            texts += [kind, with_article(kind)]
        texts += [synset.gloss]
        colour = colour_of(image)
        if colour and colour not in bare:
            texts += [f"{colour} {bare}", with_article(f"{colour} {bare}")]
    return texts


def colour_of(image: bytes) -> str | None:
    """Return the colour that most of a drawing's figure has, or None; grey, black and white count as none."""
    pixels = (
        np.asarray(Image.open(io.BytesIO(image)).convert("RGBA").resize((24, 24)), dtype=np.float64) / 255
    )
    figure = pixels[pixels[..., 3] > 0.5]
    if len(figure) < 40:
        return None
    found: dict[str, int] = {}
    for red, green, blue, _ in figure:
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        name = _hue_name(hue * 360, saturation, value)
        found[name] = found.get(name, 0) + 1
    best = max(found, key=lambda name: found[name])
    return best if best and found[best] >= MOST_OF_IT * len(figure) else None


def _hue_name(hue: float, saturation: float, value: float) -> str:
    if saturation < 0.35 or value < 0.3:
        return ""
    for end, name in ((15, "red"), (42, "orange"), (68, "yellow"), (165, "green"), (255, "blue"), (300, "purple"),
                      (340, "pink")):  # fmt: skip
        if hue < end:
            if name == "orange" and value < 0.65:
                return "brown"
            return name
    return "red"


def drawings(corpus: Path, wordnet: WordNet) -> Iterator[dict[str, Any]]:
    """Yield the rows of the corpus's shards."""
    for shard in sorted(corpus.glob("train-*.tar")):
        with tarfile.open(shard) as archive:
            images: dict[str, bytes] = {}
            for member in archive:
                file = archive.extractfile(member)
                if file is None:
                    continue
                key, _, kind = member.name.rpartition(".")
                if kind != "json":
                    images[key] = file.read()
                    continue
                row = json.loads(file.read())
                yield {
                    "image": images[key], "captions": drawn_texts(row, images[key], wordnet),
                    "source": row["source"], "vendor": row.get("vendor"), "author": row.get("author"), "label": None,
                    "part": part_of(row["source"], row.get("author") or ""),
                }  # fmt: skip
                images.clear()


def photographs(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the photographs that are trained on."""
    for file in sorted(folder.glob("train-*.parquet")):
        kind = "photos-" + file.stem.split("-")[1]
        for row in pq.read_table(file).to_pylist():
            image = row["image"]["bytes"] if isinstance(row["image"], dict) else row["image"]
            texts = row["captions"] if kind == "photos-sentences" else photo_texts(row)
            yield {"image": image, "captions": texts, "source": kind, "vendor": None, "author": None,
                   "label": row.get("label"), "part": part_of(kind, hashlib.sha256(image).hexdigest())}  # fmt: skip


def part_of(source: str, key: str) -> str:
    """Return "choose" for what a recipe is chosen on: a designer, a tenth of the clip-art authors and sentences."""
    tenth = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 == 0
    by_key = source.startswith("openclipart") or source == "photos-sentences"
    return "choose" if source == "@iconify-json/emojione" or (by_key and tenth) else "train"


def validation(photos: Path) -> tuple[pa.Table, pa.Table]:
    """Return the halves to choose on (the SHA-256 of the path is even) and to measure on, of validation-objects."""
    table = pq.read_table(photos / "validation-objects.parquet")
    even = [
        int(hashlib.sha256(image["path"].encode()).hexdigest(), 16) % 2 == 0
        for image in table["image"].to_pylist()
    ]
    chosen = pa.array(even)
    return table.filter(chosen), table.filter(pc.invert(chosen))


def held_out(files: Sequence[Path]) -> pa.Table:
    """Return the rows that a recipe is chosen on, each with its first text as the caption."""
    tables = [pq.read_table(file, filters=[("part", "==", "choose")]) for file in files]
    rows = pa.concat_tables(tables)
    return rows.select(["image", "source"]).append_column("caption", pc.list_element(rows["captions"], 0))


def write(rows: Iterator[dict[str, Any]], file: Path) -> int:
    """Write rows as Parquet; returns their number."""
    table = pa.Table.from_pylist(list(rows), SCHEMA)
    pq.write_table(table, file)
    return int(table.num_rows)


def main() -> None:
    """Write drawings.parquet, photographs with both halves of the validation where given, and held-out.parquet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("corpus", "wordnet", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wordnet = WordNet(args.wordnet)
    files = [args.out / "drawings.parquet"]
    print(write(drawings(args.corpus, wordnet), files[0]), "drawings")
    if args.photos:
        files.append(args.out / "photographs.parquet")
        print(write(photographs(args.photos), files[1]), "photographs")
        for name, half in zip(("choose", "measure"), validation(args.photos), strict=True):
            pq.write_table(half, args.out / f"validation-{name}.parquet")
            print(half.num_rows, f"photographs to {name} on")
    pq.write_table(held_out(files), args.out / "held-out.parquet")


if __name__ == "__main__":
    main()
