"""Checkpoints written by several processes: what is read is the whole, or nothing."""

import errno
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

import diptych
from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.weights import sharded
from diptych.weights.checkpoint import (
    Description,
    in_precision,
    load_checkpoint,
    load_state,
    save_checkpoint,
    verify_checkpoint,
)
from diptych.weights.folders import write_tensors
from diptych.weights.pieces import PiecedFile, Rows
from diptych.weights.sharded import Place, ShardedState, local_rows, write_sharded
from tests.processes import run_processes
from tests.weights.small_clip import same_weights

TINY = Architecture(
    embed_dim=5,
    image=VisionTransformer(resolution=16, patch=8, width=32, layers=1, heads=1),
    text=TextTransformer(width=16, layers=1, heads=1, vocab_size=50, context_length=4),
)
DESCRIPTION = Description(architecture=config.plain(TINY), preprocessing=config.plain(Preprocess(16)))


def tiny_model(seed: int = 0) -> ImageModel:
    torch.manual_seed(seed)
    return build_model(TINY).eval()


def moments(model: ImageModel) -> dict[str, Tensor]:
    return {f"exp_avg.{name}": value.to(torch.bfloat16) * 3 for name, value in model.state_dict().items()}


def cut(tensors: Mapping[str, Tensor], rank: int, size: int) -> dict[str, Rows]:
    """What `fully_shard` leaves with a process: torch.chunk, with empty parts for the last processes."""
    pieces = {}
    for name, tensor in tensors.items():
        if not tensor.ndim:
            if rank == 0:
                pieces[name] = Rows(tensor, 0, ())
            continue
        parts = [*tensor.chunk(size), *[tensor[:0]] * size][:size]
        first = sum(len(part) for part in parts[:rank])
        pieces[name] = Rows(parts[rank], first, tuple(tensor.shape))
    return pieces


def write_together(
    folder: Path, size: int, seed: int = 0, session: str = "a", seconds: float = 60
) -> list[object]:
    """Every process's part, each in a thread of its own; what each came to."""
    model = tiny_model(seed)

    def write(rank: int) -> object:
        state = ShardedState(cut(moments(model), rank, size), {"step": seed})
        place = Place(rank, size, session, seconds)
        try:
            return write_sharded(folder, place, cut(model.state_dict(), rank, size), DESCRIPTION, state)
        except (CheckpointError, OSError) as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(write, range(size)))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_parts_of_any_number_of_processes_are_read_as_one_model(tmp_path: Path, size: int) -> None:
    folder = tmp_path / "step"
    assert write_together(folder, size) == [folder] * size
    names = {
        f"{part}-{rank:05d}-of-{size:05d}.safetensors" for part in ("model", "state") for rank in range(size)
    }
    assert set(os.listdir(folder)) == {*names, "diptych.json", "shards.json", "state.json"}
    assert os.listdir(tmp_path) == ["step"]
    model, preprocess = diptych.load(folder, device="cpu")
    assert same_weights(model, tiny_model())
    assert preprocess.resolution == 16
    tensors, values = load_state(folder)
    expected = moments(tiny_model())
    assert values == {"step": 0}
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert all(tensors[name].dtype == torch.bfloat16 for name in expected)


