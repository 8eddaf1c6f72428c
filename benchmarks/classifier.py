"""A zero-shot classifier of 1,000 classes x 80 templates with ViT-B/32 on the CPU, beside open_clip's.

    python benchmarks/classifier.py [--threads 2] [--repetitions 5] [--classes 1000] [--quick]

The names and templates are those that open_clip has for ImageNet, the weights random and the same in both. open_clip
builds the classifier with its own `build_zero_shot_classifier`, of a few of the classes (its time for a prompt does
not depend on the prompt), in float32, which is its default, in its autocast (`--precision amp_bf16`) and with weights
in bfloat16. Diptych builds it with `classifier`, of every twentieth class; and with every shared beginning made
different, to see what sharing is worth. All take turns; ratios are of the prompts a second within a repetition,
medians with the lowest and the highest. Then Diptych builds the whole classifier once. The difference is that of the
weights from open_clip's in float32, the largest, as a part of the largest weight. --quick only sees that it runs.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peers import TINY, import_open_clip, open_clip_model
from timing import alternate, describe_machine, ratio_with_spread
from torch import Tensor

from diptych.evaluation.zero_shot.classification import classifier
from diptych.models.architectures import PUBLISHED, Architecture
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.models.layers.text_packing import order_of_batches, pack
from diptych.tokenizer import tokenize
from diptych.weights.half_precision import to_half

BATCH = 256  # as in embed_texts
PEERS = ("open_clip float32", "open_clip bfloat16 autocast", "open_clip bfloat16")


@dataclass(frozen=True)
class Prompts:
    """Class names in templates: `everything`, and the parts that are timed."""

    everything: Sequence[str]
    sample: Sequence[str]  # for Diptych
    few: Sequence[str]  # for open_clip; the first of them are compared
    templates: Sequence[Callable[[str], str]]

    def tokens(self, names: Sequence[str], context: int) -> Tensor:
        """Each name in each template: (prompts, context) ids."""
        texts = [template(name) for name in names for template in self.templates]
        return tokenize(texts, context_length=context, truncate=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="processor cores to use; PyTorch's choice when not given")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--classes", type=int, default=1000, help="of the classifier that is built once")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    open_clip = import_open_clip()
    names, templates = open_clip.IMAGENET_CLASSNAMES[: arguments.classes], open_clip.OPENAI_IMAGENET_TEMPLATES
    prompts = Prompts(names, names[::20], names[:2], templates)
    title, architecture = "ViT-B/32", PUBLISHED["ViT-B/32"]
    if arguments.quick:
        title, architecture, arguments.repetitions = "tiny", TINY, 1
        prompts = Prompts(names[:6], names[:4], names[:2], templates[:3])
    ours, theirs = models(architecture)
    print(f"{title}, medians of {arguments.repetitions} alternating repetitions")
    print(describe_machine("torch", "open_clip_torch") + "\n")
    print(work(prompts, architecture.text.context_length) + "\n")
    print(compare(prompts, ours, theirs, arguments.repetitions) + "\n", flush=True)
    print("| the whole classifier | prompts | seconds | a second |\n|---|---|---|---|")
    for name, model in ours.items():
        print(once(name, model, prompts), flush=True)


def models(architecture: Architecture) -> tuple[dict[str, ImageModel], dict[str, Any]]:
    """Diptych's models and open_clip's by name, all with the same weights."""
    theirs: Any = open_clip_model(architecture).eval()
    ours = build_model(architecture).eval()
    ours.load_state_dict(theirs.state_dict())
    half = copy.deepcopy(theirs).bfloat16()
    return (
        {"Diptych float32": ours, "Diptych bfloat16": to_half(copy.deepcopy(ours), torch.bfloat16)},
        dict(zip(PEERS, (theirs, theirs, half), strict=True)),
    )


def work(prompts: Prompts, context: int) -> str:
    """Tokens to compute for the whole classifier, by what is left out."""
    tokens = prompts.tokens(prompts.everything, context)
    used = int((tokens.argmax(dim=1) + 1).sum())
    packed = sum(len(pack(tokens[rows]).tokens) for rows in batches(tokens))
    padded, count = tokens.numel(), len(tokens)
    return (
        f"{count:,} prompts: {context} tokens each with padding, {used / count:.2f} without, "
        f"{packed / count:.2f} with every beginning once in a batch: {padded / packed:.1f} times less"
    )


def batches(tokens: Tensor) -> Sequence[Tensor]:
    """As embed_texts takes them on a CPU."""
    return torch.split(order_of_batches(tokens, torch.device("cpu")), BATCH)


def compare(prompts: Prompts, ours: dict[str, ImageModel], theirs: dict[str, Any], repetitions: int) -> str:
    """The table of the timed parts."""
    open_clip = import_open_clip()
    context = next(iter(ours.values())).context_length
    reader = open_clip.SimpleTokenizer(context_length=context)
    cases: dict[str, Callable[[], object]] = {}
    sizes, weights = {}, {}
    for name, model in theirs.items():
        build = partial(open_clip.build_zero_shot_classifier, model, reader, templates=prompts.templates)
        of_few = partial(_under_autocast if name.endswith("autocast") else _plainly, build, prompts.few)
        cases[name], sizes[name], weights[name] = of_few, len(prompts.few), of_few()
    for name, model in ours.items():
        weights[name] = diptych_classifier(model, prompts.few, prompts.templates)
        cases[name] = partial(diptych_classifier, model, prompts.sample, prompts.templates)
        apart = f"{name}, nothing shared"
        alone = without_shared_beginnings(prompts.tokens(prompts.sample, context))
        cases[apart] = partial(encode_all, model, alone)
        sizes[name] = sizes[apart] = len(prompts.sample)
    seconds = alternate(cases, repetitions, warm_up=False)  # the weights above have warmed up
    each = {name: [s / sizes[name] for s in times] for name, times in seconds.items()}  # of one class
    rows = [
        f"| implementation | prompts a second | {' | '.join(f'x {name}' for name in PEERS)} | difference |"
    ]
    rows.append("|---" * (3 + len(PEERS)) + "|")
    reference = weights[PEERS[0]].float()
    for name, times in each.items():
        rate = len(prompts.templates) / statistics.median(times)
        ratios = " | ".join(ratio_with_spread(each[peer], times) for peer in PEERS)
        difference = ""
        if name in weights:
            off = (weights[name].float() - reference).abs().max() / reference.abs().max()
            difference = f"{off.item():.0e}"
        rows.append(f"| {name} | {rate:.1f} | {ratios} | {difference} |")
    return "\n".join(rows)


def diptych_classifier(
    model: ImageModel, names: Sequence[str], templates: Sequence[Callable[[str], str]]
) -> Tensor:
    """Diptych's classifier from open_clip's templates."""
    return classifier(model, names, [template("{}") for template in templates])


def without_shared_beginnings(tokens: Tensor) -> Tensor:
    """Texts of the same lengths that share nothing: each begins with a token of its own, below the end token."""
    alone = tokens.clone()
    alone[:, 0] = torch.arange(len(tokens)) + 1
    return alone


def encode_all(model: ImageModel, tokens: Tensor) -> None:
    """Every text once, in batches."""
    with torch.inference_mode():
        for rows in batches(tokens):
            model.encode_text(tokens[rows])


def once(name: str, model: ImageModel, prompts: Prompts) -> str:
    """A row: Diptych's whole classifier."""
    start = time.perf_counter()
    diptych_classifier(model, prompts.everything, prompts.templates)
    elapsed = time.perf_counter() - start
    count = len(prompts.everything) * len(prompts.templates)
    return f"| {name} | {count:,} | {elapsed:.1f} | {count / elapsed:.0f} |"


def _plainly(build: Callable[..., Tensor], names: Sequence[str]) -> Tensor:
    return build(classnames=names)


def _under_autocast(build: Callable[..., Tensor], names: Sequence[str]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return build(classnames=names)


if __name__ == "__main__":
    main()
