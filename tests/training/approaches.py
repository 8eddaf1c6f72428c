"""The exact step of the approaches with models of their own: their models, their batches, and what they should give.

Run as a module, in several processes, by `test_approaches_exact.py`.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from diptych import config
from diptych.data.batch import Batch
from diptych.data.images.transforms import Preprocess
from diptych.data.images.two_views import TwoViews, random_view, view_chances
from diptych.distributed import share, world
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    LabelHead,
    ModifiedResNet,
    ProjectionHead,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.models.text_transformer import TextTransformer
from diptych.objectives.cross_entropy import label_likelihood
from diptych.objectives.nt_xent import nt_xent
from diptych.objectives.pairs import Pairs
from diptych.training.approaches.task import Task
from diptych.training.optim.optimizer import build_optimizer
from diptych.training.optim.optimizer_settings import LarsSettings
from diptych.training.parallel import share_model, whole
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe
from diptych.training.step import training_step
from diptych.training.towers import Chunking
from diptych.weights.checkpoint import load_checkpoint, save_checkpoint
from tests.training.gradient_matrix import CHUNKINGS, ENCODED, ROWS, WAYS, batch_of
from tests.training.word_approaches import BANDS, FRAMES, WORD_APPROACHES, shre_loss

# Without the exponentials, whose last bit depends on the place in a vector; the rest of a view is equal in any chunk.
VIEWS = TwoViews(aspect=(1.0, 1.0), blur=0.0)
VIT = VisionTransformer(resolution=32, patch=16, width=16, layers=2, heads=2)
WIDER = VisionTransformer(resolution=32, patch=16, width=32, layers=1, heads=2)
RESNET = ModifiedResNet(resolution=32, layers=(1, 1, 1, 1), width=4, heads=2, stem_stride=2)


@dataclasses.dataclass(frozen=True)
class Approach:
    """loss: the mean over a whole batch, by autograd alone. chunkings: those under which the step is exact."""

    architecture: Architecture
    recipe: Callable[[Path], Recipe]
    loss: Callable[[ImageModel, Batch, Path], Tensor]
    labelled: bool = False
    chunkings: tuple[str, ...] = tuple(CHUNKINGS)
    scale: float = (
        20  # of the text side's first weights; a transformer turns chaotic, and rounding large, far above 3
    )


def plain(name: str, *settings: str) -> Callable[[Path], Recipe]:
    # A recipe that samples texts is not one for labels.
    base = "labels" if name.startswith("label") else "sample"
    return lambda _: load_recipe(base, (f"objective.name={name}", "augmentation={name='none'}", *settings))


def two_views(_: Path) -> Recipe:
    recipe = load_recipe("simclr", ("objective.temperature=0.2",))
    return dataclasses.replace(recipe, augmentation=VIEWS)


def normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(value)[:, None, None] for value in (Preprocess(32).mean, Preprocess(32).std))
    return ((pixels - mean) / std).double()


def simclr_loss(model: ImageModel, batch: Batch, _: Path) -> Tensor:
    pixels = [
        normalised(random_view(batch.canvas, batch.mirrored, view_chances(batch.seeds, view), VIEWS, 32))
        for view in (0, 1)
    ]
    projected = F.normalize(model.text(model.visual.features(torch.cat(pixels))), dim=-1)
    total, count = nt_xent(Pairs.whole(*projected.chunk(2)), 0.2)
    return total / count


def label_loss(model: ImageModel, batch: Batch, _: Path) -> Tensor:
    features = model.visual.features(normalised(batch.canvas.float() / 255))
    total, count = label_likelihood(model.text(features), batch.tokens[:, 0].long(), 0.1)
    return total / count


def label_distillation_loss(model: ImageModel, batch: Batch, folder: Path) -> Tensor:
    teacher, pixels = teacher_of(folder, "label-distillation"), normalised(batch.canvas.float() / 255)
    student: Tensor = model.text(model.visual.features(pixels))
    with torch.no_grad():
        target: Tensor = (teacher.text(teacher.visual.features(pixels)) / 0.5).softmax(dim=1)
    soft = -0.25 * (target * (student / 0.5).log_softmax(dim=1)).sum()
    known = batch.tokens[:, 0] >= 0
    hard = F.cross_entropy(student[known], batch.tokens[known, 0].long(), reduction="sum")
    return (0.7 * soft + 0.3 * hard) / ROWS


def convirt_loss(model: ImageModel, batch: Batch, _: Path) -> Tensor:
    image = F.normalize(model.encode_image(normalised(batch.canvas.float() / 255)), dim=1)
    text = F.normalize(model.encode_text(batch.tokens), dim=1)
    return simple(image, text, 1 / 0.2, 0.75)


def clip_distillation_loss(model: ImageModel, batch: Batch, folder: Path) -> Tensor:
    teacher, pixels = teacher_of(folder, "clip-distillation"), normalised(batch.canvas.float() / 255)
    image, text = (
        F.normalize(rows, dim=1) for rows in (model.encode_image(pixels), model.encode_text(batch.tokens))
    )
    with torch.no_grad():
        seen = F.normalize(teacher.encode_image(pixels), dim=1)
        read = F.normalize(teacher.encode_text(batch.tokens), dim=1)
        teachers = teacher.logit_scale.exp() * seen @ read.T
    scale = model.logit_scale.exp()
    logits = scale * image @ text.T
    feature = ((image - seen) ** 2).mean(dim=1).mean() + ((text - read) ** 2).mean(dim=1).mean()
    affinity = F.cross_entropy(logits, teachers.softmax(dim=1)) + F.cross_entropy(
        logits.T, teachers.T.softmax(dim=1)
    )
    mine = torch.arange(ROWS)
    interactive = F.cross_entropy(scale * image @ read.T, mine) + F.cross_entropy(scale * text @ seen.T, mine)
    own = F.cross_entropy(logits, mine) + F.cross_entropy(logits.T, mine)
    return 0.5 * own + 20 * feature + 0.7 / 2 * affinity + 0.4 / 2 * interactive


def shre_taught_loss(model: ImageModel, batch: Batch, folder: Path) -> Tensor:
    """The ranking, and of each modality that a row shows the divergence from the teacher's classes of the picture."""
    teacher, pixels = teacher_of(folder, "label-distillation"), normalised(batch.canvas.float() / 255)
    encoder = model.text
    with torch.no_grad():
        target = teacher.text(teacher.visual.features(pixels)).softmax(dim=1)
    words, sounds = encoder.words(batch.tokens), encoder.sounds(batch.sounds)  # type: ignore[operator]
    total = torch.zeros((), dtype=torch.float64)
    for encoded, rows in (
        (model.visual(pixels), range(ROWS)),
        (words, range(0, ROWS, 2)),
        (sounds, range(1, ROWS, 2)),
    ):
        found = encoder.layers(encoded)[-1].log_softmax(dim=1)  # type: ignore[operator]
        for row in rows:
            total = total + (target[row] * (target[row].log() - found[row])).sum()
    return shre_loss(model, batch, folder) + total / ROWS


