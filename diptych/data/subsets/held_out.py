"""A part of a dataset that is kept from training, and classes that are seen equally often."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from diptych.errors import SettingsError

Flags = npt.NDArray[np.bool_]
Labels = Sequence[str | None]


def held_out(
    keys: Sequence[str], labels: Labels, share: float, groups: npt.NDArray[np.int64] | None = None
) -> Flags:
    """(n,): which examples are kept from training: about `share` of each class, chosen by a hash of their keys.

    labels: of each example; those without one are a class. groups: (n,) numbers, equal for examples that must stay on
    one side, such as near copies; each is alone when not given.

    Groups are gone through in the order of the hash of their first key. One is held out where that brings the numbers
    of its classes nearer to their share. A class that got none gives its smallest group. A class keeps one example or
    more to train on, so that a class of one example or of one group gives none. Further examples of other classes
    change nothing, unless a group reaches from one to the other; a further one of a class, at most one of its others
    where each is alone.

    Raises:
        SettingsError: the share is not within 0..1.
    """
    if not 0 <= share < 1:
        raise SettingsError(f"[data] validation = {share}: expected a share, at least 0 and below 1")
    kept = np.zeros(len(keys), np.bool_)
    if share == 0:
        return kept
    members: dict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(range(len(keys)) if groups is None else groups.tolist()):
        members[group].append(position)
    firsts = {group: min(keys[position] for position in rows) for group, rows in members.items()}
    ranked = sorted(members, key=lambda group: (_rank(firsts[group]), firsts[group]))
    counts = {group: Counter(labels[position] for position in members[group]) for group in ranked}
    quota = _Quota(Counter(labels), share)
    for group in ranked:
        if quota.spares(counts[group]) and quota.change(counts[group]) < 0:
            quota.take(counts[group])
            kept[members[group]] = True
    left: dict[str | None, list[int]] = defaultdict(list)
    for group in ranked:
        for label in counts[group]:
            left[label].append(group)
    for label in quota.without():
        possible = [group for group in left[label] if quota.spares(counts[group])]
        if possible and not quota.taken[label]:
            least = min(possible, key=lambda group: quota.change(counts[group]))
            quota.take(counts[least])
            kept[members[least]] = True
    return kept


class _Quota:
    """How many examples of each class are held out, and how many are to be."""

    def __init__(self, sizes: Counter[str | None], share: float) -> None:
        self.taken: Counter[str | None] = Counter()
        self._sizes = sizes
        self._wanted = {label: min(size - 1, max(1, round(share * size))) for label, size in sizes.items()}

    def spares(self, counts: Counter[str | None]) -> bool:
        """Whether each class would keep an example to train on."""
        return all(self.taken[label] + count < self._sizes[label] for label, count in counts.items())

    def change(self, counts: Counter[str | None]) -> int:
        """By how many examples the numbers would move away from what is wanted; negative where nearer."""
        return sum(
            abs(self.taken[label] + count - self._wanted[label])
            - abs(self.taken[label] - self._wanted[label])
            for label, count in counts.items()
        )

    def take(self, counts: Counter[str | None]) -> None:
        self.taken += counts

    def without(self) -> list[str | None]:
        """The classes that are to give some and have given none."""
        return [label for label, wanted in self._wanted.items() if wanted and not self.taken[label]]


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
