"""The gradient that each flag of open_clip's training gives, beside that of the whole batch in a single process.

    python benchmarks/open_clip_gradients.py [--processes 2 4] [--accumulate 2 4] [--rows 24] [--after 0 10]

A tiny model of open_clip's own in float64; its own loss, `open_clip.ClipLoss`, unmodified; DistributedDataParallel
over gloo, as its training script uses it. --accum-freq is a loop in that script and no function to call: its
arithmetic stands again in benchmarks/trainers.py. The reference is autograd through one forward pass over all rows
and the definition of the loss. Norm and cosine are those of both towers' gradient as one vector, the temperature's is
a number of its own. 1 and 1 and 1 is right. Some of the errors depend on the weights, so that they are shown for the
first weights, whose features nearly coincide, and after steps of AdamW on the true gradient (--after).
"""

import argparse
import gc
import tempfile
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from peers import import_open_clip, open_clip_model
from timing import describe_machine
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from trainers import accumulated_backward

from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer

ARCHITECTURE = Architecture(
    embed_dim=16,
    image=VisionTransformer(resolution=16, patch=8, width=32, layers=2, heads=2),
    text=TextTransformer(width=32, layers=2, heads=2, context_length=8, vocab_size=64),
)
FOUND = "gradients.pt"
Weights = dict[str, Tensor]
FLAGS = {
    "neither flag (the default)": (False, False),
    "--local-loss": (True, False),
    "--gather-with-grad": (False, True),
    "--local-loss --gather-with-grad": (True, True),
}


@dataclass(frozen=True)
class Gradient:
    """towers: of all parameters but the temperature, as one vector. scale: of the logarithm of the temperature."""

    towers: Tensor
    scale: Tensor

    @classmethod
    def of(cls, model: nn.Module) -> "Gradient":
        values = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        scale = values.pop("logit_scale")
        return cls(torch.cat([value.flatten() for value in values.values()]).clone(), scale.clone())

    def row(self, name: str, true: "Gradient") -> str:
        """This gradient beside the true one, as a row of the table."""
        cosine = F.cosine_similarity(self.towers, true.towers, dim=0).item()
        norm = (self.towers.norm() / true.towers.norm()).item()
        return f"| {name} | {norm:.6f} | {cosine:.6f} | {(self.scale / true.scale).item():.6f} |"


def model_with(weights: Weights) -> Any:
    model = open_clip_model(ARCHITECTURE).double().train()
    model.load_state_dict(weights)
    return model


def whole_batch(rows: int) -> tuple[Tensor, Tensor]:
    """Noise images, (rows, 3, 16, 16) float64, and texts of random words that end with the largest id."""
    random = torch.Generator().manual_seed(1)
    side, text = ARCHITECTURE.image.resolution, ARCHITECTURE.text
    images = torch.randn(rows, 3, side, side, dtype=torch.float64, generator=random)
    tokens = torch.randint(1, text.vocab_size - 1, (rows, text.context_length), generator=random)
    tokens[:, -1] = text.vocab_size - 1
    return images, tokens


def true_backward(model: Any, rows: int) -> float:
    """Autograd through the definition of the loss (Radford et al. 2021, Figure 3), over the whole batch; the loss."""
    output = model(*whole_batch(rows))
    logits = output["logit_scale"] * output["image_features"] @ output["text_features"].T
    partners = torch.arange(rows)
    loss = (F.cross_entropy(logits, partners) + F.cross_entropy(logits.T, partners)) / 2
    loss.backward()
    return loss.item()


def trained(rows: int, steps: int) -> Weights:
    """The weights after some steps on the true gradient."""
    torch.manual_seed(0)
    model: Any = open_clip_model(ARCHITECTURE).double().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        true_backward(model, rows)
        optimizer.step()
    weights: Weights = model.state_dict()
    return weights


def reference(weights: Weights, rows: int) -> tuple[Gradient, float]:
    """The true gradient, and the loss."""
    model = model_with(weights)
    loss = true_backward(model, rows)
    return Gradient.of(model), loss


def accumulated(weights: Weights, rows: int, accumulate: int) -> Gradient:
    """One process, --accum-freq `accumulate`."""
    model = model_with(weights)
    images, tokens = whole_batch(rows)
    parts = list(zip(images.chunk(accumulate), tokens.chunk(accumulate), strict=True))
    accumulated_backward(model, import_open_clip().ClipLoss(), parts, nullcontext)
    return Gradient.of(model)


def distributed(weights: Weights, rows: int, processes: int) -> dict[str, Gradient]:
    """Each combination of flags, with the rows shared among `processes`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spawn(_one_process, (weights, rows, processes, folder), nprocs=processes)
        found = torch.load(folder / FOUND, weights_only=True)
    return {flags: Gradient(**values) for flags, values in found.items()}


def _one_process(rank: int, weights: Weights, rows: int, processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=processes
    )
    images, tokens = (part.chunk(processes)[rank] for part in whole_batch(rows))
    gradients = {}
    for name, (local_loss, gather_with_grad) in FLAGS.items():
        model: Any = DistributedDataParallel(model_with(weights))
        loss = import_open_clip().ClipLoss(
            local_loss=local_loss,
            gather_with_grad=gather_with_grad,
            cache_labels=True,
            rank=rank,
            world_size=processes,
        )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # of PyTorch, about a name that open_clip calls it by
            loss(**model(images, tokens)).backward()
        gradients[name] = vars(Gradient.of(model.module))
    if rank == 0:
        torch.save(gradients, folder / FOUND)
    # Its reducer must not be the last to know the group: that may wait for ever (see diptych/training/parallel.py).
    model = None
    gc.collect()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--accumulate", type=int, nargs="+", default=[2, 4], help="parts of the batch")
    parser.add_argument("--rows", type=int, default=24, help="pairs of the whole batch")
    parser.add_argument("--after", type=int, nargs="+", default=[0, 10], help="steps taken before")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = arguments.rows
    print(f"{rows} pairs, float64, each beside the gradient of the whole batch in a single process")
    print(describe_machine("torch", "open_clip_torch"))
    for steps in arguments.after:
        weights = trained(rows, steps)
        true, loss = reference(weights, rows)
        print(f"\n{'The first weights' if steps == 0 else f'After {steps} steps'}, loss {loss:.2f}:\n")
        print("| open_clip | towers, norm | towers, cosine | temperature |\n|---|---|---|---|")
        for count in arguments.processes:
            for name, gradient in distributed(weights, rows, count).items():
                print(gradient.row(f"{count} processes, {name}", true), flush=True)
        for parts in arguments.accumulate:
            print(accumulated(weights, rows, parts).row(f"1 process, --accum-freq {parts}", true), flush=True)


if __name__ == "__main__":
    main()
