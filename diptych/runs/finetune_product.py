"""What a run delivers at any of its steps: updates merged, the classifier renewed, weights between start and end."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diptych.models.architectures import Classifier
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.models.layers.batch_statistics import batch_norms, estimate_statistics
from diptych.runs.classifier_heads import zero_shot_head
from diptych.training.methods import FinetuneSettings
from diptych.weights.interpolation import interpolate_weights
from diptych.weights.merging import merge_low_rank


def finished(model: ImageModel, settings: FinetuneSettings, *, by_words: bool) -> ImageModel:
    """A copy of a model in training with its updates merged, in evaluation mode.

    by_words: whether texts were learned from: the classifier, if there is one, is then made of words by the text
    tower as it is now.
    """
    done = merge_low_rank(model).requires_grad_(False).eval()
    if by_words and done.classifier is not None:
        weight, bias = zero_shot_head(done, done.classifier.classes, settings.words, settings.templates)
        done.classifier.weight.copy_(weight)
        done.classifier.bias.copy_(bias)
    return done


def by_names(model: ImageModel, settings: FinetuneSettings) -> ImageModel:
    """A copy of a finished model whose classifier is made of the names of its classes: zero-shot classification."""
    assert model.classifier is not None
    old = model.classifier
    size = Classifier(classes=old.classes, reads="embedding", several=old.several)
    named = build_model(replace(model.architecture, classifier=size)).requires_grad_(False).eval()
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier.")}
    weight, bias = zero_shot_head(model, old.classes, settings.words, settings.templates)
    named.load_state_dict({**state, "classifier.weight": weight, "classifier.bias": bias})
    return named.to(model.device)


def between(start: ImageModel, tuned: ImageModel, alpha: float, batches: Sequence[Tensor]) -> ImageModel:
    """The model at `alpha` between two finished ones; at 0 and 1 it is one of them, to the bit.

    batches: preprocessed training images, (n, 3, side, side) each, by which batch norms that were trained learn the
    statistics of weights that no image has gone through. Averages that both models share were fixed in training, and
    are fixed between them too: other ones would be a jump at both ends.
    """
    blended = copy.deepcopy(tuned)
    blended.load_state_dict(interpolate_weights(start.state_dict(), tuned.state_dict(), alpha))
    if 0 < alpha < 1 and not _same_averages(start, tuned):
        device = blended.device
        with torch.no_grad():
            estimate_statistics(
                blended.visual, blended.visual.features, [batch.to(device) for batch in batches]
            )
    return blended.eval()


def _same_averages(first: ImageModel, second: ImageModel) -> bool:
    names = ("running_mean", "running_var")
    pairs = zip(batch_norms(first.visual), batch_norms(second.visual), strict=True)
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) for one, other in pairs for name in names
    )
