"""A lock that other processes wait for."""

import subprocess
import sys
from pathlib import Path

from diptych.locks import exclusive_lock

# Says that it is here, then what it found in the file once it had the lock.
OTHER = """
import sys
from pathlib import Path
from diptych.locks import exclusive_lock
place = Path(sys.argv[1])
print("here", flush=True)
with exclusive_lock(place / "lock"):
    print((place / "said").read_text(), flush=True)
"""


def test_another_process_waits_until_the_work_under_the_lock_is_done(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with exclusive_lock(tmp_path / "lock"):
        said.write_text("half")
        other = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "here\n"
        said.write_text("whole")
    out, _ = other.communicate(timeout=60)
    assert (out, other.returncode) == ("whole\n", 0)
