"""Search, retrieval, calibration and few-shot learning with real features: published ones of OpenAI's ViT-B/32.

    python benchmarks/real_features.py --features openai-vit-b-32-features.npz

The file has features of 715 photographs, of 100 more with five captions each, and of 1,000 class prompts. No photograph
has a class label. What has a right answer is which photograph a caption describes, so the tables ask that:

- Search: recall@10 of Diptych's indexes and of others beside the exact answer, for images, captions and prompts, and
  how often the caption's own photograph comes first. The partitions are small, so that there are several.
- Retrieval: R@1, R@5, R@10 of the captioned photographs alone, which were published, and among all.
- Calibration: the probability at CLIP's temperature (logits are 100 times the cosine) that a caption describes the
  photograph it is nearest to, and that a photograph goes with the mean of its captions: accuracy, mean probability,
  expected calibration error in 15 bins, and that of a calibrated model of the same probabilities. The scale that fits
  is found on the photographs with even numbers, and measured on the odd ones.
- Few-shot: a photograph is a class and its captions are the examples. A probe learns from one to four captions and
  answers for the fifth; another learns from captions and answers for the photographs.

--quick runs on draws of `clip_geometry.py` in place of the file.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from clip_geometry import Drawn
from fit_geometry import TEXTS, read_features
from timing import describe_machine
from vector_index import best_rows, with_diptych, with_faiss, with_usearch
from vector_statistics import Floats, Integers, Vectors

from diptych.evaluation.probes.few_shot import evaluate_few_shot
from diptych.evaluation.probes.probe_data import LabelledFeatures
from diptych.evaluation.retrieval import rank_both, retrieval_scores
from diptych.evaluation.zero_shot.answers import answers
from diptych.evaluation.zero_shot.calibration import fit_temperature
from diptych.evaluation.zero_shot.classification import mean_directions
from diptych.evaluation.zero_shot.reliability import (
    bins_of_equal_width,
    error_if_calibrated,
    expected_calibration_error,
)
from diptych.search.stores import lance

SCALE = 100.0  # of the published models
PART = 32  # rows a partition: a small collection still has some
PROBES = [2, 4, 8]


def retrieval(images: Floats, texts: Floats, owner: Integers) -> dict[str, float]:
    """Return the metrics of `diptych evaluate retrieval`. owner: (texts,), the image that each text describes.

    Only images with a text are queries from image to text.
    """
    described = np.unique(owner)
    texts_of_image = [np.flatnonzero(owner == row).tolist() for row in described]
    ranked = rank_both(images, texts, [[0]] * len(images), [[int(row)] for row in owner])
    back = rank_both(images[described], texts, texts_of_image, [[0]] * len(texts))
    ranked["image_to_text"] = back["image_to_text"]
    return dict(retrieval_scores(ranked).metrics)


def calibration(images: Floats, classes: Floats, target: Integers) -> dict[str, float]:
    """Return how far stated probabilities are from accuracy, at `SCALE` and at the scale that fits.

    images: (n, dim), what is classified; classes: (m, dim), both of unit length; target: (n,). Answers for classes with
    odd numbers are measured, and the scale is fitted to those for classes with even ones.
    """
    logits, odd = SCALE * images @ classes.T, target % 2 == 1
    fitted = SCALE / fit_temperature(logits[~odd], target[~odd])
    found = {"fitted scale": fitted}
    for name, scale in (("at 100", SCALE), ("fitted", fitted)):
        said = answers(images[odd], torch.from_numpy(np.ascontiguousarray(classes.T)), target[odd], scale)
        right = said.predicted == said.target
        found |= {
            f"{name}: accuracy": float(right.mean()),
            f"{name}: mean probability": float(said.probability.mean()),
            f"{name}: calibration error": expected_calibration_error(
                bins_of_equal_width(said.probability, right)
            ),
            f"{name}: if calibrated": error_if_calibrated(said.probability),
        }
    return found


def few_shot(images: Floats, texts: Floats, owner: Integers, seeds: int) -> dict[str, float]:
    """Return the accuracy of probes that learned from captions, each photograph a class.

    images: (classes, dim); texts: the same number for each image, owner: (texts,), their image.
    """
    last = np.append(owner[1:] != owner[:-1], True)
    learned, held_out = (_labelled("captions", texts[part], owner[part]) for part in (~last, last))
    shown = _labelled("photographs", images, np.arange(len(images)))
    zero_shot = float(np.mean((texts[last] @ images.T).argmax(axis=1) == owner[last]))
    found = {"captions, by the photograph itself": zero_shot}
    for name, test, numbers in (
        ("captions", held_out, (1, 4)),
        ("photographs", shown, (1, 4)),
    ):
        report = evaluate_few_shot(learned, test, model_name="ViT-B/32", shots=numbers, seeds=seeds)
        found |= {f"{name}, {metric}": value for metric, value in report.scores.metrics.items()}
    return found


def _labelled(data: str, features: Floats, target: Integers) -> LabelledFeatures:
    names = tuple(str(number) for number in range(int(target.max()) + 1))
    keys = tuple(f"{data} {row}" for row in range(len(features)))
    return LabelledFeatures(
        data=data,
        classes=names,
        features=features,
        target=target,
        keys=keys,
        positions=tuple(range(len(features))),
        skipped={},
    )


def searches(vectors: Vectors, prompts: Floats) -> Iterator[str]:
    """Yield a line an engine: recall@10 of images, captions and prompts, and R@1 of captions."""
    rows = vectors.images.astype(np.float16)
    kinds = [vectors.images[np.unique(vectors.owner)], vectors.texts, prompts]
    best = [best_rows(rows, queries) for queries in kinds]
    chosen, lance.PARTITION_ROWS = lance.PARTITION_ROWS, PART
    try:
        for engine in (partial(with_diptych, probes=PROBES), with_faiss, with_usearch):
            folder = Path(tempfile.mkdtemp())
            try:
                for built in engine(rows, folder):
                    if "filter" in built.name:
                        continue
                    found = [[built.search(query) for query in queries] for queries in kinds]
                    recalls = [
                        np.mean(
                            [
                                len(wanted & set(hits)) / len(wanted)
                                for wanted, hits in zip(*both, strict=True)
                            ]
                        )
                        for both in zip(best, found, strict=True)
                    ]
                    first = np.mean(
                        [hits[0] == row for hits, row in zip(found[1], vectors.owner, strict=True)]
                    )
                    yield " | ".join([f"| {built.name}", *(f"{one:.4f}" for one in [*recalls, first])]) + " |"
            finally:
                shutil.rmtree(folder)
    finally:
        lance.PARTITION_ROWS = chosen


def figures(vectors: Vectors, seeds: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield every other table: its heading, and its rows."""
    described, texts = vectors.images[np.unique(vectors.owner)], vectors.texts
    owner = vectors.owner - vectors.owner.min()
    yield f"Retrieval among the {len(described)} captioned photographs", retrieval(described, texts, owner)
    yield (
        f"Retrieval among all {len(vectors.images)} photographs",
        retrieval(vectors.images, texts, vectors.owner),
    )
    yield "Calibration: which photograph a caption describes", calibration(texts, described, owner)
    prototypes = mean_directions(texts, np.bincount(owner).tolist())
    yield (
        "Calibration: which captions a photograph has",
        calibration(described, prototypes, np.arange(len(described))),
    )
    yield "Few-shot, accuracy", few_shot(described, texts, owner, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--features", type=Path, help="an npz file with the arrays that fit_geometry.py reads"
    )
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        images, texts = Drawn().pairs(600, TEXTS)
        vectors = Vectors(images, texts[-100:], np.repeat(np.arange(580, 600), TEXTS))
        prompts = texts[:20]
    elif options.features is None:
        parser.error("give --features FILE, or --quick")
    else:
        vectors = read_features(options.features)
        with np.load(options.features) as found:
            prompts = found["imagenet_text_features"]
    print(describe_machine("lancedb", "faiss-cpu", "usearch", "numpy"))
    for heading, rows in figures(vectors, 1 if options.quick else 2):
        print(f"\n{heading}\n\n| figure | value |\n|---|---|")
        print("\n".join(f"| {name} | {value:.4f} |" for name, value in rows.items()))
    print(f"\nSearch among {len(vectors.images)} photographs\n")
    print("| engine | recall@10 images | captions | prompts | R@1 of captions |\n|---|---|---|---|---|")
    for line in searches(vectors, prompts):
        print(line, flush=True)


if __name__ == "__main__":
    main()
