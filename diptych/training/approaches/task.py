"""What the engine asks of an approach."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from diptych.data.loader import Batch
from diptych.models.image_model import ImageModel
from diptych.training.parallel import Forward


class Task(Protocol):
    """What the engine asks of an approach: embeddings of the rows of a batch, and their loss."""

    @property
    def model(self) -> ImageModel:
        """What is trained and saved."""

    @property
    def towers(self) -> Mapping[str, nn.Module]:
        """The part of the model that each side of a pair goes through: "image" and, where it has one, "text"."""

    def use(self, towers: Mapping[str, Forward]) -> None:
        """What to call in place of the towers, where several processes share them."""

    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Embeddings of those rows' images, (len(rows), dim), unit length, float32 at least."""

    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Embeddings of those rows' texts, likewise; or their ids, where texts are predicted and not encoded."""

    def text_order(self, batch: Batch) -> Tensor:
        """The rows, (batch,), in the order in which chunks of texts cost least."""

    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """This process's part of the sum over the global batch, and its number of rows.

        left, right: (local, dim), embeddings of this process's images and texts. groups: (local,), or None.
        """

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """How many of this process's answers are right, (), integer, and how many were looked at; 0 if none can be."""

    def after_step(self) -> dict[str, float]:
        """What must hold after an update, and what is worth a place in the log."""
