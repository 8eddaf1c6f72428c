"""The step is exact however the batch is cut and shared, for the approaches with models of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.processes import run_processes
from tests.training.approaches import APPROACHES, gradients, model_of, prepare, reference, trained
from tests.training.gradient_matrix import CHUNKINGS, WAYS

WITHIN = 1e-12  # of a gradient larger than 1, a share of its size
CASES = [(name, chunking) for name, approach in APPROACHES.items() for chunking in approach.chunkings]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("approaches"))


@pytest.fixture(scope="module")
def shared(folder: Path) -> dict[str, Tensor]:
    ended = run_processes(2, ["-m", "tests.training.approaches", str(folder)])
    assert all(code == 0 for code, _, _ in ended), "\n".join(errors for _, _, errors in ended)[-6000:]
    return load_file(folder / "found.safetensors")


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name in found.keys() - expected.keys():
        assert not found[name].any(), f"{name} has a gradient, and none is due"
    for name, value in expected.items():
        difference = (found[name] - value).abs().max().item() / max(1.0, value.abs().max().item())
        assert difference <= WITHIN, f"{name} differs by {difference:.1e}"


@pytest.mark.parametrize(("name", "chunking"), CASES)
def test_chunks_give_the_gradient_of_the_whole_batch(name: str, chunking: str, folder: Path) -> None:
    assert_same(gradients(name, "ddp", CHUNKINGS[chunking], folder), reference(name, folder))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "chunking"), CASES)
def test_two_processes_with_uneven_shares_give_it_too(
    name: str, chunking: str, way: str, folder: Path, shared: dict[str, Tensor]
) -> None:
    key = f"{name}/{way}-{chunking}/"
    found = {name.removeprefix(key): value for name, value in shared.items() if name.startswith(key)}
    assert_same(found, reference(name, folder))


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_take_the_steps_of_lars_that_one_takes_shards_too(
    way: str, folder: Path, shared: dict[str, Tensor]
) -> None:
    expected, begun = trained("ddp", folder), model_of(APPROACHES["simclr"]).state_dict()
    moved = (expected["visual.conv1.weight"] - begun["visual.conv1.weight"]).norm()
    assert moved > 0.01 * begun["visual.conv1.weight"].norm()
    for name, value in expected.items():
        difference = (shared[f"lars/{way}/{name}"] - value).abs().max().item() / max(
            1.0, value.abs().max().item()
        )
        assert difference <= 1e-10, f"{name} differs by {difference:.1e}"
