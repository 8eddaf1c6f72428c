"""What the background thread saves, deletes and says."""

import errno
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.config import plain
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.training.saving import saver as saver_module
from diptych.training.saving.layout import checkpoint_folder, checkpoints
from diptych.training.saving.saver import Saver, Snapshot
from diptych.weights.checkpoint import (
    Description,
    TrainingState,
    load_checkpoint,
    load_state,
    verify_checkpoint,
    write_checkpoint,
)
from diptych.weights.sharded import Place

TINY = Architecture(
    embed_dim=8,
    image=VisionTransformer(resolution=16, patch=8, width=32, layers=1, heads=1),
    text=TextTransformer(width=16, layers=1, heads=1, vocab_size=50, context_length=6),
)


def model(seed: int = 0) -> ImageModel:
    torch.manual_seed(seed)
    return build_model(TINY)


def snapshot(of: ImageModel, step: int) -> Snapshot:
    return Snapshot(
        weights=of.state_dict(),
        description=Description(architecture=plain(TINY), preprocessing=plain(Preprocess(16))),
        state=TrainingState({"exp_avg.logit_scale": torch.tensor(float(step))}, {"step": step}),
    )


def saved(run: Path, *steps: int) -> None:
    with Saver(run, 10) as saver:
        for step in steps:
            saver.save(checkpoint_folder(run, step), snapshot(model(step), step))


def steps(run: Path) -> list[int]:
    return [int(folder.name[-8:]) for folder in checkpoints(run)]


def damage(folder: Path) -> None:
    file = folder / "model.safetensors"
    contents = bytearray(file.read_bytes())
    contents[-1] ^= 1
    file.unlink()
    file.write_bytes(contents)


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class Gate:
    """Holds back the writing until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.reached = threading.Event()

        def held(folder: Path, weights: Any, description: Any, state: Any, progress: Any) -> Path:
            self.reached.set()
            while not self.opened.wait(0.01):
                progress(0)
            return write_checkpoint(folder, weights, description, state, progress)

        monkeypatch.setattr(saver_module, "write_checkpoint", held)


def weights_after_training_went_on(run: Path, gate: Gate) -> tuple[torch.Tensor, torch.Tensor]:
    """One weight as it was when `save` was called, and as it was saved."""
    trained = model()
    before = trained.logit_scale.detach().clone()
    with Saver(run, 2) as saver:
        saver.save(checkpoint_folder(run, 1), snapshot(trained, 1))
        with torch.no_grad():
            trained.logit_scale.add_(1)
        gate.opened.set()
    return before, load_checkpoint(checkpoint_folder(run, 1))[0].logit_scale.detach()


def test_training_may_go_on_while_the_state_at_the_call_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = weights_after_training_went_on(tmp_path, Gate(monkeypatch))
    assert torch.equal(before, after)
    assert load_state(checkpoint_folder(tmp_path, 1))[1] == {"step": 1}


def test_a_snapshot_that_is_no_copy_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin of the test above."""
    monkeypatch.setattr(saver_module, "_copied", lambda tensor: tensor.detach())
    before, after = weights_after_training_went_on(tmp_path, Gate(monkeypatch))
    assert not torch.equal(before, after)


def test_a_save_waits_for_the_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with Saver(tmp_path, 2) as saver:
        saver.save(checkpoint_folder(tmp_path, 1), snapshot(model(), 1))
        gate.reached.wait()
        second = threading.Thread(
            target=saver.save, args=(checkpoint_folder(tmp_path, 2), snapshot(model(), 2))
        )
        second.start()
        second.join(0.05)
        assert second.is_alive()
        gate.opened.set()
        second.join()
        assert steps(tmp_path)[0] == 1
    assert steps(tmp_path) == [1, 2]


def test_a_failed_save_is_told_at_the_next_one_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    monkeypatch.setattr(saver_module, "write_checkpoint", full_disk)
    last = checkpoint_folder(tmp_path, 1)
    message = (
        f"disk full .* MB are free; the last good checkpoint is {last}: free at least [0-9]+ MB, then go on"
    )
    saver = Saver(tmp_path, 2)
    saver.save(checkpoint_folder(tmp_path, 2), snapshot(model(), 2))
    with pytest.raises(CheckpointError, match=message):
        saver.save(checkpoint_folder(tmp_path, 3), snapshot(model(), 3))
    saver.save(checkpoint_folder(tmp_path, 3), snapshot(model(), 3))
    with pytest.raises(CheckpointError, match=message):
        saver.close()
    verify_checkpoint(last)
    assert steps(tmp_path) == [1]


def test_the_first_save_of_all_that_fails_says_that_there_is_no_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver_module, "write_checkpoint", full_disk)
    with pytest.raises(CheckpointError, match="there is no earlier checkpoint"), Saver(tmp_path, 2) as saver:
        saver.save(checkpoint_folder(tmp_path, 1), snapshot(model(), 1))


