"""Models that predict texts from images, and embed no texts: VirTex, and the baselines of CLIP's Figure 2.

How such models are asked for a class is not in the paper. Here the class is the one whose text is the likeliest: by
the mean over its tokens, or words, which does not favour short names; and by the whole text.
"""

from abc import abstractmethod
from typing import Self

from torch import Tensor

from diptych.models.architectures import Architecture
from diptych.models.heads.captioner import Captioner, CellTower
from diptych.models.heads.compact_vocabulary import CompactVocabulary
from diptych.models.heads.word_predictor import WordPredictor, distinct_words
from diptych.models.image_model import ImageModel, ImageTower


class PredictiveModel(ImageModel):
    """An image tower, and what predicts texts from its output."""

    @property
    def text_predictor(self) -> Self:
        """The model itself."""
        return self

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, 3, n, n), preprocessed; returns (batch, embed_dim), not of unit length."""
        encoded: Tensor = self.visual(self.checked(pixels))
        return encoded

    @abstractmethod
    def see(self, pixels: Tensor) -> Tensor:
        """See `PredictsTexts`."""

    @abstractmethod
    def likelihoods(self, seen: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See `PredictsTexts`."""

    @abstractmethod
    def pair_likelihoods(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """See `PredictsTexts`."""


class CaptioningModel(PredictiveModel):
    """Writes the caption of an image word by word, from every cell of it (VirTex: Desai and Johnson 2021)."""

    description = "a captioner"
    commands = "`diptych caption` and `diptych evaluate zero-shot` use this model's probabilities of texts"
    halves_text = False  # its words depend on one another

    text: Captioner

    def __init__(self, architecture: Architecture, visual: ImageTower, text: Captioner) -> None:
        super().__init__(architecture, visual, text)
        if "forward" not in text.directions:
            self.description = "a captioner that fills in hidden words"
            self.commands = "`diptych evaluate linear-probe` uses this model's image features"

    @property
    def caption_writer(self) -> Self | None:
        """The model itself; None where it fills in hidden words alone."""
        return self if "forward" in self.text.directions else None

    @property
    def words(self) -> CompactVocabulary:
        """The words that it writes."""
        return self.text.words

    def cells(self, pixels: Tensor) -> Tensor:
        """Return what the decoders look at, (images, cells, embed_dim), from pixels (images, 3, n, n)."""
        found: Tensor = CellTower(self.visual)(self.checked(pixels))
        return found

    def next_word(self, cells: Tensor, prefixes: Tensor) -> Tensor:
        """Return log p of every word after each prefix, left to right: (prefixes, vocabulary).

        cells: (cells, embed_dim), of one image. prefixes: (prefixes, length) rows of the vocabulary, without padding.
        """
        return self.text.next_word(cells, prefixes)

    def see(self, pixels: Tensor) -> Tensor:
        """Return the cells of each image side by side: (images, cells * embed_dim)."""
        return self.cells(pixels).flatten(1)

    def likelihoods(self, seen: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See `PredictsTexts`. Raises SettingsError for a captioner that does not read from left to right."""
        whole = self.text.scores(self._cells_of(seen), tokens)
        return whole / tokens.argmax(dim=1), whole

    def pair_likelihoods(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """See `PredictsTexts`. Raises SettingsError for a captioner that does not read from left to right."""
        return self.text.log_likelihood(self._cells_of(seen), tokens) / tokens.argmax(dim=1)

    def _cells_of(self, seen: Tensor) -> Tensor:
        return seen.view(len(seen), -1, self.architecture.embed_dim)


class WordPredictionModel(PredictiveModel):
    """Predicts which words the caption of an image has: the bag-of-words baseline."""

    description = "a predictor of words"
    commands = "`diptych evaluate zero-shot` uses this model's probabilities of texts"

    text: WordPredictor

    def see(self, pixels: Tensor) -> Tensor:
        """Return what the image tower gives: (images, embed_dim)."""
        return self.encode_image(pixels)

    def likelihoods(self, seen: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """See `PredictsTexts`; the tokens of a text are its distinct words."""
        mean = self.text.scores(seen, tokens)
        words = (distinct_words(self.text.words.rows_of(tokens)) >= 0).sum(dim=1)
        return mean, mean * words.clamp(min=1)

    def pair_likelihoods(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """See `PredictsTexts`; the tokens of a text are its distinct words."""
        return self.text.scores(seen, tokens).diagonal()
