"""Images a second and captions a second of ViT-B/32 on the CPU, beside open_clip with the same weights.

    python benchmarks/encode.py [--threads 2] [--repetitions 7] [--batches 1 64] [--captions FILE] [--quick]

The weights are random (speed does not depend on them), the pixels noise, the captions everyday sentences of the
length of COCO's: about 12 tokens of the 77 that fit. Each row has its own median of images or captions a second; the
ratios are medians over repetitions, in which the implementations take turns. The difference is that of a feature
from open_clip's in float32, the largest over the batch, as a part of the largest feature. --quick only sees that it
runs: a tiny model, one repetition.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from captions import captions
from peers import TINY, open_clip_model
from timing import alternate, describe_machine, median_ratio
from torch import Tensor

from diptych.models.architectures import PUBLISHED, Architecture
from diptych.models.building import build_model
from diptych.tokenizer import tokenize
from diptych.weights.half_precision import to_half

REFERENCE = "open_clip float32"
SHORTEST = 0.3  # seconds for which a case runs in each repetition
Encoders = dict[str, Callable[[Tensor], Tensor]]


def encoders(architecture: Architecture) -> tuple[Encoders, Encoders]:
    """What encodes images and what encodes texts, by name; all with the same weights."""
    theirs: Any = open_clip_model(architecture).eval()
    ours = build_model(architecture).eval()
    ours.load_state_dict(theirs.state_dict())
    models = {
        REFERENCE: theirs,
        "Diptych float32": ours,
        "open_clip bfloat16": copy.deepcopy(theirs).bfloat16(),
        "Diptych bfloat16": to_half(copy.deepcopy(ours), torch.bfloat16),
    }
    images: Encoders = {}
    for name, model in models.items():
        dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
        images[name] = partial(_encode_image, model, dtype)
    return images, {name: model.encode_text for name, model in models.items()}


def _encode_image(model: Any, dtype: torch.dtype, pixels: Tensor) -> Tensor:
    encoded: Tensor = model.encode_image(pixels.to(dtype))
    return encoded


def compare(what: str, encode: Encoders, batch: Tensor, repetitions: int, shortest: float) -> list[str]:
    """Rows of the table, one for each encoder."""
    features = {name: run(batch).float() for name, run in encode.items()}
    reference = features[REFERENCE]
    cases = {name: partial(run, batch) for name, run in encode.items()}
    seconds = alternate(cases, repetitions, shortest)
    rows = []
    for name, times in seconds.items():
        rate = len(batch) / statistics.median(times)
        peer = f"open_clip {name.split()[1]}"
        difference = ((features[name] - reference).abs().max() / reference.abs().max()).item()
        rows.append(
            f"| {what} | {len(batch)} | {name} | {rate:.1f} | {median_ratio(seconds[REFERENCE], times):.2f} "
            f"| {median_ratio(seconds[peer], times):.2f} | {difference:.0e} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="processor cores to use; PyTorch's choice when not given")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--captions", type=Path, help="a text file of captions, one a line")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    name, architecture, shortest = "ViT-B/32", PUBLISHED["ViT-B/32"], SHORTEST
    if arguments.quick:
        name, architecture, shortest, arguments.repetitions = "tiny", TINY, 0.0, 1
    image_encoders, text_encoders = encoders(architecture)
    side, context = architecture.image.resolution, architecture.text.context_length
    print(f"{name}, medians of {arguments.repetitions} alternating repetitions")
    print(describe_machine("torch", "open_clip_torch") + "\n")
    print("| what | batch | implementation | a second | x open_clip float32 | x open_clip | difference |")
    print("|---|---|---|---|---|---|---|")
    timing = (arguments.repetitions, shortest)
    with torch.inference_mode():
        for size in arguments.batches:
            pixels = torch.randn(size, 3, side, side)
            print("\n".join(compare("images", image_encoders, pixels, *timing)), flush=True)
        for size in arguments.batches:
            tokens = tokenize(captions(size, arguments.captions), context_length=context, truncate=True)
            lengths = (tokens.argmax(dim=1) + 1).float()
            what = f"captions of {lengths.mean():.1f} tokens (longest {lengths.max():.0f})"
            print("\n".join(compare(what, text_encoders, tokens, *timing)), flush=True)


if __name__ == "__main__":
    main()
