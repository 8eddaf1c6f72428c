"""Write one checkpoint from many processes, each its own rows; any number of processes can read it.

    model-00000-of-00002.safetensors    the rows of process 0, and the tensors that are equal in every process
    model-00001-of-00002.safetensors
    state-00000-of-00002.safetensors    likewise, for resuming; with state.json as in every checkpoint
    shards.json                         for each tensor: its shape, and the rows in each file
    diptych.json                        as in every checkpoint: the SHA-256 of each of these files

The processes communicate through files in one temporary folder, which all of them must see: a background thread must
not use the collectives that training uses meanwhile. Each leaves a report. The first process waits for all of them,
writes the table and the manifest, flushes, and gives the folder its name.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from diptych.atomic import put_in_place, sync_folder
from diptych.errors import CheckpointError
from diptych.weights.checkpoint import (
    STATE_VALUES,
    Description,
    in_precision,
    read_manifest,
    refuse_not_finite,
    write_manifest,
)
from diptych.weights.folders import Json, Progress, read_json, write_json, write_tensors
from diptych.weights.pieces import TABLE, Rows, describe_pieces, join_tables

_PAUSE = 0.05  # seconds between two checks of the other processes


@dataclass(frozen=True)
class Place:
    """The rank of this process among those that write one checkpoint.

    session: equal in all of them, and different at every start of the run, so that files of a killed run are not
        mistaken for present ones. Letters and digits.
    seconds: the time to wait for the others.
    """

    rank: int
    size: int
    session: str
    seconds: float = 600.0


@dataclass(frozen=True)
class ShardedState:
    """This process's part of the training state. values: JSON; those of the first process are written."""

    tensors: Mapping[str, Rows]
    values: Mapping[str, Any]


def local_rows(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Rows]:
    """Return the rows that process `rank` saves of tensors that `fully_shard` has cut along their first dimension.

    A tensor that is equal in every process is saved by process 0 alone. Raises `CheckpointError` for one that is cut
    in another way.
    """
    pieces = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            whole = tensor.detach()
        elif all(isinstance(placement, Replicate) for placement in tensor.placements):
            whole = tensor.to_local().detach()
        else:
            pieces[name] = _cut(name, tensor)
            continue
        if rank == 0:
            pieces[name] = Rows(whole, 0, tuple(tensor.shape))
    return pieces


