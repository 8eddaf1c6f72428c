"""What `[optimizer]` may say: the settings of each optimizer."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The settings that every optimizer has; each optimizer adds its own."""

    # A key of `OPTIMIZERS`.
    name: str
    # The peak, reached after warm-up.
    learning_rate: float = 5e-4
    # Decoupled in AdamW; gains, biases and the temperature do not decay.
    weight_decay: float = 0.2
    # The largest norm of the whole gradient; None does not clip it.
    clip_norm: float | None = None
    # The learning rate of a block over that of the block after it, in each tower.
    layer_decay: float = 1.0

    @property
    def state_bytes(self) -> int:
        """Return the bytes of one weight's optimizer state."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AdamWSettings(OptimizerSettings):
    name: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    # The precision of the optimizer state: Adam's two moments.
    moments: Literal["float32", "bfloat16"] = "float32"

    @property
    def state_bytes(self) -> int:
        """Return the bytes of two moments."""
        return 4 if self.moments == "bfloat16" else 8


@dataclass(frozen=True, kw_only=True)
class LarsSettings(OptimizerSettings):
    name: Literal["lars"] = "lars"
    momentum: float = 0.9
    # The share of a matrix's own size that a step at a rate of 1 moves it by.
    trust: float = 1e-3

    @property
    def state_bytes(self) -> int:
        """Return the bytes of one momentum, in float32."""
        return 4


OPTIMIZERS: dict[str, type[OptimizerSettings]] = {"adamw": AdamWSettings, "lars": LarsSettings}
