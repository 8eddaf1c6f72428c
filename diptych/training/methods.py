"""The methods of fine-tuning by name, and what each learns by."""

from typing import Literal

FinetuneMethod = Literal["head", "full", "lp-ft", "wise-ft", "flyp", "lit", "contrastive", "lora"]


# They learn from labels and cannot do without; the others take pairs as well.
LABEL_METHODS = ("head", "full", "lp-ft", "wise-ft", "flyp")


def objective_of(method: FinetuneMethod, *, labels: bool) -> Literal["classifier", "clip", "lit"]:
    """The name of a method's objective. labels: whether the data have any; otherwise they are pairs."""
    if method == "lit":
        return "lit"
    return "clip" if method in ("flyp", "contrastive") or not labels else "classifier"
