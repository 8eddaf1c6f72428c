"""The methods of fine-tuning by name, and what each learns by."""

from typing import Literal

FinetuneMethod = Literal["head", "full", "lp-ft", "wise-ft", "flyp", "lit", "contrastive", "lora"]


# They learn from labels and cannot do without; the others take pairs as well.
LABEL_METHODS = ("head", "full", "lp-ft", "wise-ft", "flyp")


# The approach of each method where the data have labels, and where they are pairs.
_APPROACHES: dict[str, tuple[str, str]] = {
    "head": ("classifier", "clip"),
    "full": ("classifier", "clip"),
    "lp-ft": ("classifier", "clip"),
    "wise-ft": ("classifier", "clip"),
    "lora": ("classifier", "clip"),
    "flyp": ("clip", "clip"),
    "contrastive": ("clip", "clip"),
    "lit": ("lit", "lit"),
}


def objective_of(method: str, *, labels: bool) -> str:
    """Return the name of a method's approach. labels: whether the data have any; otherwise they are pairs."""
    with_labels, with_pairs = _APPROACHES[method]
    return with_labels if labels else with_pairs


def approaches_of(method: str) -> tuple[str, ...]:
    """Return the names of the approaches among which the data decide."""
    return tuple(dict.fromkeys(_APPROACHES[method]))
