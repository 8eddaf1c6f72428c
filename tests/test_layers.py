"""Imports only go down (docs/design.md, "Layers"), read from the syntax trees of every module."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "diptych"

CORE = {"errors", "config", "atomic", "locks", "printable", "distributed", "wording", "palette"}
PARTS = {"models", "tokenizer", "objectives", "data"}
ASSEMBLY = (
    "weights",
    "pretrained",
    "hardware",
    "embed",
    "exporting",
)  # in this order: each may import the ones before it
WORK = {"training", "evaluation", "search"}
BELOW_WORK = CORE | PARTS | set(ASSEMBLY)

# What each part of the package may import, itself aside.
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(CORE | PARTS, CORE),
    **{name: CORE | PARTS | set(ASSEMBLY[:place]) for place, name in enumerate(ASSEMBLY)},
    **dict.fromkeys(WORK, BELOW_WORK),
    "runs": BELOW_WORK | WORK,
    "doctor": BELOW_WORK | WORK | {"runs"},
    "reports": BELOW_WORK | WORK | {"runs", "doctor"},
    "serving": BELOW_WORK | WORK,
    "cli": BELOW_WORK | WORK | {"runs", "doctor", "reports", "serving"},
}
# The command line is imported by nobody; `diptych/__init__.py` names the homes of the public functions.
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
# Independent implementations to compare with, in tests; and what pulls them in.
NEVER_IMPORTED = {"torchvision", "timm", "open_clip", "transformers", "clip", "pytorch_metric_learning"}


def modules() -> dict[str, str]:
    """Dotted name below `diptych` -> source, for every module of the package."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path.read_text(
            "utf-8"
        )
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "__init__.py"
    }


def imports(source: str, module: str) -> Iterator[str]:
    """Every module that a source imports, absolute, wherever the statement stands (functions included)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = f"diptych.{module}".split(".")[: -node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            if base == "diptych":
                yield from (f"diptych.{alias.name}" for alias in node.names)


def violations(sources: Mapping[str, str]) -> list[str]:
    """One line for each import that does not go down."""
    found = []
    for module, source in sources.items():
        home = module.partition(".")[0]
        for imported in imports(source, module):
            package, _, rest = imported.partition(".")
            target = rest.partition(".")[0]
            # `from diptych import __version__` reaches nothing but the version.
            if package != "diptych" or target in ("", "__version__", home):
                continue
            if target not in MAY_IMPORT.get(home, set()):
                found.append(f"diptych.{module} imports {imported}")
    return found


def test_imports_only_go_down() -> None:
    assert violations(modules()) == []


def test_every_module_has_a_row() -> None:
    homes = {module.partition(".")[0] for module in modules()}
    assert homes <= MAY_IMPORT.keys(), f"not in the table of layers: {sorted(homes - MAY_IMPORT.keys())}"


def test_no_module_is_a_drawer() -> None:
    drawers = [module for module in modules() if FORBIDDEN_NAMES & set(module.split("."))]
    assert drawers == []


def test_reference_implementations_are_never_imported() -> None:
    found = [
        f"diptych.{module} imports {imported}"
        for module, source in modules().items()
        for imported in imports(source, module)
        if imported.partition(".")[0] in NEVER_IMPORTED
    ]
    assert found == []


def test_nothing_unpickles_and_nothing_scripts() -> None:
    # weights/foreign/openai.py reads archives with a restricted unpickler of its own; nobody else touches pickle.
    readers = {"weights.foreign.openai", "weights.foreign.archive"}
    found = [
        f"diptych.{module} imports {imported}"
        for module, source in modules().items()
        for imported in imports(source, module)
        if imported in ("pickle", "torch.jit", "dill", "joblib", "marshal") and module not in readers
    ]
    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("models.clip", "from diptych.tokenizer import tokenize"),  # parts are strangers
        ("data.loader", "import diptych.models.clip"),
        (
            "weights.foreign.openai",
            "from diptych.pretrained import load",
        ),  # weights, then pretrained, then embed
        ("pretrained", "from diptych import embed"),
        ("errors", "def late():\n    from diptych.data import sources"),  # inside a function too
        ("training.engine", "from diptych.evaluation import metrics"),
        ("search.index", "from diptych.cli import app"),
        ("data.images", "from ..models import clip"),  # relative imports are followed
        ("objectives.infonce", "from diptych.weights.checkpoint import load_checkpoint"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_found(module: str, source: str) -> None:
    assert len(violations({module: source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pretrained", "from diptych.weights import published"),
        ("embed", "from diptych.pretrained import load"),
        (
            "training.approaches",
            "from diptych.models.clip import CLIP\nfrom diptych.objectives import infonce",
        ),
        ("cli.search", "from diptych.search.image_index import Index"),
        ("models.clip", "from .transformer import Block\nimport torch"),
        ("weights.checkpoint", "from diptych import __version__"),
    ],
)
def test_an_import_that_goes_down_is_allowed(module: str, source: str) -> None:
    assert violations({module: source}) == []
