"""Directions of features, and of what has none."""

import torch
import torch.nn.functional as F

from diptych.data.images.transforms import Preprocess
from diptych.models.architectures import Architecture, BagOfWords, VisionTransformer
from diptych.models.building import build_model
from diptych.tokenizer import tokenize
from diptych.training.encoding.features import unit
from diptych.training.recipes import load_recipe
from diptych.training.step import training_step
from tests.training.gradient_matrix import ROWS, batch_of


def test_a_direction_is_that_of_the_library_and_nothing_has_none_and_no_gradient() -> None:
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(unit(features), F.normalize(features, dim=-1))
    features[2] = 0
    features.requires_grad_()
    (unit(features) * torch.arange(4.0)).sum().backward()
    assert not unit(features)[2].any()
    assert features.grad is not None
    assert not features.grad[2].any()
    assert features.grad.abs().max() < 1e3
    assert unit(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_text_without_words_does_not_break_the_first_step_of_a_bag_of_words() -> None:
    torch.manual_seed(0)
    image = VisionTransformer(resolution=32, patch=16, width=16, layers=1, heads=2)
    model = build_model(Architecture(embed_dim=8, image=image, text=BagOfWords(width=16, context_length=12)))
    task = load_recipe("sample", ("augmentation={name='none'}",)).make_task(model, Preprocess(32))
    batch = batch_of(range(ROWS))
    batch.tokens[3] = tokenize([""], context_length=12)[0]
    assert not task.text(batch, torch.tensor([3])).any()
    result = training_step(
        task, torch.optim.SGD(model.parameters(), 0.1), batch, 0.1, None, group_positives=False
    )
    assert result.applied
    assert result.gradient_norm < 100
    # Once the norm has a shift, which other texts teach it, the empty text has a direction as well.
    with torch.no_grad():
        model.text.ln_final.bias.add_(0.1)  # type: ignore[union-attr, operator]
    assert task.text(batch, torch.tensor([3])).norm().item() == torch.tensor(1.0).item()
