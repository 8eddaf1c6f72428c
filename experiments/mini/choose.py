"""Measure models on the data that the recipe of diptych-mini is chosen on; no test row is looked at.

    python experiments/mini/choose.py MODEL... --pairs build/mini

Prints top-1 and top-5 of the 200 kinds of photographs (the half of validation-objects whose path has an even SHA-256),
top-1 of a held-out designer's emoji, and R@10 of held-out sentences and of held-out authors' clip art, both ways.
"""

import argparse
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

import diptych

TEMPLATES = ("{}", "a {}", "a photo of a {}", "a picture of a {}")


class Encoder:
    """A model's unit vectors."""

    def __init__(self, model: str) -> None:
        self._model, self._preprocess = diptych.load(model, device="cpu")

    def images(self, encoded: list[bytes]) -> Tensor:
        """Return (images, dim)."""
        return torch.as_tensor(diptych.embed_images(self._model, self._preprocess, encoded))

    def texts(self, texts: list[str]) -> Tensor:
        """Return (texts, dim)."""
        return torch.as_tensor(diptych.embed_texts(self._model, texts, truncate=True))


def hits(scores: Tensor, right: Tensor, k: int) -> float:
    """Return the percentage of the rows whose right column is among the k best. scores: (rows, columns)."""
    found = (scores.topk(k).indices == right[:, None]).any(dim=1)
    return 100 * found.float().mean().item()


def kinds(encoder: Encoder, rows: list[dict[str, Any]], k: int) -> float:
    """Return zero-shot top-k of photographs of one thing each, over the labels of `rows`."""
    names = sorted({row["label"] for row in rows})
    vectors = [encoder.texts([template.format(name) for name in names]) for template in TEMPLATES]
    scores = encoder.images([row["image"]["bytes"] for row in rows]) @ torch.stack(vectors).sum(0).T
    return hits(scores, torch.tensor([names.index(row["label"]) for row in rows]), k)


def pairs(encoder: Encoder, rows: list[dict[str, Any]], k: int) -> tuple[float, float]:
    """Return R@k from images to their first texts, and back."""
    scores = (
        encoder.images([row["image"] for row in rows]) @ encoder.texts([row["captions"][0] for row in rows]).T
    )
    own = torch.arange(len(rows))
    return hits(scores, own, k), hits(scores.T, own, k)


def main() -> None:
    """Print a line a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--pairs", type=Path, required=True)
    args = parser.parse_args()
    even = pq.read_table(args.pairs / "validation-choose.parquet").to_pylist()
    held_out = [
        row
        for name in ("drawings", "photographs")
        for row in pq.read_table(
            args.pairs / f"{name}.parquet", filters=[("part", "==", "choose")]
        ).to_pylist()
    ]

    def of(source: str) -> list[dict[str, Any]]:
        return [row for row in held_out if source in row["source"]]

    for model in args.models:
        encoder = Encoder(model)
        print(
            f"{model}: kinds top-1 {kinds(encoder, even, 1):.1f} top-5 {kinds(encoder, even, 5):.1f}",
            f"designer {pairs(encoder, of('emojione'), 1)[0]:.1f}",
            "sentences R@10 {:.1f} {:.1f}".format(*pairs(encoder, of("photos-sentences"), 10)),
            "clip art R@10 {:.1f} {:.1f}".format(*pairs(encoder, of("openclipart"), 10)),
            sep=" | ",
            flush=True,
        )


if __name__ == "__main__":
    main()
