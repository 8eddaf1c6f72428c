"""Weight the examples of a source: how often each is seen in an epoch."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from diptych.data.sources.opening import Source
from diptych.data.subsets.held_out import Labels
from diptych.errors import DataError, SettingsError


def example_weights(
    source: Source, key: str | None, weights: Mapping[str, float], hold_out: Mapping[str, Sequence[str]]
) -> npt.NDArray[np.float64]:
    """Return how often each example is seen in an epoch, by its metadata; in a mixture, times its source's weight.

    key: the metadata field whose values have `weights`; a missing value has weight 1.
    hold_out: metadata fields, and the values whose examples are never seen.

    Raises:
        DataError: no example has a weight above 0.
    """
    result = np.array(getattr(source, "weights", np.ones(len(source))))
    if key is None and not hold_out:
        return result
    for index in range(len(source)):
        metadata = source[index].metadata
        if any(str(metadata.get(name)) in values for name, values in hold_out.items()):
            result[index] = 0.0
        elif key is not None:
            result[index] *= weights.get(str(metadata.get(key)), 1.0)
    if not result.any():
        raise DataError(
            f"{source.name}: every example is held out or has weight 0; hold out fewer, or raise a weight"
        )
    return result


def balancing(labels: Labels, weights: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    """Return (n,) factors for the weights, by which classes are seen more evenly.

    power: 0 changes nothing, 1 shows every class equally often; 1/2 uses the square root of the counts (Mahajan et
    al. 2018, section 2.2). The length of an epoch does not change.
    """
    if not 0 <= power <= 1:
        raise SettingsError(
            f"[data] balance = {power}; expected 0 (unchanged) to 1 (all classes equally often)"
        )
    seen: Counter[str | None] = Counter()
    for label, weight in zip(labels, weights.tolist(), strict=True):
        seen[label] += weight
    factors = np.array([seen[label] ** -power if seen[label] > 0 else 0.0 for label in labels])
    total = float((weights * factors).sum())
    return factors * (float(weights.sum()) / total) if total > 0 else factors
