"""Positives by caption, by image and by either, against slow loops and across processes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from diptych.data.batch import Batch
from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs
from diptych.training.engine import train
from diptych.training.planning.forecast import made_up_batch
from diptych.training.positives import joined_groups, with_positives
from tests.processes import run_processes
from tests.training.test_engine import lines, tiny

CPU = torch.device("cpu")


def slow_groups(one: list[int], other: list[int]) -> list[int]:
    """Each row's component: walk from row to row while anything is equal."""
    found = []
    for start in range(len(one)):
        seen, left = set(), [start]
        while left:
            row = left.pop()
            if row not in seen:
                seen.add(row)
                left += [
                    near for near in range(len(one)) if one[near] == one[row] or other[near] == other[row]
                ]
        found.append(min(seen))
    return found


def batch_of(captions: list[int], images: list[int]) -> Batch:
    rows = len(captions)
    batch = made_up_batch(torch.zeros(rows, 3, 4, 4, dtype=torch.uint8), torch.zeros(rows, 2), CPU)
    return replace(batch, groups=torch.tensor(captions), images=torch.tensor(images))


@pytest.mark.parametrize("seed", range(20))
def test_groups_joined_by_chains_equal_a_slow_walk(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = 5 + 3 * seed
    one = torch.randint(-(2**62), 2**62, (rows,), generator=generator)[
        torch.randint(rows, (rows,), generator=generator)
    ]
    other = torch.randint(rows, (rows,), generator=generator)
    assert joined_groups(one, other).tolist() == slow_groups(one.tolist(), other.tolist())


def test_a_chain_through_all_rows_is_one_group() -> None:
    rows = torch.arange(2_000)
    order = torch.randperm(2_000, generator=torch.Generator().manual_seed(0))
    assert joined_groups((rows // 2)[order], ((rows + 1) // 2)[order]).tolist() == [0] * 2_000


def test_each_kind_of_positives_has_its_groups() -> None:
    batch = batch_of([7, 7, 8, 9, 9], [1, 2, 1, 3, 4])
    found = {
        kind: with_positives(batch, kind, CPU).groups.tolist()
        for kind in ("pair", "caption", "image", "caption-or-image")
    }
    assert found == {
        "pair": [7, 7, 8, 9, 9],
        "caption": [7, 7, 8, 9, 9],
        "image": [1, 2, 1, 3, 4],
        "caption-or-image": [0, 0, 0, 3, 3],
    }


def test_captions_of_one_image_are_no_wrong_answers_in_the_loss() -> None:
    """Against a loop over rows, with a uniform target over the right answers."""
    generator = torch.Generator().manual_seed(0)
    batch = batch_of([1, 2, 3, 2, 4, 5], [1, 1, 2, 3, 2, 4])
    left, right = (
        torch.nn.functional.normalize(torch.randn(6, 4, generator=generator, dtype=torch.float64), dim=1)
        for _ in range(2)
    )

    def slow(right_rows: list[list[int]]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for queries, gallery in ((left, right), (right, left)):
            for row, answers in enumerate(right_rows):
                surprise = -torch.log_softmax(10 * gallery @ queries[row], dim=0)
                total += torch.stack([surprise[answer] for answer in answers]).mean() / 2
        return total

    scale = torch.tensor(10.0, dtype=torch.float64)
    by_image = [[0, 1], [0, 1], [2, 4], [3], [2, 4], [5]]
    by_either = [[0, 1, 3], [0, 1, 3], [2, 4], [0, 1, 3], [2, 4], [5]]
    for kind, answers in (("image", by_image), ("caption-or-image", by_either)):
        groups = with_positives(batch, kind, CPU).groups  # type: ignore[arg-type]
        loss, count = infonce(Pairs.whole(left, right, groups), scale)
        assert count == 6
        torch.testing.assert_close(loss, slow(answers))


CAPTIONS = [5, 1, 2, 3, 3, 9, 1]
IMAGES = [4, 4, 6, 6, 7, 8, 9]

_ONE_OF_SEVERAL = """
import json
import sys
import torch
from dataclasses import replace
from pathlib import Path
from diptych.distributed import processes, share
from diptych.training.planning.forecast import made_up_batch
from diptych.training.positives import with_positives
with processes("cpu") as here:
    mine = share({rows}, here.rank, here.size)
    pictures = torch.zeros(len(mine), 3, 4, 4, dtype=torch.uint8)
    batch = replace(
        made_up_batch(pictures, torch.zeros(len(mine), 2), torch.device("cpu")),
        groups=torch.tensor({captions})[mine.start : mine.stop],
        images=torch.tensor({images})[mine.start : mine.stop],
    )
    groups = with_positives(batch, "caption-or-image", torch.device("cpu")).groups
    Path(sys.argv[1], str(here.rank)).write_text(json.dumps(groups.tolist()))
"""


def test_groups_are_joined_across_processes_with_uneven_shares(tmp_path: Path) -> None:
    script = _ONE_OF_SEVERAL.format(rows=len(IMAGES), captions=CAPTIONS, images=IMAGES)
    for code, _, errors in run_processes(2, ["-c", script, str(tmp_path)]):
        assert code == 0, errors
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    assert [len(part) for part in found] == [4, 3]
    assert [*found[0], *found[1]] == slow_groups(CAPTIONS, IMAGES) == [0, 0, 2, 2, 2, 5, 0]


def test_a_run_takes_rows_of_one_image_as_positives(tmp_path: Path) -> None:
    """Every row shows the same image and has its own caption: by image and by either, every text is right."""
    for number in range(8):
        Image.new("RGB", (32, 32), "red").save(tmp_path / f"{number}.png")
    table = tmp_path / "t.csv"
    table.write_text("image,caption\n" + "\n".join(f"{row % 8}.png,word {row}" for row in range(16)) + "\n")

    def losses(positives: str) -> list[float]:
        run = tmp_path / positives
        train(tiny(32, f"data.train={str(table)!r}", f"objective.positives={positives}"), run)
        return [line["loss"] for line in lines(run)]

    pair, image, either = map(losses, ("pair", "image", "caption-or-image"))
    assert pair != image
    assert image == either
