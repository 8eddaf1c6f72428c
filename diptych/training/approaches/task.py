"""What the engine asks of an approach."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diptych.data.batch import Batch
from diptych.models.image_model import ImageModel
from diptych.training.encoding.encoders import Encoder
from diptych.training.parallel import Forward


class Task(ABC):
    """Embeddings of the rows of a batch, and their loss.

    model: what is trained and saved. encoders: what goes through chunks and processes, by the side of a pair: "image",
    "text", or both.
    """

    def __init__(self, model: ImageModel, encoders: Mapping[str, Encoder]) -> None:
        self.model = model
        self._encoders = encoders

    @property
    def towers(self) -> Mapping[str, nn.Module]:
        """Return the part of the model that each side of a pair goes through: "image", "text", or both."""
        return {side: encoder.tower for side, encoder in self._encoders.items()}

    def use(self, towers: Mapping[str, Forward]) -> None:
        """Call `towers` in place of the model's own, where several processes share them."""
        for side, encoder in self._encoders.items():
            encoder.call = towers[side]

    @abstractmethod
    def image(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return embeddings of those rows' images, (len(rows), dim), float32 at least."""

    @abstractmethod
    def text(self, batch: Batch, rows: Tensor) -> Tensor:
        """Return embeddings of those rows' texts, likewise; or ids, where texts are predicted and not encoded."""

    def text_order(self, batch: Batch) -> Tensor:
        """Return the rows, (batch,), in the order in which chunks of texts cost least: the longest last.

        The tower runs up to the longest text of a chunk.
        """
        return batch.tokens.argmax(dim=1).argsort(stable=True)

    @abstractmethod
    def loss(self, left: Tensor, right: Tensor, groups: Tensor | None) -> tuple[Tensor, int]:
        """Return this process's part of the sum over the global batch, and its number of rows.

        left, right: (local, dim), what `image` and `text` made of this process's rows. groups: (local,), or None.
        """

    def correct(self, left: Tensor, right: Tensor, groups: Tensor) -> tuple[Tensor, int]:
        """Count the right answers of this process, (), integer, and the rows looked at: 0 where nothing is ranked."""
        return torch.zeros((), dtype=torch.long, device=left.device), 0

    def after_step(self) -> dict[str, float]:
        """Do what must hold after an update; return what is worth a place in the log."""
        return {}