def bag_of_words_loss(model: ImageModel, batch: Batch, _: Path) -> Tensor:
    image = F.normalize(model.visual(normalised(batch.canvas.float() / 255)), dim=1)
    text = F.normalize(model.text(batch.tokens), dim=1)
    return simple(image, text, model.logit_scale.exp())


def taught(name: str, *settings: str, by: str | None = None) -> Callable[[Path], Recipe]:
    """by: whose teacher it has, where it has none of its own."""
    return lambda folder: plain(name, f"objective.teacher={str(folder / (by or name))!r}", *settings)(folder)


APPROACHES = {
    "simclr": Approach(
        Architecture(embed_dim=8, image=VIT, text=ProjectionHead(head_layers=3, head_dim=6)),
        two_views,
        simclr_loss,
    ),
    # Chunks are batches of their own to the norms of a ResNet; processes are not.
    "simclr-resnet": Approach(
        Architecture(embed_dim=8, image=RESNET, text=ProjectionHead(head_layers=2, head_dim=6)),
        two_views,
        simclr_loss,
        chunkings=("plain",),
    ),
    "labels": Approach(
        Architecture(embed_dim=8, image=VIT, text=LabelHead(classes=("a", "b", "c"), kept_layers=1)),
        plain("labels", "objective.label_smoothing=0.1"),
        label_loss,
        labelled=True,
    ),
    "label-distillation": Approach(
        Architecture(embed_dim=8, image=VIT, text=LabelHead(classes=("a", "b", "c"))),
        taught("label-distillation", "objective.temperature=0.5", "objective.label_weight=0.3"),
        label_distillation_loss,
        labelled=True,
    ),
    "convirt": Approach(
        Architecture(embed_dim=8, image=VIT, text=ENCODED, heads="nonlinear"),
        plain("convirt", "objective.temperature=0.2"),
        convirt_loss,
    ),
    "clip-distillation": Approach(
        Architecture(embed_dim=8, image=VIT, text=ENCODED),
        taught(
            "clip-distillation",
            "objective.feature_weight=20",
            "objective.affinity_weight=0.7",
            "objective.interactive_weight=0.4",
        ),
        clip_distillation_loss,
    ),
    "bag-of-words": Approach(
        Architecture(embed_dim=8, image=VIT, text=BagOfWords(width=16, context_length=12)),
        plain("clip"),
        bag_of_words_loss,
        scale=3,
    ),
    "shre-taught": Approach(
        WORD_APPROACHES["shre"][0],
        taught("shre", *WORD_APPROACHES["shre"][1][1:], by="label-distillation"),
        shre_taught_loss,
        scale=3,
    ),
}

