"""What is shipped: the wheel holds every file the code reads, the pins cover what gets installed."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
WHEEL_BYTES = 40e6  # the bundled model may take 25 MB of it

# Absolute paths of a developer's machine, and hosts of package registries: neither belongs in the project.
# Written so that no pattern matches its own text.
NOT_OURS = {
    "a path of one machine": re.compile(
        r"(?<![\w.])/(?:hom[e]|User[s]|roo[t]|wor[k])/(?!\s)|\.\./share[d]|fil[e]:///(?!etc/passwd)"
    ),
    "a registry's host": re.compile(r"pypi\.org|pythonhosted\.org|registry\.npmjs\.org|deb\.debian\.org"),
}


def requirements(extras: tuple[str, ...]) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines]


def constraints() -> dict[str, str]:
    """Package -> pinned version, of the pins for this Python."""
    lines = (
        line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    )
    pins = [Requirement(line) for line in lines if line]
    assert all(re.fullmatch(r"==[\w.!]+", str(pin.specifier)) for pin in pins), "a pin is `name==version`"
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


# What the ordinary build of torch brings and its CPU build does not: torch itself names their versions.
BROUGHT_BY_CUDA = re.compile(r"nvidia-|cuda-|triton$")


def installed_closure() -> dict[str, str]:
    """Package -> version, for everything that the project with all its extras has installed here, CUDA's aside."""
    found: dict[str, str] = {}
    waiting = [(line, frozenset[str]()) for line in requirements(tuple(EXTRAS))]
    while waiting:
        requirement, parent_extras = waiting.pop()
        environments = [{"extra": extra} for extra in parent_extras or {""}]
        if requirement.marker and not any(requirement.marker.evaluate(each) for each in environments):
            continue
        name = canonicalize_name(requirement.name)
        if BROUGHT_BY_CUDA.match(name):
            continue
        if name in found and not requirement.extras:
            continue
        distribution = importlib.metadata.distribution(name)
        found[name] = distribution.version.partition("+")[0]  # the CPU build of torch has a local version
        waiting += [
            (Requirement(line), frozenset(requirement.extras)) for line in distribution.requires or []
        ]
    return found


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True, text=True
    )
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    missing = {name for name in files if name.startswith("diptych/")} - names
    assert missing == set()
    recipes = {name for name in files if name.startswith("recipes/")}
    assert recipes
    assert {f"diptych/{name}" for name in recipes} <= names


@pytest.mark.parametrize(
    "name",
    [
        "diptych/py.typed",
        "diptych/tokenizer/bpe_merges.txt.gz",
        "diptych/data/sample/train.tar",
        "diptych/data/sample/test.tar",
        "diptych/recipes/sample.toml",
        "diptych/evaluation/datasets/sets/imagenet.toml",
    ],
)
def test_wheel_holds_what_the_code_reads(wheel: Path, name: str) -> None:
    assert zipfile.ZipFile(wheel).getinfo(name).file_size > 0 or name.endswith("py.typed")


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    assert {name.partition("/")[0] for name in archive.namelist()} == {
        "diptych",
        f"diptych-{PROJECT['version']}.dist-info",
    }
    assert [name for name in archive.namelist() if name.endswith((".pyc", ".tmp", ".orig"))] == []
    assert wheel.stat().st_size < WHEEL_BYTES
    licences = {Path(name).name for name in archive.namelist() if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "MODEL_LICENSE"}


def test_installed_wheel_reads_its_own_data(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import diptych; print(diptych.__file__); print(diptych.tokenize('a diagram')[0, :4].tolist());"
        "from diptych.data.sources.opening import open_source; print(len(open_source('sample:test')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    file, tokens, count = result.stdout.splitlines()
    assert Path(file).is_relative_to(site)
    assert tokens == "[49406, 320, 22697, 49407]"
    assert count == "500"


def test_version_is_the_same_everywhere() -> None:
    source = (ROOT / "diptych" / "__init__.py").read_text("utf-8")
    assert f'__version__ = "{PROJECT["version"]}"' in source
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_pins_are_what_is_installed_and_cover_all_of_it() -> None:
    pins, installed = constraints(), installed_closure()
    wrong = {name: version for name, version in installed.items() if pins.get(name) != version}
    assert wrong == {}, "constraints.txt should have these versions (or the environment is old: make setup)"


def test_pins_name_nothing_that_is_not_needed() -> None:
    assert constraints().keys() - installed_closure().keys() == set()


def test_pins_satisfy_the_declared_ranges() -> None:
    pins = constraints()
    for requirement in requirements(tuple(EXTRAS)):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_every_dependency_is_imported_by_somebody() -> None:
    # An extra that nothing uses would be a false claim. A few packages are imported under another name.
    modules = {
        "pillow": "PIL",
        "pylance": "lance",
        "scikit-learn": "sklearn",
        "clip-anytorch": "clip",
        "faiss-cpu": "faiss",
        "open-clip-torch": "open_clip",
        "tensorboard": "torch.utils.tensorboard",
    }
    # Used as commands, by the build, or at run time by one of the others.
    commands = {"editables", "hatchling", "mypy", "packaging", "pytest", "ruff", "torchvision"}
    commands |= {"pytest-xdist", "types-regex"}
    commands |= {"httpx2", "pandas"}  # Starlette's test client needs the one, Ray's datasets the other
    sources = "\n".join(
        path.read_text("utf-8") for path in tracked_files() if path.suffix == ".py" and path != Path(__file__)
    )

    def imported(name: str) -> bool:
        module = re.escape(modules.get(name, name.replace("-", "_")))
        # A statement, or a name that is given to importlib.
        return (
            re.search(rf"^\s*(?:import|from) {module}\b|\(\"{module}\"\)", sources, re.MULTILINE) is not None
        )

    names = {canonicalize_name(requirement.name) for requirement in requirements(tuple(EXTRAS))}
    assert sorted(name for name in names - commands if not imported(name)) == []


def test_missing_extra_errors_name_extras_that_exist() -> None:
    named = set()
    for path in tracked_files():
        if path.suffix == ".py" and "diptych" in path.relative_to(ROOT).parts[:1]:
            named |= set(
                re.findall(r"MissingExtraError\(\s*\"[\w-]+\",\s*\"([\w-]+)\"", path.read_text("utf-8"))
            )
    assert named <= EXTRAS.keys()


@pytest.mark.parametrize("what", NOT_OURS)
def test_no_file_mentions(what: str) -> None:
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
            if NOT_OURS[what].search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "cd /wor" + "k/main",
        "see ../share" + "d/DESIGN.md",
        "open('/hom" + "e/someone/x')",
        "pypi" + ".org/simple",
    ],
)
def test_the_search_above_can_see(line: str) -> None:
    assert any(pattern.search(line) for pattern in NOT_OURS.values())
