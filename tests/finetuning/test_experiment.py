"""The experiment's script, on the bundled sample."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "finetuning" / "run.py"


def test_a_quick_run_of_the_experiment_writes_its_table_and_skips_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specification = importlib.util.spec_from_file_location("finetuning_experiment", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, specification.name, module)
    specification.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), "--quick"])
    module.main()
    table = (tmp_path / "finetuning.md").read_text()
    assert "| before | | " in table
    assert "| `wise-ft` | 1 | " in table
    assert "on the sum of the columns alpha 0.5" in table
    capsys.readouterr()
    module.main()
    assert "wise-ft" not in capsys.readouterr().err
    assert (tmp_path / "finetuning.md").read_text() == table
