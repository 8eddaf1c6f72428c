"""The table of fine-tuning."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.atomic import write_text


def write_page(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> None:
    """finetuning.json."""
    write_text(folder / "finetuning.json", json.dumps(list(jobs), indent=1) + "\n")