def test_only_whole_checkpoints_count_among_those_that_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 4)
    damage(checkpoint_folder(tmp_path, 3))
    damage(checkpoint_folder(tmp_path, 4))
    with Saver(tmp_path, 2) as saver:
        saver.save(checkpoint_folder(tmp_path, 5), snapshot(model(5), 5))
    # 5 and 2 are the newest two whole ones; keeping the newest two by number would have left 5 alone.
    assert steps(tmp_path) == [2, 3, 4, 5]
    with Saver(tmp_path, 2) as saver:
        saver.save(checkpoint_folder(tmp_path, 6), snapshot(model(6), 6))
    assert steps(tmp_path) == [5, 6]


def test_what_does_not_read_back_as_it_was_meant_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1, 2)

    def bad_disk(folder: Path, *rest: Any) -> Path:
        write_checkpoint(folder, *rest)
        damage(folder)
        return folder

    monkeypatch.setattr(saver_module, "write_checkpoint", bad_disk)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: SHA-256 is"), Saver(tmp_path, 2) as saver:
        saver.save(checkpoint_folder(tmp_path, 3), snapshot(model(3), 3))
    verify_checkpoint(checkpoint_folder(tmp_path, 1))
    verify_checkpoint(checkpoint_folder(tmp_path, 2))


def test_not_a_number_is_never_saved(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    broken = model()
    with torch.no_grad():
        broken.logit_scale.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="'logit_scale' holds NaN"), Saver(tmp_path, 2) as saver:
        saver.save(checkpoint_folder(tmp_path, 2), snapshot(broken, 2))
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("lost", [None, "diptych.json"])
def test_a_damaged_checkpoint_of_the_same_step_makes_way(tmp_path: Path, lost: str | None) -> None:
    saved(tmp_path, 1, 2)
    folder = checkpoint_folder(tmp_path, 2)
    damage(folder) if lost is None else (folder / lost).unlink()
    saved(tmp_path, 2)
    assert steps(tmp_path) == [1, 2]
    verify_checkpoint(folder)


def end_with(error: BaseException, run: Path, step: int, gate: Gate | None = None) -> None:
    """A run that ends with an error while a save is under way."""
    with Saver(run, 2) as saver:
        saver.save(checkpoint_folder(run, step), snapshot(model(), step))
        if gate is not None:
            gate.reached.wait()
        raise error


def test_an_interrupt_abandons_the_save_and_leaves_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    # The gate is never opened: the writing would go on for ever.
    with pytest.raises(KeyboardInterrupt):
        end_with(KeyboardInterrupt(), tmp_path, 2, Gate(monkeypatch))
    assert steps(tmp_path) == [1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("save")]


def test_another_error_lets_the_save_end_and_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZeroDivisionError):
        end_with(ZeroDivisionError(), tmp_path, 1)
    assert steps(tmp_path) == [1]
    monkeypatch.setattr(saver_module, "write_checkpoint", full_disk)
    with pytest.raises(ZeroDivisionError) as caught:
        end_with(ZeroDivisionError(), tmp_path, 2)
    assert "besides, the last save failed" in caught.value.__notes__[0]


def test_a_start_sweeps_what_kills_have_left(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for name in ("checkpoints/.step-00000002.x.tmp", "checkpoints/.step-00000001.doomed.tmp", ".model.y.tmp"):
        shutil.copytree(checkpoint_folder(tmp_path, 1), tmp_path / name)
    with Saver(tmp_path, 2):
        pass
    assert os.listdir(tmp_path) == ["checkpoints"]
    assert steps(tmp_path) == [1]
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000001"]


def test_a_start_deletes_what_a_killed_save_had_not_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1, 2, 3, 4)
    damage(checkpoint_folder(tmp_path, 3))
    with Saver(tmp_path, 2):
        pass
    assert steps(tmp_path) == [2, 3, 4]
    # No more than are kept: they are not even read.
    read: list[Path] = []
    monkeypatch.setattr(saver_module, "verify_checkpoint", lambda folder, _: read.append(folder))
    with Saver(tmp_path, 3):
        pass
    assert (steps(tmp_path), read) == ([2, 3, 4], [])


def test_only_the_first_of_several_processes_deletes_at_a_start(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    with Saver(tmp_path, 2, Place(1, 2, "session", 30)):
        assert steps(tmp_path) == [1, 2, 3]
    with Saver(tmp_path, 2, Place(0, 2, "session", 30)):
        assert steps(tmp_path) == [2, 3]


def test_every_process_of_several_saves_its_part_and_the_first_one_deletes(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    savers = [Saver(tmp_path, 2, Place(rank, 2, "session", 30)) for rank in range(2)]
    for saver in savers:
        saver.save(checkpoint_folder(tmp_path, 3), snapshot(model(3), 3))
    for saver in savers:
        saver.close()
    assert steps(tmp_path) == [2, 3]
    newest = checkpoint_folder(tmp_path, 3)
    assert (newest / "model-00001-of-00002.safetensors").is_file()
    loaded = load_checkpoint(newest)[0].state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model(3).state_dict().items())
    assert load_state(newest)[1] == {"step": 3}
