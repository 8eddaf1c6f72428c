"""One process of the gradient matrix: the gradients of an exact step, in float64, for every way to take it.

Run as a module by `test_gradient_matrix.py`, once for each number of processes, so that torch is imported once.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from diptych.data.batch import Batch
from diptych.data.images.transforms import Preprocess
from diptych.distributed import share, world
from diptych.models.architectures import (
    Architecture,
    Captioner,
    TextSide,
    TextTransformer,
    VisionTransformer,
    WordPredictor,
)
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.training.approaches import contrastive as clip_task
from diptych.training.approaches.task import Task
from diptych.training.parallel import share_model
from diptych.training.recipes import load_recipe
from diptych.training.step import training_step
from diptych.training.towers import Chunking

ROWS = 13  # shares of 7 and 6, or of 5, 4 and 4: never even
WAYS = ("ddp", "fsdp")
CHUNKINGS = {
    "plain": Chunking(),
    "cached": Chunking(images=3, texts=2),
    "hybrid": Chunking(images=2, texts=3, keep=1),
}
LOSSES = ("gathered", "tiled")
COUPLED = ("clip", "siglip")  # objectives whose loss has two forms
OBJECTIVES = (*COUPLED, "captioning", "word-prediction")  # those without a text side have tests of their own
TEXTS: dict[str, TextSide] = {
    "captioning": Captioner(decoder_layers=1, reads="both", heads=2, context_length=12),
    "word-prediction": WordPredictor(word_loss="softmax", context_length=12),
}
ENCODED = TextTransformer(
    width=16, layers=2, heads=2, context_length=12, vocab_size=49_408, embedding_width=4
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    way: str
    objective: str
    chunking: str
    loss: str

    @property
    def name(self) -> str:
        return f"{self.way}-{self.objective}-{self.chunking}-{self.loss}"


def cases() -> Iterator[Case]:
    """Every cell; the sorted order of texts comes with the chunks."""
    for way, objective, chunking, loss in itertools.product(WAYS, OBJECTIVES, CHUNKINGS, LOSSES):
        if objective in COUPLED or loss == "gathered":
            yield Case(way, objective, chunking, loss)


def model_of(objective: str) -> ImageModel:
    """A small CLIP in float64, the same in every process."""
    architecture = Architecture(
        embed_dim=8,
        image=VisionTransformer(resolution=32, patch=16, width=16, layers=2, heads=2),
        text=TEXTS.get(objective, ENCODED),
        logit_bias=-3.0 if objective == "siglip" else None,
    )
    torch.manual_seed(3)
    model = build_model(architecture).double()
    with torch.no_grad():
        for parameter in model.text.parameters():
            parameter.mul_(
                3
            )  # at their first values the texts are nearly equal, and their gradients rounding
    return model


def batch_of(rows: range) -> Batch:
    """Those rows of the one global batch: real lengths from 3 to 12 tokens, and repeated captions."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.zeros(ROWS, 12, dtype=torch.int32)
    for row in range(ROWS):
        length = 1 + (row * 5) % 10
        tokens[row, 0] = 49_406
        tokens[row, 1 : 1 + length] = torch.randint(0, 49_000, (length,), generator=generator)
        tokens[row, 1 + length] = 49_407
    mine = slice(rows.start, rows.stop)
    return Batch(
        canvas=torch.randint(0, 256, (ROWS, 3, 32, 32), dtype=torch.uint8, generator=generator)[mine],
        tokens=tokens[mine],
        groups=torch.tensor([10, 11, 10, 12, 13, 14, 15, 16, 10, 17, 18, 18, 19])[mine],
        mirrored=torch.zeros(ROWS, dtype=torch.bool)[mine],
        chance=torch.rand(ROWS, 32, generator=generator)[mine],
        seeds=torch.arange(ROWS)[mine],
        rows=torch.arange(ROWS)[mine],
        position=0,
        first=rows.start,
        global_count=ROWS,
    )


def task_of(objective: str, model: ImageModel) -> Task:
    """The task as the engine makes it, in float64."""
    recipe = load_recipe("sample", (f"objective.name={objective}", "augmentation={name='none'}"))
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, precision="float32"))
    task = recipe.make_task(model, Preprocess(32))
    assert isinstance(task, Task)
    return task


def gradients(case: Case) -> dict[str, torch.Tensor]:
    """Every parameter's gradient after a step of learning rate 0, whole in every process."""
    here = world()
    model = model_of(case.objective)
    task = task_of(case.objective, model)
    parallel = share_model(model, task.towers, case.way, "cpu")
    task.use(parallel.towers)
    before, clip_task._TILED_FROM = clip_task._TILED_FROM, 1 if case.loss == "tiled" else 1 << 30
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, foreach=False)
    training_step(
        task,
        optimizer,
        batch_of(share(ROWS, here.rank, here.size)),
        0.0,
        None,
        group_positives=True,
        chunking=CHUNKINGS[case.chunking],
        parallel=parallel,
    )
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if name == "logit_scale" and case.objective in TEXTS:
            continue  # nothing is compared by an angle
        assert gradient is not None, name
        found[name] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient.clone()
    clip_task._TILED_FROM = before
    task.use(task.towers)
    parallel.close()
    return found


def main(out: Path) -> None:
    """Write the gradients of every case; the first process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    everything: dict[str, torch.Tensor] = {}
    for case in cases():
        everything |= {f"{case.name}/{name}": value for name, value in gradients(case).items()}
    if world().leads:
        save_file({name: value.contiguous() for name, value in everything.items()}, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