def test_a_checkpoint_in_parts_replaces_a_whole_one_and_the_other_way_round(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    save_checkpoint(folder, tiny_model(1), config.plain(Preprocess(16)))
    write_together(folder, 2, seed=2)
    assert same_weights(load_checkpoint(folder)[0], tiny_model(2))
    save_checkpoint(folder, tiny_model(3), config.plain(Preprocess(16)))
    assert same_weights(load_checkpoint(folder)[0], tiny_model(3))
    assert os.listdir(tmp_path) == ["step"]


def test_a_process_that_does_not_come_is_named_and_the_older_checkpoint_stays(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    write_together(folder, 2, seed=1)
    model = tiny_model(2)
    with pytest.raises(CheckpointError, match=r"process 1 of 2 has not written its part within 0\.2 seconds"):
        write_sharded(folder, Place(0, 2, "b", 0.2), cut(model.state_dict(), 0, 2), DESCRIPTION)
    with pytest.raises(CheckpointError, match="process 0"):
        write_sharded(folder, Place(1, 2, "c", 0.2), cut(model.state_dict(), 1, 2), DESCRIPTION)
    assert same_weights(load_checkpoint(folder)[0], tiny_model(1))


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_full_disk_of_one_process_is_an_error_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    folder = tmp_path / "step"
    write_together(folder, 3, seed=1)

    def full(path: Path, *args: object, **options: object) -> str:
        if f"state-{broken:05d}" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_tensors(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sharded, "write_tensors", full)
    endings = write_together(folder, 3, seed=2, session="b")
    assert isinstance(endings[broken], OSError)
    for rank in {0, 1, 2} - {broken}:
        assert isinstance(endings[rank], CheckpointError)
        assert "No space left" in str(endings[rank])
    assert same_weights(load_checkpoint(folder)[0], tiny_model(1))
    # Room is made at once: no tensors are left in the temporary folder.
    assert not list(tmp_path.glob(".*/*.safetensors"))


def test_what_a_killed_run_has_left_is_not_taken_for_what_is_written_now(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    with pytest.raises(CheckpointError, match="process 0"):
        write_sharded(folder, Place(1, 2, "a", 0.01), cut(tiny_model(1).state_dict(), 1, 2), DESCRIPTION)
    # As a kill leaves it: the part, and no word of a failure.
    assert sorted(os.listdir(tmp_path / ".step.a.tmp")) == ["model-00001-of-00002.safetensors", "part-1.json"]
    write_together(folder, 2, seed=2, session="b")
    assert same_weights(load_checkpoint(folder)[0], tiny_model(2))


def test_the_session_is_what_keeps_two_attempts_apart(tmp_path: Path) -> None:
    """The broken twin of the test above: with the same session, the first process takes the stale part."""
    folder = tmp_path / "step"
    with pytest.raises(CheckpointError):
        write_sharded(folder, Place(1, 2, "a", 0.01), cut(tiny_model(1).state_dict(), 1, 2), DESCRIPTION)
    write_sharded(folder, Place(0, 2, "a", 1), cut(tiny_model(2).state_dict(), 0, 2), DESCRIPTION)
    mixed, _, _ = load_checkpoint(folder)
    assert not same_weights(mixed, tiny_model(2))


def test_not_a_number_in_one_part_ends_the_save_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "step"

    def poisoned(tensor: Tensor, precision: str) -> Tensor:
        return in_precision(tensor, "float32") / (0.0 if tensor.shape[:1] == (1,) else 1.0)

    monkeypatch.setattr(sharded, "in_precision", poisoned)
    endings = write_together(folder, 3)
    assert all("NaN or infinity" in str(error) for error in endings)
    assert not folder.exists()


ONE = torch.arange(6.0).view(3, 2)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([("a", 0, 2), ("b", 2, 2)], "does not fit"),  # one row more than there are
        ([("a", 0, 2)], "rows 2 to 3 are in no file"),
        ([("b", 2, 1)], "does not fit"),  # the first rows are missing
        ([("a", 0, 2), ("a", 0, 2)], "does not fit"),  # twice
        ([("a", 0, 2), ("c", 2, 1)], r"float64, another file in torch\.float32"),
        ([("a", 0, 2), ("d", 2, 1)], "'d'"),  # no such file
    ],
)
def test_a_table_that_does_not_cover_a_tensor_once_is_refused(
    tmp_path: Path, pieces: list[tuple[str, int, int]], message: str
) -> None:
    for name, tensor in {"a": ONE[:2], "b": ONE[2:], "c": ONE[2:].double()}.items():
        write_tensors(tmp_path / name, {"x": tensor})
    paths = {name: tmp_path / name for name in "abc"}
    table = {
        "x": [{"file": file, "first": first, "rows": rows, "shape": [3, 2]} for file, first, rows in pieces]
    }
    with pytest.raises(CheckpointError, match=message):
        PiecedFile(table, paths, "shards.json")
    table["x"] = [
        {"file": file, "first": 2 * at, "rows": 2 - at, "shape": [3, 2]} for at, file in enumerate("ab")
    ]
    assert torch.equal(PiecedFile(table, paths, "shards.json").read("x"), ONE)


def test_a_missing_or_damaged_part_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    write_together(folder, 2)
    part = folder / "model-00001-of-00002.safetensors"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors: SHA-256"):
        load_checkpoint(folder)
    part.unlink()
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors: is missing"):
        verify_checkpoint(folder)


def test_tensors_that_every_process_has_alike_are_written_once() -> None:
    tensors = {"scale": torch.tensor(2.0), "bias": torch.ones(3)}
    assert local_rows(tensors, 0).keys() == tensors.keys()
    assert local_rows(tensors, 1) == {}


SCRIPT = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from diptych.errors import CheckpointError
from diptych.weights.sharded import Place, ShardedState, local_rows, write_sharded
from tests.weights.test_sharded import DESCRIPTION, tiny_model

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
mesh = init_device_mesh("cpu", (size,))
model = tiny_model(4)
for tower in (model.visual, model.text):
    fully_shard(tower, mesh=mesh)
weights = model.state_dict()
state = {f"exp_avg.{name}": value * 2 for name, value in weights.items()}
write_sharded(
    Path(sys.argv[1]), Place(rank, size, "a", 60), local_rows(weights, rank), DESCRIPTION,
    ShardedState(local_rows(state, rank), {"step": 4}),
)
empty = any(rows.values.shape[:1] == (0,) for rows in local_rows(weights, rank).values())
try:
    local_rows({"x": distribute_tensor(torch.ones(6, 6), mesh, [Shard(1)])}, rank)
    print("accepted")
except CheckpointError as error:
    print("empty" if empty else "full", "refused" if "'x'" in str(error) else error)
dist.barrier()
dist.destroy_process_group()
"""


def test_three_processes_with_fully_sharded_towers_save_what_one_process_reads(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    ended = run_processes(3, ["-c", SCRIPT, str(folder)])
    assert [code for code, _, _ in ended] == [0, 0, 0], ended
    # Four positions over three processes are two, two and none.
    assert [output.strip() for _, output, _ in ended] == ["full refused", "full refused", "empty refused"]
    assert same_weights(load_checkpoint(folder)[0], tiny_model(4))
    tensors, values = load_state(folder)
    assert values["step"] == 4
    expected = tiny_model(4).state_dict()
    assert all(torch.equal(tensors[f"exp_avg.{name}"], value * 2) for name, value in expected.items())
