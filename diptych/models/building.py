"""A model from its sizes: the table of what each kind of tower is built by, and which model has it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from diptych.models import architectures as sizes
from diptych.models.architectures import Architecture
from diptych.models.bag_of_words import BagOfWords
from diptych.models.clip import CLIP
from diptych.models.heads.captioner import Captioner
from diptych.models.heads.label_head import LabelHead
from diptych.models.heads.linear_classifier import ImageClassifier
from diptych.models.heads.word_predictor import WordPredictor
from diptych.models.image_model import ImageModel, ImageTower
from diptych.models.image_only import LabelModel, TwoViewModel
from diptych.models.layers.low_rank import add_low_rank
from diptych.models.layers.nonlinear_head import NonlinearHead
from diptych.models.layers.projection_head import ProjectionHead
from diptych.models.modified_resnet import ModifiedResNet
from diptych.models.predictive import CaptioningModel, WordPredictionModel
from diptych.models.shared import SharedModel
from diptych.models.shared_encoder import SharedEncoder
from diptych.models.text_transformer import TextTransformer
from diptych.models.vision_transformer import VisionTransformer


class Kind(NamedTuple):
    """Which model a text side makes, and how that side is built under an image tower."""

    model: Callable[[Architecture, ImageTower, Any], ImageModel]
    text: Callable[[Any, Architecture, ImageTower], nn.Module]  # sizes of the text side first


IMAGE_TOWERS: Mapping[type, Callable[[Any, Architecture], ImageTower]] = {
    sizes.VisionTransformer: lambda size, whole: VisionTransformer(size, whole.embed_dim, whole.activation),
    sizes.ModifiedResNet: lambda size, whole: ModifiedResNet(size, whole.embed_dim),
}

BUILD: Mapping[type, Kind] = {
    sizes.TextTransformer: Kind(
        CLIP, lambda size, whole, _: TextTransformer(size, whole.embed_dim, whole.activation)
    ),
    sizes.BagOfWords: Kind(CLIP, lambda size, whole, _: BagOfWords(size, whole.embed_dim)),
    sizes.Captioner: Kind(CaptioningModel, lambda size, whole, _: Captioner(size, whole.embed_dim)),
    sizes.WordPredictor: Kind(
        WordPredictionModel, lambda size, whole, _: WordPredictor(size, whole.embed_dim)
    ),
    sizes.SharedEncoder: Kind(SharedModel, lambda size, whole, _: SharedEncoder(size, whole.embed_dim)),
    sizes.ProjectionHead: Kind(TwoViewModel, lambda size, _, visual: ProjectionHead(size, visual.width)),
    sizes.LabelHead: Kind(LabelModel, lambda size, _, visual: LabelHead(size, visual.width)),
}


def build_model(architecture: Architecture) -> ImageModel:
    """Build a model with the paper's initialisation, in training mode and float32."""
    visual = IMAGE_TOWERS[type(architecture.image)](architecture.image, architecture)
    kind = BUILD[type(architecture.text)]
    model = kind.model(architecture, visual, kind.text(architecture.text, architecture, visual))
    if architecture.heads == "nonlinear":
        model.image_head = NonlinearHead(architecture.embed_dim)
        model.text_head = NonlinearHead(architecture.embed_dim)
    if architecture.classifier is not None:
        embeds = architecture.classifier.reads == "embedding"
        width = architecture.embed_dim if embeds else visual.width
        model.classifier = ImageClassifier(architecture.classifier, width)
    if architecture.low_rank is not None:
        add_low_rank(model, architecture.low_rank)
    return model
