"""The table of verbs. A verb's module is imported when the verb is called, or when its own help is asked for."""

from typing import NamedTuple

from cyclopts import App

import diptych
from diptych.cli.options import example


class Verb(NamedTuple):
    """One line of `diptych --help`, and where the verb lives."""

    place: str  # module:function, or module:app for a verb with tasks under it
    summary: str
    example: str | None = None  # shown under the verb's own help
    reads_images: bool = True  # so that `--max-pixels` concerns it


VERBS = {
    "demo": Verb(
        "diptych.cli.demo:demo",
        "Show the whole story on bundled data: train briefly, evaluate, classify, search.",
        "diptych demo --out demo/",
    ),
    "models": Verb(
        "diptych.cli.models:models",
        "List what can be loaded, with sizes.",
        "diptych models",
        reads_images=False,
    ),
    "export": Verb(
        "diptych.cli.export:export",
        "Write a model for open_clip, transformers or TorchScript, and check it.",
        "diptych export runs/first --format transformers --out exported",
        reads_images=False,
    ),
    "classify": Verb(
        "diptych.cli.classify:classify",
        "Sort images into classes of your own, without training.",
        'diptych classify photos/ --labels "cat,dog"',
    ),
    "caption": Verb(
        "diptych.cli.caption:caption",
        "Write captions of images, with a model trained to.",
        "diptych caption photos/ --model runs/virtex",
    ),
    "embed": Verb(
        "diptych.cli.embed:embed",
        "Write the embeddings of a dataset to Parquet or npy.",
        "diptych embed photos/ --out photos.npy",
    ),
    "index": Verb(
        "diptych.cli.index:index",
        "Build or refresh a search index over images.",
        "diptych index photos/ --index photos.index",
    ),
    "search": Verb(
        "diptych.cli.search:search",
        "Find images by words, or by an image.",
        'diptych search "a red bicycle" --index photos.index',
    ),
    "remove": Verb(
        "diptych.cli.remove:remove",
        "Take images out of a search index.",
        "diptych remove photos/private --index photos.index --purge",
        reads_images=False,
    ),
    "serve": Verb(
        "diptych.cli.serve:serve",
        "Serve a search index: a page for people, an API for programs.",
        "diptych serve --index photos.index",
        reads_images=False,
    ),
    "train": Verb(
        "diptych.cli.train:train",
        "Pre-train a model with a recipe.",
        "diptych train recipe.toml --set training.batch_size=256 --out runs/first",
    ),
    "finetune": Verb(
        "diptych.cli.finetune:finetune",
        "Fine-tune a model on your own classes or pairs, and see what it gained and lost.",
        "diptych finetune photos/ --out runs/mine",
    ),
    "sweep": Verb(
        "diptych.cli.sweep:sweep",
        "Train a recipe with many settings and list which were best.",
        "diptych sweep recipe.toml --grid optimizer.learning_rate=1e-4,3e-4 --out runs/sweep",
    ),
    "evaluate": Verb(
        "diptych.cli.evaluate:app", "Measure a model: zero-shot, probes, retrieval, robustness, whole suites."
    ),
    "compare": Verb(
        "diptych.cli.compare:compare",
        "Compare two models example by example, with tests.",
        "diptych compare first/ second/",
        reads_images=False,
    ),
    "data": Verb("diptych.cli.data:app", "Look at a dataset, check all of it, pack it into tar shards."),
    "doctor": Verb(
        "diptych.cli.doctor:doctor",
        "Check machine, data and recipe before time is spent.",
        "diptych doctor recipe.toml",
    ),
    "report": Verb(
        "diptych.cli.report:report",
        "Write the curves of a run, or of several, as one page.",
        "diptych report runs/first",
        reads_images=False,
    ),
    "verify": Verb(
        "diptych.cli.verify:verify",
        "Check the files of a checkpoint or an index.",
        "diptych verify runs/first",
        reads_images=False,
    ),
}


def build_app() -> App:
    """Return the command line as a cyclopts application."""
    app = App(
        name="diptych",
        help="CLIP, end to end: train, measure and search with images and words.",
        help_epilogue="Every command takes --max-pixels N: images of up to N pixels are decoded, 50,000,000 without "
        "it. Larger JPEG files are read at a part of their size, other images are left out.",
        help_flags=["--help", "-h"],
        version=version,
        version_flags="--version",
        suppress_keyboard_interrupt=False,  # `main` answers it
    )
    for position, (name, verb) in enumerate(VERBS.items()):
        shown = {}
        if verb.example is not None:
            shown["help_epilogue"] = (
                example(verb.example) if verb.reads_images else f"Example: {verb.example}"
            )
        app.command(verb.place, name=name, help=verb.summary, sort_key=position, **shown)
    return app


def version() -> str:
    """Return the versions of the package and of torch, and the device that `--device auto` picks."""
    import torch

    from diptych.hardware import pick_device

    return f"diptych {diptych.__version__} (torch {torch.__version__}, device {pick_device('auto')})"
