"""The methods of fine-tuning: their settings, and the approach that each trains by."""

from dataclasses import dataclass, field
from typing import Literal

from diptych.errors import SettingsError

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


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How a trained model is fine-tuned (docs/finetuning.md)."""

    method: FinetuneMethod
    # Where the classifier begins: as the words of the classes say, as a logistic regression on the training part's
    # features, or at zero. When not given: probe for head, lp-ft and several labels, zero-shot for all others.
    head: Literal["zero-shot", "probe", "zero"] | None = None
    # Share of the fine-tuned weights in the result, 0..1; the start has the rest. "best" takes the share that does best
    # on the mean of the held-out part and the mean of the other tasks. When not given: 0.5 for wise-ft, 1 for others.
    alpha: float | Literal["best"] | None = None
    # The shares that are measured after wise-ft.
    alphas: tuple[float, ...] = tuple(number / 5 for number in range(6))
    # The names of each class in texts. When not given: its label.
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # The texts about a class, with {} in place of its name.
    templates: tuple[str, ...] = ("{}",)
    # Whether an image may be of several classes.
    several: bool = False
    # Whether batch norms use their running averages in training ("fixed").
    batch_norms: Literal["fixed", "trained"] = "fixed"
    # The rank and the scale of lora's updates, and the towers that get them.
    rank: int = 8
    scale: float = 2.0
    adapts: tuple[Literal["image", "text"], ...] = ("image",)
    # Share of a task's accuracy above chance, 0..1; losing more raises the alarm.
    most_lost: float = 0.2

    def __post_init__(self) -> None:
        for alpha in (*self.alphas, *([self.alpha] if isinstance(self.alpha, float) else [])):
            if not 0 <= alpha <= 1:
                raise SettingsError(f"[finetune] alpha = {alpha}: a share of the fine-tuned weights, 0..1")
        if self.rank < 1:
            raise SettingsError(f"[finetune] rank = {self.rank}: at least 1")
        if not self.templates or not all("{}" in template for template in self.templates):
            raise SettingsError(
                f"[finetune] templates = {list(self.templates)}: at least one, each with {{}} where the name goes"
            )
        if self.several and (self.head == "zero-shot" or self.method in ("flyp", "lit", "contrastive")):
            raise SettingsError(
                f"[finetune] several labels an image: not with method {self.method!r} and head {self.head!r}; words "
                "say which class is nearest, not whether each is there. Use full, lp-ft, wise-ft, head or lora, with "
                "the head probe or zero"
            )

    @property
    def begins(self) -> Literal["zero-shot", "probe", "zero"]:
        """Return where the classifier begins."""
        if self.head is not None:
            return self.head
        return "probe" if self.method in ("head", "lp-ft") or self.several else "zero-shot"

    @property
    def share(self) -> float | Literal["best"]:
        """Return the alpha of the result."""
        if self.alpha is not None:
            return self.alpha
        return 0.5 if self.method == "wise-ft" else 1.0
