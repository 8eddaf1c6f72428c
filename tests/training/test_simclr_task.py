"""SimCLR in the engine: exact however the batch is cut and shared, and a run from the shipped recipe."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import diptych
from diptych.data.transforms import Preprocess
from diptych.data.two_views import TwoViews, random_view, view_chances
from diptych.distributed import share, world
from diptych.errors import SettingsError
from diptych.models.architectures import Architecture, ProjectionHead, VisionTransformer
from diptych.models.clip import CLIP, build_model
from diptych.objectives.nt_xent import nt_xent
from diptych.objectives.pairs import Pairs
from diptych.training.engine import train
from diptych.training.parallel import share_model
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe
from diptych.training.step import training_step
from diptych.training.tasks.simclr import SimclrTask
from diptych.training.towers import Chunking
from tests.processes import run_processes
from tests.training.gradient_matrix import CHUNKINGS, ROWS, batch_of

# Without the exponentials, whose last bit depends on the place in a vector; the rest of a view is equal in any chunk.
VIEWS = TwoViews(aspect=(1.0, 1.0), blur=0.0)
UNTRAINED = {"visual.proj", "logit_scale"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_of() -> CLIP:
    torch.manual_seed(3)
    model = build_model(
        Architecture(
            embed_dim=8,
            image=VisionTransformer(resolution=32, patch=16, width=16, layers=2, heads=2),
            text=ProjectionHead(head_layers=3, head_dim=6),
        )
    ).double()
    with torch.no_grad():
        for parameter in model.text.parameters():
            parameter.mul_(20)
    return model.train()


def recipe_of(*more: str) -> Recipe:
    recipe = load_recipe("simclr", ("objective.temperature=0.2", *more))
    return dataclasses.replace(recipe, augmentation=VIEWS)


def gradients(way: str, chunking: Chunking) -> dict[str, Tensor]:
    """Every trained parameter's gradient, and the head's running averages, after a step of learning rate 0."""
    here = world()
    model = model_of()
    task = SimclrTask(model, Preprocess(32), recipe_of())
    parallel = share_model(model, task.towers, way, "cpu")
    task.use(parallel.towers)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0, foreach=False)
    batch = batch_of(share(ROWS, here.rank, here.size))
    training_step(
        task, optimizer, batch, 0.0, None, group_positives=False, chunking=chunking, parallel=parallel
    )
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if name in UNTRAINED:
            assert gradient is None or not gradient.any()
            continue
        assert gradient is not None, name
        found[name] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient.clone()
    task.use(task.towers)
    parallel.close()
    return {**found, **dict(model.named_buffers())}


def reference() -> dict[str, Tensor]:
    """One process, one forward pass, one call of autograd; no part of the engine."""
    model, batch = model_of(), batch_of(range(ROWS))
    preprocess = Preprocess(32)
    mean, std = (torch.tensor(value)[:, None, None] for value in (preprocess.mean, preprocess.std))
    pixels = [
        (random_view(batch.canvas, batch.mirrored, view_chances(batch.seeds, view), VIEWS, 32) - mean) / std
        for view in (0, 1)
    ]
    features = model.visual.features(torch.cat(pixels).double())
    projected = F.normalize(model.text(features), dim=-1)
    total, count = nt_xent(Pairs.whole(*projected.chunk(2)), 0.2)
    (total / count).backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {**found, **dict(model.named_buffers())}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = (found[name] - value).abs().max().item() / max(1.0, value.abs().max().item())
        assert difference <= 1e-12, f"{name} differs by {difference:.1e}"


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_chunks_give_the_gradient_of_the_whole_batch_batch_norms_of_the_head_included(chunking: str) -> None:
    assert_same(gradients("ddp", CHUNKINGS[chunking]), reference())


def test_two_processes_with_uneven_shares_give_it_too_in_every_way_and_chunking(tmp_path: Path) -> None:
    out = tmp_path / "found.safetensors"
    ended = run_processes(2, ["-m", "tests.training.test_simclr_task", str(out)])
    assert all(code == 0 for code, _, _ in ended), "\n".join(errors for _, _, errors in ended)[-6000:]
    everything, expected = load_file(out), reference()
    for way in ("ddp", "fsdp"):
        for name in CHUNKINGS:
            key = f"{way}-{name}/"
            found = {k.removeprefix(key): v for k, v in everything.items() if k.startswith(key)}
            assert_same(found, expected)


def tiny(*more: str) -> Recipe:
    settings = ("training.batch_size=8", "training.samples=48", "schedule.warmup_steps=2", *more)
    return load_recipe("simclr", settings)


def test_the_shipped_recipe_trains_resumes_to_the_bit_and_its_features_load(tmp_path: Path) -> None:
    whole = train(tiny(), tmp_path / "whole")
    assert whole.loss > 0

    def stop(_: torch.nn.Module, __: object) -> dict[str, float]:
        raise KeyboardInterrupt

    once = ("checkpoint.every_steps=2", "evaluation.every_steps=3")
    with pytest.raises(KeyboardInterrupt):
        train(tiny(*once), tmp_path / "cut", evaluate=stop)
    train(tiny(*once), tmp_path / "cut", resume=True)
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)

    model, preprocess = diptych.load(str(tmp_path / "whole" / "model"))
    pixels = preprocess(Image.new("RGB", (40, 40), "red"))[None]
    assert model.image_features(pixels).shape == (1, 512)
    with pytest.raises(SettingsError, match="images alone"):
        model.encode_text(torch.zeros(1, 8, dtype=torch.long))


def test_pictures_without_captions_are_enough(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    where = f"data.train={str(tmp_path / 'pictures')!r}"
    assert train(tiny(where, "training.samples=16"), tmp_path / "run").step == 2


def test_other_augmentations_and_other_text_sides_are_refused_with_the_remedy() -> None:
    with pytest.raises(SettingsError, match="two-views"):
        SimclrTask(model_of(), Preprocess(32), load_recipe("simclr", ("augmentation={name='none'}",)))
    architecture = load_recipe("sample").model.resolve()
    with pytest.raises(SettingsError, match="head_layers"):
        SimclrTask(build_model(architecture), Preprocess(64), recipe_of())


def main(out: Path) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    everything = {}
    for way in ("ddp", "fsdp"):
        for name, chunking in CHUNKINGS.items():
            found = gradients(way, chunking)
            everything |= {f"{way}-{name}/{key}": value.contiguous() for key, value in found.items()}
    if world().leads:
        save_file(everything, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
