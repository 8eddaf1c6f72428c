"""A part of a dataset that is kept from training, and classes that are seen equally often."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from diptych.errors import SettingsError

Flags = npt.NDArray[np.bool_]
Labels = Sequence[str | None]


def held_out(keys: Sequence[str], labels: Labels, share: float) -> Flags:
    """(n,): which examples are kept from training: about `share` of each class, chosen by a hash of their keys.

    labels: of each example; those without one are a class. At least one of a class of two or more is kept, and at least
    one is left to train on; of a class of one, none is kept. Further examples of other classes change nothing; a
    further one of a class, at most one of its others.

    Raises:
        SettingsError: the share is not within 0..1.
    """
    if not 0 <= share < 1:
        raise SettingsError(f"[data] validation = {share}: expected a share, at least 0 and below 1")
    kept = np.zeros(len(keys), np.bool_)
    if share == 0:
        return kept
    members: dict[str | None, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        members[label].append(position)
    for positions in members.values():
        count = min(len(positions) - 1, max(1, round(share * len(positions))))
        ranked = sorted(positions, key=lambda position: (_rank(keys[position]), keys[position]))
        kept[ranked[:count]] = True
    return kept


def balancing(labels: Labels, weights: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    """(n,): what weights are multiplied by so that classes are seen more evenly.

    power: 0 leaves them as they are, 1 shows every class equally often; a half is the square root of the numbers
    (Mahajan et al. 2018, section 2.2). An epoch stays as long as it was.
    """
    if not 0 <= power <= 1:
        raise SettingsError(
            f"[data] balance = {power}: expected 0 (as they are) to 1 (all classes equally often)"
        )
    seen: Counter[str | None] = Counter()
    for label, weight in zip(labels, weights.tolist(), strict=True):
        seen[label] += weight
    factors = np.array([seen[label] ** -power if seen[label] > 0 else 0.0 for label in labels])
    total = float((weights * factors).sum())
    return factors * (float(weights.sum()) / total) if total > 0 else factors


def _rank(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
