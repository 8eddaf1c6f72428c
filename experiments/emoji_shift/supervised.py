"""Train one supervised baseline on the labels of the emoji: which of 1,399 concepts a drawing shows.

    python experiments/emoji_shift/supervised.py NAME SPLIT CORPUS OUT [SEED]

The image towers of Diptych with a linear head, cross-entropy with label smoothing, the augmentation and the
precision of the CLIP models beside them. OUT/NAME gets `model.safetensors` and `result.json`: top-1 in distribution
and on each unseen designer, with what became of each example.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from diptych.data.images.augmentations import Drawings, draw_views
from diptych.data.images.canvas import canvas_for
from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Loader
from diptych.data.sources.opening import Source, open_source
from diptych.embed.encode import Vectors
from diptych.evaluation.survey import encoded_rows, survey
from diptych.models.architectures import ModifiedResNet as ResNet
from diptych.models.architectures import VisionTransformer as ViT
from diptych.models.modified_resnet import ModifiedResNet
from diptych.models.vision_transformer import VisionTransformer

WIDTH = 256  # of the features that the head sees
BASELINES: dict[
    str, tuple[ResNet | ViT, int, float]
] = {  # tower, drawings seen, share of the training drawings
    "resnet-8": (ResNet(resolution=64, layers=(1, 1, 1, 1), width=8, heads=4), 100_000, 1.0),
    "resnet-12": (ResNet(resolution=64, layers=(1, 1, 1, 1), width=12, heads=6), 100_000, 1.0),
    "resnet-16": (ResNet(resolution=64, layers=(1, 1, 1, 1), width=16, heads=8), 120_000, 1.0),
    "resnet-16-deep": (ResNet(resolution=64, layers=(2, 2, 2, 2), width=16, heads=8), 120_000, 1.0),
    "resnet-24": (ResNet(resolution=64, layers=(1, 1, 1, 1), width=24, heads=12), 120_000, 1.0),
    "resnet-32": (ResNet(resolution=64, layers=(2, 2, 2, 2), width=32), 120_000, 1.0),
    "resnet-16-half": (ResNet(resolution=64, layers=(1, 1, 1, 1), width=16, heads=8), 100_000, 0.5),
    "vit-96": (ViT(resolution=64, patch=8, width=96, layers=4, heads=3), 120_000, 1.0),
    "vit-128": (ViT(resolution=64, patch=8, width=128, layers=6, heads=4), 150_000, 1.0),
}
BATCH, RATE, WARMUP, DECAY, SMOOTHING = 128, 2e-3, 100, 0.05, 0.1
AUGMENTATION = Drawings(
    rotation=12.0, shear=5.0, stretch=0.08, warp=0.05, saturation=0.4, shade=0.4, background=0.5, erase=0.12
)


class Classifier(nn.Module):
    """(batch, 3, 64, 64) pixels to (batch, classes) logits."""

    def __init__(self, size: ResNet | ViT, classes: int) -> None:
        super().__init__()
        self.tower: nn.Module = (
            ModifiedResNet(size, WIDTH)
            if isinstance(size, ResNet)
            else VisionTransformer(size, WIDTH, "quick_gelu")
        )
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.tower(pixels))
        return logits


def codes_of(source: Source) -> list[str | None]:
    """The concept of each row: the code point of an emoji, else none."""
    return [source[position].group for position in range(len(source))]


def train(
    name: str, source: Source, columns: dict[str, int], preprocess: Preprocess, seed: int
) -> Classifier:
    size, samples, portion = BASELINES[name]
    torch.manual_seed(seed)
    target = torch.tensor([columns.get(code or "", -1) for code in codes_of(source)])
    used = (target >= 0).numpy() & (np.random.default_rng(0).random(len(target)) < portion)
    loader = Loader(
        source=source,
        canvas=canvas_for(AUGMENTATION, preprocess),
        tokenize=lambda texts: torch.zeros(len(texts), 1, dtype=torch.int64),
        batch_size=BATCH,
        seed=seed,
        weights=used.astype(np.float64),
        cache=True,
    )
    model = Classifier(size, len(columns))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=DECAY, fused=True
    )
    mean, std = (torch.tensor(value)[:, None, None] for value in (preprocess.mean, preprocess.std))
    steps, started = samples // BATCH, time.perf_counter()
    batches = loader.batches(0)
    for step in range(steps):
        batch = next(batches)
        rate = RATE * min((step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        view = draw_views(batch.canvas, batch.mirrored, batch.chance, AUGMENTATION, preprocess.resolution)
        pixels = ((view - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels)
        loss = F.cross_entropy(logits.float(), target[batch.rows], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            speed = (step + 1) * BATCH / (time.perf_counter() - started)
            print(
                f"{name}: step {step + 1} of {steps}, loss {loss.item():.3f}, {speed:.0f} drawings/s",
                flush=True,
            )
    batches.close()
    return model.eval()


def measure(
    model: Classifier, source: Source, columns: dict[str, int], preprocess: Preprocess
) -> dict[str, object]:
    rows = survey(source, lambda example: (example.key, str(example.group), str(example.metadata["vendor"])))

    def logits(pixels: Sequence[torch.Tensor]) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = model(torch.stack(list(pixels))).numpy()
        return vectors

    found = encoded_rows(
        logits, preprocess, source, rows.picked, device=torch.device("cpu"), batch_size=128, progress=None
    )
    picked = [rows.picked[position] for position in found.positions]
    target = np.array([columns[code] for _, code, _ in picked])
    right = found.vectors.argmax(1) == target
    vendors = np.array([vendor for *_, vendor in picked])
    return {
        "count": len(right),
        "top1": float(right.mean()),
        "vendors": {vendor: float(right[vendors == vendor].mean()) for vendor in sorted(set(vendors))},
        "keys": [key for key, *_ in picked],
        "right": right.astype(int).tolist(),
    }


def main(name: str, split: Path, corpus: Path, out: Path, seed: int = 0) -> None:
    shift = open_source(corpus / "eval-emoji-vendor-shift.tar")
    columns = {code: column for column, code in enumerate(sorted({code for code in codes_of(shift) if code}))}
    preprocess = Preprocess(64)
    started = time.perf_counter()
    model = train(name, open_source(split / "train.tar"), columns, preprocess, seed)
    seconds = time.perf_counter() - started
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors"
    )
    inside = measure(model, open_source(split / "in-distribution.tar"), columns, preprocess)
    shifted = measure(model, shift, columns, preprocess)
    result = {
        "model": name,
        "seed": seed,
        "parameters": sum(value.numel() for value in model.parameters()),
        "drawings_seen": BASELINES[name][1],
        "share_of_drawings": BASELINES[name][2],
        "seconds": seconds,
        "in_distribution": inside,
        "shift": shifted,
    }
    (folder / "result.json").write_text(json.dumps(result))
    print(name, inside["top1"], shifted["top1"], shifted["vendors"], flush=True)


if __name__ == "__main__":
    split, corpus, out = map(Path, sys.argv[2:5])
    main(sys.argv[1], split, corpus, out, *map(int, sys.argv[5:6]))
