"""Thousands of awkward files: no command fails, and what was read and what was left out are all there is."""

import json
import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from tests.messy.messy_folder import AWKWARD_NAMES, CAPTION, NIGHTLY
from tests.messy.messy_pictures import READ
from tests.messy.messy_run import MessyRun, messy_run

FEW = 300

EXIT_CODES = {"data verify": 1}  # bad rows were found, as they must be; of all others 0


@pytest.fixture(scope="module", params=[FEW, pytest.param(NIGHTLY, marks=pytest.mark.nightly)])
def done(request: pytest.FixtureRequest) -> Iterator[MessyRun]:
    with messy_run(request.param) as found:
        yield found


def test_every_command_ends_with_its_documented_exit_code(done: MessyRun) -> None:
    wrong = {
        name: (result.code, result.err[-1000:])
        for name, result in done.results.items()
        if result.code != EXIT_CODES.get(name, 0)
    }
    assert not wrong


def test_nothing_is_called_a_bug_and_nothing_leaves_a_traceback(done: MessyRun) -> None:
    for name, result in done.results.items():
        for sign in ("a bug", "Traceback", "UserWarning", "warnings.warn"):
            assert sign not in result.err, (name, result.err[-1000:])
    assert "Traceback" not in done.noise


def test_each_file_has_the_reason_that_it_should_have(done: MessyRun) -> None:
    images = done.pile.images
    assert done.verdicts.keys() == images
    wrong = {path: done.verdicts[path] for path in images if done.verdicts[path] not in done.pile.fates[path]}
    assert not wrong
    assert Counter(done.left_out) == done.pile.left_out


def test_read_and_left_out_and_caption_files_are_all_files(done: MessyRun) -> None:
    captions = sum(fate == (CAPTION,) for fate in done.pile.fates.values())
    assert len(done.verdicts) + sum(done.left_out.values()) + captions == len(done.pile.fates)


def test_every_command_counts_all_files_by_their_reasons(done: MessyRun) -> None:
    expected = Counter(verdict for verdict in done.verdicts.values() if verdict != READ) + done.pile.left_out
    read = sum(verdict == READ for verdict in done.verdicts.values())
    for name, field in (
        ("index", "total"),
        ("data verify", "read"),
        ("data pack", "packed"),
        ("embed, npy", "count"),
    ):
        found = done.results[name].json
        assert {reason: one["count"] for reason, one in found["left_out"].items()} == expected, name
        assert found[field] == read, name


def test_every_command_reads_the_same_images(done: MessyRun) -> None:
    read = {path for path, verdict in done.verdicts.items() if verdict == READ}
    captioned_badly = {
        path
        for path in done.pile.images
        if path.startswith((b"captions/", b"links/", b"special/", b"permissions/"))
    }
    found = done.results["search"].json["results"]
    ids = [one["uri"] for each in found for one in (each, *each["duplicates"])]
    assert {done.relative(uri) for uri in ids} == read
    classified = [done.relative(one["image"]) for one in done.results["classify"].json]
    assert len(set(classified)) == len(classified)
    # What is classified needs no caption, so that a broken one beside it is no reason to leave it out.
    assert read <= set(classified) <= read | captioned_badly
    lines = (done.folder / "pile.jsonl").read_text().rstrip("\n").split("\n")
    assert {done.relative(json.loads(line)["uri"]) for line in lines} == read
    assert np.load(done.folder / "pile.npy").shape == (len(read), 16)
    for name, field in (
        ("data pack", "packed"),
        ("data verify", "read"),
        ("data verify, packed", "read"),
        ("embed, npy", "count"),
        ("embed, Parquet", "count"),
        ("index, packed", "total"),
        ("index, embeddings", "total"),
    ):
        if name in done.results:
            assert done.results[name].json[field] == len(read), name


def test_an_index_is_filled_once(done: MessyRun) -> None:
    first, second = done.results["index"].json, done.results["index again"].json
    read = sum(verdict == READ for verdict in done.verdicts.values())
    assert first["total"] == second["total"] == read
    assert (second["added"], second["updated"], second["moved"], second["removed"]) == (0, 0, 0, 0)
    assert second["unchanged"] == read


def test_names_are_found_as_they_are(done: MessyRun) -> None:
    found = {done.relative(one["image"]) for one in done.results["classify"].json}
    assert {b"names/" + name for name in AWKWARD_NAMES} <= found


def test_folders_of_classes_are_measured_and_learned(done: MessyRun) -> None:
    read = {path for path, fate in done.classes.fates.items() if fate == (READ,)}
    most = {path for path, fate in done.classes.fates.items() if READ in fate}
    labels = {os.fsdecode(path.partition(b"/")[0]) for path in done.classes.fates}
    assert len(read) <= done.results["evaluate zero-shot"].json["count"] <= len(most)
    if "classify by its own" in done.results:
        own = done.results["classify by its own"].json
        assert len(read) <= len(own) <= len(most)
        assert {guess["label"] for one in own for guess in one["predictions"]} == labels


def test_time_and_memory_are_bounded(done: MessyRun) -> None:
    for name, result in done.results.items():
        assert result.peak_bytes < 4e9, (name, result.peak_bytes)
        assert result.seconds < 200, (name, result.seconds)


def test_nothing_is_written_beside_what_was_asked_for(done: MessyRun) -> None:
    assert done.changed == []
    assert done.strays == []
