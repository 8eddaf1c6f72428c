"""Choose a part of a dataset to hold out from training."""

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
    """Choose the examples to hold out: about `share` of each class, by a hash of their keys. Returns (n,) flags.

    labels: of each example; those without one form a class. groups: (n,) ids, equal for examples that must stay on
    one side, such as near copies; by default each example is alone.

    Groups are visited in the order of the hash of their first key. A group is held out if that brings the counts of
    its classes nearer to their share. A class without held-out examples gives its smallest group. Every class keeps at
    least one example for training, so a class of one example or of one group gives none. Adding examples to other
    classes changes nothing, unless a group spans both. Adding one to a class changes at most one of its others, if
    each example is alone.

    Raises:
        SettingsError: the share is not within 0..1.
    """
    if not 0 <= share < 1:
        raise SettingsError(f"[data] validation = {share}; expected a fraction, at least 0 and below 1")
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
    """The numbers of examples per class that are held out, and that are wanted."""

    def __init__(self, sizes: Counter[str | None], share: float) -> None:
        self.taken: Counter[str | None] = Counter()
        self._sizes = sizes
        self._wanted = {label: min(size - 1, max(1, round(share * size))) for label, size in sizes.items()}

    def spares(self, counts: Counter[str | None]) -> bool:
        """Return whether each class would keep an example for training."""
        return all(self.taken[label] + count < self._sizes[label] for label, count in counts.items())

    def change(self, counts: Counter[str | None]) -> int:
        """Return by how many examples the counts would move away from the wanted ones; negative if nearer."""
        return sum(
            abs(self.taken[label] + count - self._wanted[label])
            - abs(self.taken[label] - self._wanted[label])
            for label, count in counts.items()
        )

    def take(self, counts: Counter[str | None]) -> None:
        self.taken += counts

    def without(self) -> list[str | None]:
        """Return the classes that should give some examples and have given none."""
        return [label for label, wanted in self._wanted.items() if wanted and not self.taken[label]]


def _rank(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
