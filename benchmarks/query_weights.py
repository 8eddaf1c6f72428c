"""What a weight for the unwanted, and what diversity, do to the ten best results on the bundled sample.

    python benchmarks/query_weights.py [--model diptych-mini]

Unwanted: the questions are all pairs of words of the captions, "one, not the other", of which at least 15 pictures have
the first, and 4 to all but 6 of those also the second. A picture is right when its caption has the first word and not
the second. Diversity: the questions are the words that at least 15 captions have.
"""

import argparse
import re
from collections import Counter

import numpy as np

from diptych import load
from diptych.data.sources.opening import open_source
from diptych.embed.encode import embed_images, embed_texts
from diptych.search.diversity import diversify
from diptych.search.query import combine
from diptych.search.searcher import DIVERSIFIED

SEEN = 10  # results of each question
LEAST = 15  # captions that have a word
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
DIVERSITIES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
EMPTY_WORDS = {"the", "and", "with", "for", "des", "les"}

Floats = np.ndarray


def pairs_of(captions: list[set[str]], counts: Counter[str]) -> list[tuple[str, str]]:
    """Pairs (wanted, unwanted)."""
    pairs = []
    for wanted, count in counts.items():
        both = Counter(word for words in captions if wanted in words for word in words - {wanted})
        pairs += [(wanted, word) for word, times in both.items() if 4 <= times <= count - 6]
    return pairs


def unwanted_table(
    pairs: list[tuple[str, str]], vectors: dict[str, Floats], images: Floats, has: list[set[str]]
) -> None:
    print(
        f"{len(pairs)} questions\n\n| weight of the unwanted | right | has the wanted word | has the unwanted word |"
    )
    print("|---|---|---|---|")
    for weight in WEIGHTS:
        found = []
        for wanted, unwanted in pairs:
            query = vectors[wanted]
            if weight:
                query = combine(np.array([query, vectors[unwanted]]), np.array([1, -weight], np.float32))
            best = np.argsort(-(images @ query))[:SEEN]
            found += [(wanted in has[row], unwanted in has[row]) for row in best]
        with_wanted, with_unwanted = np.array(found).T
        shares = (with_wanted & ~with_unwanted, with_wanted, with_unwanted)
        print(f"| {0 - weight:g} | " + " | ".join(f"{100 * share.mean():.1f} %" for share in shares) + " |")


def diversity_table(
    vectors: dict[str, Floats], images: Floats, has: list[set[str]], captions: list[str]
) -> None:
    print(
        f"\n{len(vectors)} questions\n\n| diversity | has the word | mean score | cosine between results | captions |"
    )
    print("|---|---|---|---|---|")
    for diversity in DIVERSITIES:
        rows = []
        for word, query in vectors.items():
            scores = images @ query
            best = np.argsort(-scores)[:DIVERSIFIED]
            chosen = best[diversify(scores[best], images[best], diversity)[:SEEN]]
            between = images[chosen] @ images[chosen].T
            rows.append(
                (
                    100 * np.mean([word in has[row] for row in chosen]),
                    scores[chosen].mean(),
                    (between.sum() - SEEN) / (SEEN * (SEEN - 1)),
                    len({captions[row] for row in chosen}),
                )
            )
        right, score, likeness, different = np.mean(np.array(rows), axis=0)
        print(f"| {diversity:g} | {right:.1f} % | {score:.3f} | {likeness:.3f} | {different:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="diptych-mini")
    arguments = parser.parse_args()
    model, preprocess = load(arguments.model)
    rows = [
        source[row]
        for source in map(open_source, ("sample:train", "sample:test"))
        for row in range(len(source))
    ]
    images = embed_images(model, preprocess, [row.image for row in rows])
    captions = [" ".join(row.captions).lower() for row in rows]
    has = [set(re.findall("[a-z]{3,}", text)) - EMPTY_WORDS for text in captions]
    counts = Counter(word for words in has for word in words)
    common = Counter({word: count for word, count in counts.items() if count >= LEAST})
    pairs = pairs_of(has, common)
    words = sorted({word for pair in pairs for word in pair} | common.keys())
    vectors = dict(zip(words, embed_texts(model, words), strict=True))
    print(
        f"{arguments.model}, {len(rows):,} pictures of the bundled sample, the {SEEN} best results of each question\n"
    )
    unwanted_table(pairs, vectors, images, has)
    diversity_table({word: vectors[word] for word in common}, images, has, captions)


if __name__ == "__main__":
    main()
