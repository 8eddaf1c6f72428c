"""Ask the twenty plain queries of `queries.toml`, and count how often the first image is right.

`python experiments/mini/queries.py --model RUN --out FOLDER` indexes the bundled drawings of `sample:train` and the
bundled photographs, and writes `queries.json` and the page `queries.html`.
"""

import argparse
import json
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import diptych
from diptych.atomic import write_text
from diptych.data.example import Example
from diptych.data.sources.opening import Source
from diptych.embed.source_rows import uri_of
from diptych.reports.page_parts import PageImage
from diptych.reports.render import render_page

HERE = Path(__file__).parent
QUERIES = HERE / "queries.toml"
HITS = 5


@dataclass(frozen=True)
class PlainQuery:
    """A query in words. right: uris of the images that answer it."""

    words: str
    right: frozenset[str]


@dataclass(frozen=True)
class Found:
    """An image that a query found, with its cosine similarity."""

    uri: str
    caption: str
    score: float
    right: bool


@dataclass(frozen=True)
class Answered:
    """A query and the images that it found, best first."""

    words: str
    hits: Sequence[Found]

    @property
    def first_right(self) -> bool:
        return self.hits[0].right


def read_queries(drawings: Source, photographs: Source) -> list[PlainQuery]:
    """Read the queries with the uris of the right images.

    Raises:
        ValueError: a query names an image that neither source has.
    """
    keys: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    for example in _examples(drawings):
        keys[example.key] = uri_of(drawings, example)
        if "vendor" in example.metadata:
            names.setdefault(example.captions[0], []).append(keys[example.key])
    photographed = {example.key: uri_of(photographs, example) for example in _examples(photographs)}
    queries = []
    for query in tomllib.loads(QUERIES.read_text("utf-8"))["queries"]:
        try:
            right = [uri for name in query.get("emoji", ()) for uri in names[name]]
            right += [keys[f"{row:06}"] for row in query.get("drawings", ())]
            right += [photographed[stem] for stem in query.get("photographs", ())]
        except KeyError as error:
            raise ValueError(f"{QUERIES}: {query['words']!r}: no image {error} in the sample") from None
        queries.append(PlainQuery(query["words"], frozenset(right)))
    return queries


def ask(queries: Iterable[PlainQuery], place: Path) -> list[Answered]:
    """Ask each query of the index at `place`."""
    with diptych.open_index(place, device="cpu") as index:
        return [
            Answered(
                query.words,
                [
                    Found(hit.item.uri, hit.item.caption or "", float(hit.score), hit.item.uri in query.right)
                    for hit in index.search(query.words, limit=HITS)
                ],
            )
            for query in queries
        ]


def verdict(answers: Sequence[Answered]) -> str:
    """Return the line that counts the queries whose first image is right."""
    return f"first hit right: {sum(answer.first_right for answer in answers)} of {len(answers)}"


def page(model: str, answers: Sequence[Answered], images: dict[str, Example]) -> str:
    """Return the answers as one self-contained HTML page. images: by uri."""
    return render_page(
        "queries.html",
        folder=HERE,
        title=verdict(answers).capitalize(),
        model=model,
        answers=[
            (answer, [(hit, _page_image(hit, images[hit.uri])) for hit in answer.hits]) for answer in answers
        ],
        credits="; ".join(sorted({_credit(images[hit.uri]) for answer in answers for hit in answer.hits})),
    )


def _page_image(hit: Found, example: Example) -> PageImage:
    assert isinstance(example.image, bytes)  # as in every shard
    return PageImage(example.image, hit.caption, f"{hit.score:.2f}", _credit(example), "image/webp")


def _credit(example: Example) -> str:
    return f"{example.metadata.get('author') or 'unknown author'} ({example.metadata['licence']})"


def _examples(source: Source) -> list[Example]:
    return [source[row] for row in range(len(source))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--model", default="diptych-mini", help="a name, a file or a folder, as `diptych index` takes it"
    )
    parser.add_argument("--out", type=Path, default=Path("build/queries"))
    options = parser.parse_args()
    sources = [diptych.open_source("sample:train"), diptych.open_source("sample:photographs")]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "queries.index"
        for source in sources:
            diptych.build_index(source, place, model=options.model, device="cpu")
        answers = ask(read_queries(*sources), place)
    images = {uri_of(source, example): example for source in sources for example in _examples(source)}
    rows = [{"first_right": answer.first_right, **asdict(answer)} for answer in answers]
    options.out.mkdir(parents=True, exist_ok=True)
    told = {"model": options.model, "verdict": verdict(answers), "queries": rows}
    write_text(options.out / "queries.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    write_text(options.out / "queries.html", page(options.model, answers, images))
    for answer in answers:
        hits = ", ".join(f"{hit.caption}{'' if hit.right else ' (wrong)'}" for hit in answer.hits)
        print(f"{'right' if answer.first_right else 'wrong'}  {answer.words}: {hits}")
    print(verdict(answers))


if __name__ == "__main__":
    main()
