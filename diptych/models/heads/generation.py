"""Texts from a model of the next word: the likeliest by beam search, or one drawn from the nucleus."""

from collections.abc import Callable

import torch
from torch import Tensor

NextWord = Callable[[Tensor], Tensor]  # prefixes (n, length) to log p of the word after each, (n, vocabulary)


def beam_search(
    next_word: NextWord, start: int, end: int, beams: int, longest: int
) -> tuple[list[int], float]:
    """Return the likeliest text that a search with `beams` open prefixes finds, and its log p.

    longest: tokens of a text, start and end token included. The text begins with `start`; it ends with `end`, unless
    no prefix came to an end within `longest`. Probabilities are compared as they are, not divided by the length. One
    beam is greedy decoding. A text that has ended stays among the beams, as in VirTex.
    """
    if beams < 1 or longest < 2:
        raise ValueError(f"beams = {beams}, longest = {longest}: expected at least 1 and 2")
    texts, scores = [[start]], [0.0]
    for _ in range(longest - 1):
        open_ones = [number for number, text in enumerate(texts) if text[-1] != end or len(text) == 1]
        if not open_ones:
            break
        found = next_word(torch.tensor([texts[number] for number in open_ones]))
        best, words = found.topk(min(beams, found.shape[1]), dim=1)
        grown = [(scores[number], texts[number]) for number in range(len(texts)) if number not in open_ones]
        for number, likelihoods, row in zip(open_ones, best.tolist(), words.tolist(), strict=True):
            grown += [
                (scores[number] + likelihood, [*texts[number], word])
                for likelihood, word in zip(likelihoods, row, strict=True)
            ]
        grown.sort(key=lambda pair: -pair[0])
        scores, texts = [score for score, _ in grown[:beams]], [text for _, text in grown[:beams]]
    ended = [number for number, text in enumerate(texts) if text[-1] == end and len(text) > 1]
    best_one = max(ended or range(len(texts)), key=scores.__getitem__)
    return texts[best_one], scores[best_one]


def nucleus(log_likelihoods: Tensor, mass: float) -> Tensor:
    """Return the smallest set of words with at least this probability, renormalised (Holtzman et al. 2019, equation 2).

    log_likelihoods: (vocabulary,). Returns (vocabulary,), probabilities that sum to 1; 0 outside the set. The
    likeliest word is always in it.
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass = {mass}: expected above 0 and at most 1")
    ordered, words = log_likelihoods.exp().sort(descending=True, stable=True)
    before = ordered.cumsum(dim=0) - ordered
    kept = torch.where(before < mass, ordered, 0.0)
    return torch.zeros_like(ordered).scatter_(0, words, kept / kept.sum())


def sample(
    next_word: NextWord, start: int, end: int, *, mass: float, longest: int, generator: torch.Generator
) -> list[int]:
    """Return a text whose every word is drawn from the nucleus of the words that may follow; up to `longest` tokens."""
    text = [start]
    while len(text) < longest and (len(text) == 1 or text[-1] != end):
        chances = nucleus(next_word(torch.tensor([text]))[0], mass)
        text.append(int(torch.multinomial(chances, 1, generator=generator)))
    return text
