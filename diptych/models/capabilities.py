"""What a model can be asked for, as protocols, and the one error for a model that cannot do it.

Every model has image features. What else it can do, its properties say: `embeds_texts`, and `text_predictor`,
`caption_writer`, `sound_encoder` and `class_head`, which are None where a model has no such thing.
"""

from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from diptych.errors import SettingsError
from diptych.models.architectures import Architecture
from diptych.models.heads.compact_vocabulary import CompactVocabulary

if TYPE_CHECKING:
    from diptych.models.image_model import ImageModel

Capability = Literal["embeds", "embeds texts", "embeds words", "writes captions", "hears", "has classes"]

# What a model without the capability does not do, and where there is another way.
_LACKING: dict[Capability, tuple[str, str]] = {
    "embeds": (
        "embeds neither images nor texts",
        "to compare images with texts, use a model with a text tower",
    ),
    "embeds texts": ("embeds no texts", "to compare images with texts, use a model with a text tower"),
    "embeds words": ("gives no features of a text's words", "use a model with a text tower"),
    "writes captions": (
        "writes no captions",
        'train one with the objective captioning and text = { decoder_layers = 1, reads = "both" }',
    ),
    "hears": (
        "hears nothing",
        "train one with the objective shre and text = { hidden = [128], classes = 48, width = 64, sound_bands = 32 }",
    ),
    "has classes": (
        "has no classes of its own",
        "give the classes' names with `diptych evaluate zero-shot`, labelled images with "
        "`diptych evaluate linear-probe`, or fine-tune it with `diptych finetune`",
    ),
}


def lacks(model: "ImageModel", capability: Capability, name: str = "the model") -> SettingsError:
    """Return the error that says what a model cannot do, what to do instead, and which commands use what it can do."""
    lacking, instead = _LACKING[capability]
    return SettingsError(f"{name} is {model.description}, which {lacking}; {instead}; {model.commands}")


class Runs(Protocol):
    """What it takes to run a model on its own device, without dropout."""

    architecture: Architecture
    training: bool

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def train(self, mode: bool = True) -> Any:
        """Switch to training mode, or to evaluation mode."""


class EmbedsImages(Runs, Protocol):
    """Maps images into a space of `architecture.embed_dim` dimensions."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, 3, n, n), preprocessed; returns (batch, embed_dim), not of unit length."""


class EmbedsTexts(Runs, Protocol):
    """Maps texts into a space of `architecture.embed_dim` dimensions."""

    @property
    def context_length(self) -> int:
        """Tokens of the longest text, start and end token included."""

    def encode_text(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, up to context_length) ids; returns (batch, embed_dim), not of unit length."""


class EmbedsPairs(EmbedsImages, EmbedsTexts, Protocol):
    """Maps images and texts into one space, in which their cosines are compared."""

    @property
    def logit_scale(self) -> Tensor:
        """log of what cosines are multiplied by: ()."""


class PredictsTexts(Runs, Protocol):
    """Gives probabilities of texts from images."""

    @property
    def context_length(self) -> int:
        """Tokens of the longest text, start and end token included."""

    def see(self, pixels: Tensor) -> Tensor:
        """Return what the text side sees of images, (images, width), from pixels (images, 3, n, n)."""

    def likelihoods(self, seen: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p of each text for each image: the mean over the text's tokens, and the sum; (images, texts)."""

    def pair_likelihoods(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """Return the mean log p over the tokens of each image's own text: (images,)."""


class WritesCaptions(Protocol):
    """Gives the next word of an image's caption, left to right."""

    @property
    def words(self) -> CompactVocabulary:
        """The words that it writes."""

    @property
    def context_length(self) -> int:
        """Tokens of the longest caption, start and end token included."""

    def cells(self, pixels: Tensor) -> Tensor:
        """Return what it looks at, (images, cells, width), from pixels (images, 3, n, n)."""

    def next_word(self, cells: Tensor, prefixes: Tensor) -> Tensor:
        """Return log p of every word after each prefix, (prefixes, vocabulary). cells: (cells, width), of one image."""


class ClassHead(Protocol):
    """The last layer of a model that has learned classes from labels: one logit a class."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the logits."""

    @property
    def several(self) -> bool:
        """Whether an image may be of any number of classes."""

    @property
    def weight(self) -> Tensor:
        """(classes, width)."""

    @property
    def bias(self) -> Tensor:
        """(classes,)."""
