"""The command line as a whole: start-up, help, exit codes, and what a closed pipe or Ctrl-C does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import diptych
from diptych.cli import classify as classify_verb
from diptych.cli.__main__ import INTERRUPTED, PIPE_CLOSED
from diptych.cli.verbs import VERBS
from diptych.errors import DataError
from tests.cli.command_line import Run

HEAVY = ("torch", "numpy", "PIL", "pyarrow", "scipy", "sklearn", "tensorboard", "jinja2", "matplotlib")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "import diptych",
        "import diptych.cli",
        "from diptych.cli.__main__ import main; main(['--help'])",
        "from diptych.cli.__main__ import main; main(['classify', '--help'])",
        "from diptych.cli.__main__ import main; main(['evaluate', 'zero-shot', '--help'])",
        "from diptych.cli.__main__ import main; main(['no-such-verb'])",
    ],
)
def test_nothing_heavy_is_imported_before_a_verb_runs(code: str) -> None:
    done = python(f"{code}\nimport sys\nprint('loaded:', [name for name in {HEAVY} if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_classify_imports_nothing_that_it_does_not_need(tiny: Path, pictures: Path) -> None:
    arguments = ["classify", str(pictures / "red.png"), "--labels", "red,blue", "--model", str(tiny)]
    done = python(
        f"from diptych.cli.__main__ import main; main({arguments})\n"
        f"import sys\nprint('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    )
    assert done.stdout.splitlines()[-1] == "loaded: ['torch', 'numpy', 'PIL']", done.stderr


def test_every_verb_has_help_with_its_summary(run: Run) -> None:
    listed = run("--help")
    assert listed.code == 0
    for name, verb in VERBS.items():
        assert f" {name} " in listed.out
        own = run(name, "--help")
        assert own.code == 0
        assert " ".join(verb.summary.split()[:3]) in " ".join(own.out.split()) or name == "evaluate"


@pytest.mark.parametrize("command", ["index", "classify", "train", "data pack", "evaluate retrieval"])
def test_the_help_of_what_reads_images_names_the_option_for_large_ones(command: str, run: Run) -> None:
    assert "--max-pixels" in run(*command.split(), "--help").out


def test_version_names_torch_and_the_device(run: Run) -> None:
    outcome = run("--version")
    assert outcome.code == 0
    assert outcome.out.startswith(f"diptych {diptych.__version__} (torch ")
    assert ", device " in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clasify"], 'Did you mean "classify"?'),
        (["classify", "x.png", "--lables", "a,b"], "Did you mean --labels?"),
        (["classify", "--labels", "a,b"], "diptych classify --help"),
        (["classify", "x.png"], "exactly one of --labels"),
        (["classify", "x.png", "--labels", "a,b", "--labels-file", "f"], "exactly one of --labels"),
        (["classify", "x.png", "--labels", "a,b", "--top", "0"], "--top 0"),
        (["search", "--index", "i"], "nothing to search for"),
        (["search", "cat", "--index", "i", "--count", "many"], "many"),
        (["search", "cat"], "--index"),
        (["remove", "--index", "i"], "expected what to remove"),
        (["remove", "a.png", "--where", "width = 1", "--index", "i"], "expected what to remove"),
        (["evaluate", "zeroshot", "--data", "d"], "zero-shot"),
        (["evaluate", "zero-shot", "--data", "d", "--label-from", "captions"], "caption"),
        (["demo", "--minutes", "0"], "--minutes 0"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], said: str, run: Run) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--device", "gpu"), "'gpu'"),
        (("--device", "cuda:99"), "--device auto"),
        (("--precision", "bf16"), "bfloat16"),
    ],
)
def test_unknown_device_or_precision_is_wrong_usage(
    option: tuple[str, str], said: str, tiny: Path, pictures: Path, run: Run
) -> None:
    outcome = run("classify", pictures, "--labels", "red,blue", "--model", tiny, *option)
    assert outcome.code == 2
    assert said in outcome.err


def test_real_command_exits_with_the_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "diptych.cli"]
    for arguments, code in ((["--help"], 0), (["verify", str(tmp_path / "no")], 1), (["nonsense"], 2)):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "Traceback" not in done.stderr


def test_interrupt_is_exit_code_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(classify_verb, "read_classes", interrupted)
    outcome = run("classify", "x.png", "--labels", "a,b")
    assert (outcome.code, outcome.err) == (INTERRUPTED, "interrupted\n")


def test_interrupt_signal_ends_a_running_command_with_130() -> None:
    # The command waits on a pipe for its recipe; opening the other end waits until it does.
    os.mkfifo("recipe.toml")
    process = subprocess.Popen(
        [sys.executable, "-m", "diptych.cli", "train", "recipe.toml"],
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background of a shell hands down that the signal is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    with open("recipe.toml", "wb"):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors


def test_closed_pipe_is_quiet() -> None:
    # Reads nothing and goes away, as `head` does once it has enough.
    done = subprocess.run(
        f"{sys.executable} -m diptych.cli models --json | true; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == str(PIPE_CLOSED)


def test_expected_error_has_a_traceback_only_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise DataError("a.csv:\n line 3: no caption; add one")

    monkeypatch.setattr("diptych.pretrained.available_models", fails)
    quiet = run("models")
    assert (quiet.code, quiet.err) == (1, "error: a.csv: line 3: no caption; add one\n")
    monkeypatch.setenv("DIPTYCH_DEBUG", "1")
    loud = run("models")
    assert loud.code == 1
    assert "Traceback" in loud.err
    assert loud.err.endswith("error: a.csv: line 3: no caption; add one\n")


def test_bug_is_one_line_that_asks_for_a_report(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("diptych.pretrained.available_models", fails)
    outcome = run("models")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "ZeroDivisionError: division by zero" in outcome.err
    assert "DIPTYCH_DEBUG=1" in outcome.err
