"""Count what makes the package long or hard to find one's way in: `python scripts/counts.py [FOLDER ...]`.

One column a checkout, so that two versions stand side by side. Statements are those of the syntax tree without
docstrings; blank lines and comments do not count.
"""

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

FILE_LINES, FUNCTION_LINES, FOLDER_FILES = 300, 60, 15
# Classes that say which kind a model, a text tower or an architecture is.
KINDS = re.compile(
    r"\b(CLIP|Captioner|WordPredictor|LabelHead|BagOfWords|TextTransformer|LanguageTower|LanguageModel|SharedEncoder|"
    r"ImageOnly|NoText|Predictive|PredictiveText|VisionTransformer|ModifiedResNet|SharedText|ProjectedImage|"
    r"[A-Z]\w*(Model|Tower|Text|Head))\b"
)
# Names by which recipes choose an approach; plain words such as "clip" and "labels" count beside a name alone.
NAMED = re.compile(r"objective\.name|objective_name|approach_name|\bTASKS\[")


def sources(root: Path) -> dict[str, str]:
    """Return the text of each module below `root/diptych`, by its path there."""
    package = root / "diptych"
    return {str(path.relative_to(package)): path.read_text("utf-8") for path in sorted(package.rglob("*.py"))}


def statements(tree: ast.AST) -> int:
    """Return how many statements a tree has, without docstrings."""
    found = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            found += not text
    return found


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the name and the lines of each function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            yield node.name, node.end_lineno - node.lineno + 1


def kind_checks(tree: ast.AST) -> int:
    """Return how often `isinstance` asks for a kind of model or of architecture."""
    return sum(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and bool(KINDS.search(ast.unparse(node.args[1])))
        for node in ast.walk(tree)
    )


def name_checks(tree: ast.AST) -> int:
    """Return how often an approach's name is compared with, or looked up in a table other than the approaches'."""
    found = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.Subscript) or (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        ):
            text = ast.unparse(node)
            found += bool(NAMED.search(text)) and "TASKS[" not in text and "APPROACHES[" not in text
    return found


def figures(root: Path) -> dict[str, int]:
    """Return the counts of one checkout, in the order in which they are printed."""
    texts = sources(root)
    trees = {name: ast.parse(text) for name, text in texts.items()}
    by_folder: Counter[str] = Counter()
    for name, tree in trees.items():
        by_folder[name.partition("/")[0] if "/" in name else "(modules)"] += statements(tree)
    bases = Counter(name.rpartition("/")[2] for name in texts if not name.endswith("__init__.py"))
    files = Counter(name.rpartition("/")[0] for name in texts if not name.endswith("__init__.py"))
    return {
        **{f"statements in {folder}": count for folder, count in sorted(by_folder.items())},
        "statements": sum(by_folder.values()),
        "lines": sum(len(text.splitlines()) for text in texts.values()),
        "modules": len(texts),
        f"files over {FILE_LINES} lines": sum(len(text.splitlines()) > FILE_LINES for text in texts.values()),
        f"functions over {FUNCTION_LINES} lines": sum(
            lines > FUNCTION_LINES for tree in trees.values() for _, lines in functions(tree)
        ),
        f"folders of more than {FOLDER_FILES} files": sum(count > FOLDER_FILES for count in files.values()),
        "isinstance on kinds of models": sum(map(kind_checks, trees.values())),
        "comparisons with an approach's name": sum(map(name_checks, trees.values())),
        "base names that stand twice": sum(count > 1 for count in bases.values()),
        "deferred imports": sum(text.count("noqa: PLC0415") for text in texts.values()),
    }


def details(root: Path) -> None:
    """Print what is over a limit, by name."""
    for name, text in sources(root).items():
        if len(text.splitlines()) > FILE_LINES:
            print(f"{name}: {len(text.splitlines())} lines")
        tree = ast.parse(text)
        for function, lines in functions(tree):
            if lines > FUNCTION_LINES:
                print(f"{name}: {function}, {lines} lines")
        if kind_checks(tree) or name_checks(tree):
            print(
                f"{name}: {kind_checks(tree)} isinstance on kinds, {name_checks(tree)} on approaches' names"
            )


def table(columns: Mapping[str, Mapping[str, int]]) -> str:
    """Return the counts as Markdown, one column a checkout; 0 where a folder is not there."""
    rows = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows.sort(key=lambda name: not name.startswith("statements in"))
    lines = [f"| count | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    lines += [
        f"| {name} | " + " | ".join(f"{column.get(name, 0):,}" for column in columns.values()) + " |"
        for name in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table, or the names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "roots", nargs="*", type=Path, default=[Path()], help="checkouts; this folder without one"
    )
    parser.add_argument("--names", action="store_true", help="list what is over a limit")
    options = parser.parse_args()
    print(table({root.resolve().name: figures(root) for root in options.roots}))
    if options.names:
        details(options.roots[-1])


if __name__ == "__main__":
    main()