def _cut(name: str, tensor: DTensor) -> Rows:
    local = tensor.to_local().detach()
    mesh, count = tensor.device_mesh, tensor.shape[0]
    # torch.chunk cuts equal parts, then a smaller one, and then none.
    part = -(-count // mesh.size())
    first = min(part * mesh.get_local_rank(), count) if mesh.ndim == 1 else 0
    if tensor.placements != (Shard(0),) or local.shape[0] != min(part, count - first):
        raise CheckpointError(
            f"tensor {name!r} is placed as {tensor.placements} on {mesh}; expected it to be cut along the first "
            "dimension over one dimension of processes"
        )
    return Rows(local, first, tuple(tensor.shape))


def write_sharded(
    folder: str | os.PathLike[str],
    place: Place,
    weights: Mapping[str, Rows],
    description: Description,
    state: ShardedState | None = None,
    *,
    progress: Progress | None = None,
) -> Path:
    """Write this process's part of a checkpoint, and return when the whole checkpoint is complete.

    Every process calls this with the same `folder`, `description` and session. progress: called after each block and
    while the process waits; an error that it raises ends the wait.

    Raises `CheckpointError` if another process fails, or does not finish in time; `folder` is then unchanged.
    """
    target = Path(folder)
    work = target.with_name(f".{target.name}.{place.session}.tmp")
    work.mkdir(parents=True, exist_ok=True)
    told = False
    try:
        parts = {"model": _stored(weights, description)}
        if state is not None:
            parts["state"] = dict(state.tensors)
        for pieces in parts.values():
            refuse_not_finite({name: rows.values for name, rows in pieces.items()}, target)
        report = _write_part(work, place, parts, progress)
        _tell(_report(work, place.rank), json.dumps(report))
        told = True
        if place.rank == 0:
            reports = _everybodys(work, place, progress)
            _complete(work, reports, description, state)
            put_in_place(work, target)
        else:
            _wait(
                lambda: not work.exists(), work, place, progress, "process 0 has not completed the checkpoint"
            )
            _check_is_there(target, report["sha256"])
    except BaseException as error:
        if place.rank == 0 or not told or _has_failed(work, place):
            _give_up(work, place, error)
        # Else the first process may be joining the parts, this one's among them.
        raise
    return target


def _stored(weights: Mapping[str, Rows], description: Description) -> dict[str, Rows]:
    return {
        name: replace(rows, values=in_precision(rows.values, description.precision))
        for name, rows in weights.items()
    }


def _write_part(
    work: Path, place: Place, parts: Mapping[str, Mapping[str, Rows]], progress: Progress | None
) -> Json:
    """Write this process's files. Returns the report for the first process."""
    sha256, tables = {}, {}
    for part, pieces in parts.items():
        file = _part_name(part, place)
        values = {name: rows.values for name, rows in pieces.items()}
        sha256[file] = write_tensors(work / file, values, progress=progress)
        tables[part] = describe_pieces(pieces, file)
    return {"sha256": sha256, "tables": tables}


def _complete(work: Path, reports: list[Json], description: Description, state: ShardedState | None) -> None:
    """Write the table, the values and the manifest."""
    sha256 = {file: digest for report in reports for file, digest in report["sha256"].items()}
    parts = reports[0]["tables"]
    table = {part: join_tables(report["tables"][part] for report in reports) for part in parts}
    sha256[TABLE] = write_json(work / TABLE, table)
    if state is not None:
        sha256[STATE_VALUES] = write_json(work / STATE_VALUES, state.values, allow_nan=True)
    for rank in range(len(reports)):
        _report(work, rank).unlink()
    write_manifest(work, description, sha256)
    os.chmod(work, 0o755)
    sync_folder(work)


def _everybodys(work: Path, place: Place, progress: Progress | None) -> list[Json]:
    """Wait for the reports of all processes, and return them in order."""
    for rank in range(place.size):
        message = f"process {rank} of {place.size} has not written its part"
        _wait(lambda rank=rank: _report(work, rank).exists(), work, place, progress, message)  # type: ignore[misc]
    return [read_json(_report(work, rank)) for rank in range(place.size)]


def _wait(
    done: Callable[[], bool], work: Path, place: Place, progress: Progress | None, message: str
) -> None:
    """Wait until `done()`. Raises `CheckpointError` if another process has given up, or the time is over."""
    end = time.monotonic() + place.seconds
    while not done():
        for rank in range(place.size):
            _refuse_failed(work, rank)
        if time.monotonic() > end:
            raise CheckpointError(
                f"{work}: {message} within {place.seconds:g} seconds; earlier checkpoints are unchanged. All "
                "processes must see this folder: put the run on a disk that they share"
            )
        if progress is not None:
            progress(0)
        time.sleep(_PAUSE)


def _refuse_failed(work: Path, rank: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        message = _failure(work, rank).read_text("utf-8")
        raise CheckpointError(f"process {rank} could not save its part of the checkpoint: {message}")


def _check_is_there(target: Path, sha256: Mapping[str, str]) -> None:
    if not sha256.items() <= read_manifest(target).sha256.items():
        raise CheckpointError(
            f"{target}: holds another checkpoint than the one that was just written; check that only one run uses it"
        )


def _has_failed(work: Path, place: Place) -> bool:
    """Return whether some process has given up, so that the checkpoint will not be completed."""
    return any(_failure(work, rank).exists() for rank in range(place.size))


def _give_up(work: Path, place: Place, error: BaseException) -> None:
    """Free the disk, and tell the others. If not even that can be written, they stop when the time is over."""
    with contextlib.suppress(OSError):
        for part in ("model", "state"):
            (work / _part_name(part, place)).unlink(missing_ok=True)
        if work.exists():
            _tell(_failure(work, place.rank), str(error) or type(error).__name__)


def _tell(message: Path, text: str) -> None:
    """Leave a message, whole or not at all, for processes that are running.

    The rename comes last. Nothing waits for the disk: once the others have read the message, they may rename its
    folder.
    """
    draft = message.with_suffix(".draft")
    draft.write_bytes(text.encode())
    os.replace(draft, message)


def _report(work: Path, rank: int) -> Path:
    return work / f"part-{rank}.json"


def _failure(work: Path, rank: int) -> Path:
    return work / f"failed-{rank}.txt"


def _part_name(part: str, place: Place) -> str:
    return f"{part}-{place.rank:05d}-of-{place.size:05d}.safetensors"
