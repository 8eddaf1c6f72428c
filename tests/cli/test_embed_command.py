"""`diptych embed` in pieces and on Ray, and what `diptych index` makes of its files."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.command_line import Run


def test_pieces_are_joined_by_whoever_is_last(tiny: Path, pictures: Path, run: Run) -> None:
    run("embed", pictures, "--out", "whole.parquet", "--model", tiny)
    command = ("embed", pictures, "--out", "x.parquet", "--model", tiny, "--num-shards", 2)
    second = run(*command, "--shard-index", 1, "--json").json
    assert second["out"] == "x-00001-of-00002.parquet"
    assert (second["count"], second["missing"], second["joined"]) == (2, [0], None)
    first = run(*command, "--shard-index", 0, "--json").json
    assert (first["count"], first["missing"]) == (1, [])
    expected = {"out": "x.parquet", "model": str(tiny), "count": 3, "dim": 16, "skipped": {}, "left_out": {}}
    assert first["joined"] == expected
    joined, whole = pq.read_table("x.parquet"), pq.read_table("whole.parquet")
    assert joined.drop_columns("vector").equals(whole.drop_columns("vector"), check_metadata=True)
    again = run(*command, "--shard-index", 0)
    assert again.out.splitlines() == [
        "x-00000-of-00002.parquet: 1 vectors of 16 dimensions",
        "x.parquet: 3 vectors of 16 dimensions, joined from 2 pieces",
    ]


def test_an_index_takes_the_vectors_of_a_file(tiny: Path, pictures: Path, run: Run) -> None:
    run("embed", pictures, "--out", "x.parquet", "--model", tiny)
    done = run("index", pictures, "--index", "i", "--embeddings", "x.parquet", "--json").json
    assert (done["model"], done["added"]) == (str(tiny), 3)
    found = run("search", "--image", pictures / "green.png", "--index", "i", "--count", 1, "--json").json
    assert found["results"][0]["uri"] == str(pictures / "green.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-shards", 2], "give both, or neither"),
        (["--shard-index", 0], "give both, or neither"),
        (["--workers", 2], "for --engine ray"),
        (["--engine", "ray", "--workers", 0], "expected at least 1"),
        (["--engine", "spark"], "spark"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    tiny: Path, pictures: Path, run: Run, options: list[object], message: str
) -> None:
    outcome = run("embed", pictures, "--out", "x.parquet", "--model", tiny, *options)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_shard_that_is_not_one_of_so_many_is_refused(tiny: Path, pictures: Path, run: Run) -> None:
    outcome = run(
        *("embed", pictures, "--out", "x.parquet", "--model", tiny),
        *("--num-shards", 2, "--shard-index", 2),
    )
    assert outcome.code == 1
    assert "shard 2 of 2: expected 0 to 1" in outcome.err


def test_the_models_threads_sleep_while_they_wait_unless_told_otherwise(
    tiny: Path, pictures: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share the processors with those that decode."""
    for verb in (("embed", pictures, "--out", "x.npy"), ("index", pictures, "--index", "i")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        assert run(*verb, "--model", tiny).code == 0
        assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
        monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
        assert run(*verb, "--model", tiny).code == 0
        assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
