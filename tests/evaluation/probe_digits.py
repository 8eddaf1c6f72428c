"""scikit-learn's digits as the features of labelled images."""

import numpy as np
from sklearn.datasets import load_digits

from diptych.evaluation.probes.probe_data import LabelledFeatures


def labelled_digits(rows: slice = slice(None), classes: int = 10) -> LabelledFeatures:
    """Pixels 0..16 (n, 64) of some rows of the 8 x 8 digits, of those of the first classes."""
    found = load_digits()
    chosen = np.arange(len(found.target))[rows]
    chosen = chosen[found.target[chosen] < classes]
    return LabelledFeatures(
        data="digits",
        classes=tuple(str(digit) for digit in range(classes)),
        features=found.data[chosen].astype(np.float32),
        target=found.target[chosen].astype(np.int64),
        keys=tuple(str(row) for row in chosen),
        positions=tuple(chosen.tolist()),
        skipped={},
    )