APPROACHES |= {
    name: Approach(architecture, plain(*settings), loss, scale=3)
    for name, (architecture, settings, loss) in WORD_APPROACHES.items()
}


def prepare(folder: Path) -> Path:
    """The folder, with the teachers of the approaches that have one."""
    for name in ("label-distillation", "clip-distillation"):
        torch.manual_seed(11)
        teacher = build_model(dataclasses.replace(APPROACHES[name].architecture, image=WIDER)).eval()
        with torch.no_grad():
            for parameter in teacher.text.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        save_checkpoint(folder / name, teacher, config.plain(Preprocess(32)))
    return folder


def teacher_of(folder: Path, name: str) -> ImageModel:
    return load_checkpoint(folder / name)[0].double()


def simple(image: Tensor, text: Tensor, scale: float | Tensor, weight: float = 0.5) -> Tensor:
    """Cross-entropies of rows and columns."""
    logits, mine = scale * image @ text.T, torch.arange(len(image))
    return weight * F.cross_entropy(logits, mine) + (1 - weight) * F.cross_entropy(logits.T, mine)


def model_of(approach: Approach) -> ImageModel:
    """In float64 and training mode, the same in every process, its heads large enough to show."""
    torch.manual_seed(3)
    model = build_model(approach.architecture).double()
    with torch.no_grad():
        for parameter in model.text.parameters():
            # Of texts that are encoded the first values do; others begin too small to show.
            if not isinstance(model.text, TextTransformer):
                parameter.mul_(approach.scale).add_(0.1 * torch.randn_like(parameter))
    return model.train()


def rows_of(approach: Approach, rows: range) -> Batch:
    """Those rows of the one global batch; of labels, one is not known."""
    sounds = torch.rand(ROWS, FRAMES, BANDS, generator=torch.Generator().manual_seed(6))
    batch = dataclasses.replace(batch_of(rows), sounds=sounds[rows.start : rows.stop].double())
    if not approach.labelled:
        return batch
    labels = torch.arange(ROWS) % 3
    labels[4] = -1
    return dataclasses.replace(batch, tokens=labels[rows.start : rows.stop, None])


def gradients(name: str, way: str, chunking: Chunking, folder: Path) -> dict[str, Tensor]:
    """Every trained parameter's gradient, and the buffers, after a step of learning rate 0."""
    approach, here = APPROACHES[name], world()
    model, recipe = model_of(approach), approach.recipe(folder)
    task = recipe.make_task(model, Preprocess(32))
    assert isinstance(task, Task)
    parallel = share_model(model, task.towers, way, "cpu")
    task.use(parallel.towers)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0, foreach=False)
    batch = rows_of(approach, share(ROWS, here.rank, here.size))
    training_step(
        task, optimizer, batch, 0.0, None, group_positives=False, chunking=chunking, parallel=parallel
    )
    found = dict(model.named_buffers())
    for key, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is not None:
            found[key] = (gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient).clone()
    task.use(task.towers)
    parallel.close()
    return found


def reference(name: str, folder: Path) -> dict[str, Tensor]:
    """One process, one forward pass, one call of autograd; no part of the engine."""
    approach = APPROACHES[name]
    model = model_of(approach)
    approach.loss(model, rows_of(approach, range(ROWS)), folder).backward()
    found = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    return {**found, **dict(model.named_buffers())}


def trained(way: str, folder: Path) -> dict[str, Tensor]:
    """The weights after two steps of SimCLR under LARS."""
    approach, here = APPROACHES["simclr"], world()
    model, recipe = model_of(approach), approach.recipe(folder)
    task = recipe.make_task(model, Preprocess(32))
    parallel = share_model(model, task.towers, way, "cpu")
    task.use(parallel.towers)
    assert isinstance(recipe.optimizer, LarsSettings)
    optimizer = build_optimizer(model, dataclasses.replace(recipe.optimizer, trust=0.1))
    batch = rows_of(approach, share(ROWS, here.rank, here.size))
    for _ in range(2):
        training_step(task, optimizer, batch, 0.5, None, group_positives=False, parallel=parallel)
    found = {name: value.clone() for name, value in whole(model.state_dict()).items()}
    task.use(task.towers)
    parallel.close()
    return found


def main(folder: Path) -> None:
    """One of several processes; the first writes the gradients of every approach, way and chunking."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    everything: dict[str, Tensor] = {}
    for name, approach in APPROACHES.items():
        for way in WAYS:
            for chunking in approach.chunkings:
                found = gradients(name, way, CHUNKINGS[chunking], folder)
                everything |= {f"{name}/{way}-{chunking}/{key}": value for key, value in found.items()}
    for way in WAYS:
        everything |= {f"lars/{way}/{key}": value for key, value in trained(way, folder).items()}
    if world().leads:
        save_file(
            {key: value.contiguous() for key, value in everything.items()}, folder / "found.safetensors"
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
