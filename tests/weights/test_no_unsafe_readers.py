"""No module of the product calls a reader that can run what it reads."""

import ast
from collections.abc import Iterator
from pathlib import Path

import diptych

# Called under these dotted names, or imported from these modules.
FORBIDDEN_CALLS = {
    "torch.load",
    "eval",
    "exec",
    "compile",
    "numpy.memmap.loads",
    "yaml.load",
    "faiss.read_index",
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_PREFIXES = ("torch.jit.", "pickle.", "torch.package.")
# Questions that the models ask about how they are run, and the recording of our own model, which reads nothing.
HARMLESS_CALLS = {"torch.jit.is_tracing", "torch.jit.is_scripting", "torch.jit.trace_module"}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{_dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def _offences(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call):
            name = _dotted(node.func)
            allows = [k for k in node.keywords if k.arg == "allow_pickle" and getattr(k.value, "value", True)]
            if name in HARMLESS_CALLS:
                continue
            if name in FORBIDDEN_CALLS or name.startswith(FORBIDDEN_PREFIXES) or allows:
                yield f"line {node.lineno}: {name}"
            continue
        else:
            continue
        for name in names:
            if name.split(".")[0] in FORBIDDEN_MODULES or f"{name}.".startswith(FORBIDDEN_PREFIXES):
                yield f"line {node.lineno}: import {name}"


def test_no_module_calls_a_reader_that_can_run_what_it_reads() -> None:
    root = Path(diptych.__file__).parent
    files = sorted(root.rglob("*.py"))
    assert len(files) > 20
    offences = [
        f"{file.relative_to(root)} {found}" for file in files for found in _offences(file.read_text())
    ]
    assert not offences


def test_the_search_finds_each_of_them() -> None:
    bad = (
        "import pickle",
        "from pickle import loads",
        "import torch.jit",
        "from torch import jit",
        "import torch\ntorch.load('x', weights_only=True)",
        "torch.jit.load('x')",
        "np.load('x', allow_pickle=True)",
        "eval('1')",
    )
    assert all(list(_offences(source)) for source in bad)
    assert not list(
        _offences("import torch\nmodel.eval()\nre.compile('x')\nnp.load('x', allow_pickle=False)")
    )
