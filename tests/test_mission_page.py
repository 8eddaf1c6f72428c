"""docs/mission.md: its form, and the errata that can be checked by arithmetic."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.models.architectures import PUBLISHED, VisionTransformer
from diptych.models.building import build_model
from diptych.models.text_transformer import TextTransformer
from diptych.tokenizer import Tokenizer
from diptych.weights.foreign.published import FILES

PAGE = (Path(__file__).parents[1] / "docs" / "mission.md").read_text("utf-8")
STATES = {"Built", "Planned", "Erratum", "Figure", "Background"}

# As the first document prints them.
PRINTED_HASHES = {
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4": "7e526bd135e493cef0776de27d5f42653e6b4c0bf9e0f653bb11773263205fdd",
    "RN50x16": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    "ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B/16": "5806e77cd0f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L/14": "b8cca3fd41ae0c99ba7e8951adf17d267cd888be6f7c2e0eca1737a03836",
}
# The caption that the slides give as an example.
EXAMPLE_CAPTION = (
    "A vibrant street scene in New York City, bustling with pedestrians crossing the street and yellow cabs "
    "navigating through the traffic. The image captures the dynamic urban life amid the backdrop of towering "
    "skyscrapers under a partly cloudy sky, epitomizing the bustling energy of the city that never sleeps."
)


def rows() -> list[list[str]]:
    """The cells of every row of every table of claims."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| claim")]
    return [[cell.strip() for cell in re.split(r"(?<!\|)\|(?!\|)", line.strip("|"))] for line in lines]


def test_every_claim_has_a_state_and_a_place() -> None:
    assert len(rows()) > 100
    for cells in rows():
        assert len(cells) == 3, cells
        states = set(re.split(r"[,/] *| ", cells[1])) - {""}
        assert states <= STATES, cells
        assert cells[2] or states <= {"Background", "Planned", "Figure"}, cells


def test_what_is_built_names_a_file_unless_it_points_to_another_row() -> None:
    for claim, state, where in rows():
        if state == "Built":
            assert "/" in where or where.startswith(("as above", "the same")), claim


def test_three_printed_hashes_are_damaged_and_five_are_right() -> None:
    damaged = {name for name, printed in PRINTED_HASHES.items() if printed != FILES[name].sha256}
    assert damaged == {"RN50x4", "ViT-B/16", "ViT-L/14"}
    assert {name: len(PRINTED_HASHES[name]) for name in damaged} == {
        "RN50x4": 64,
        "ViT-B/16": 63,
        "ViT-L/14": 60,
    }
    assert all(name in PRINTED_HASHES for name in FILES if name != "ViT-L/14@336px")
    for quoted in ("6b4c0bf9", "7cd0f8b", "7cd888be6"):
        assert quoted in PAGE
        assert any(quoted in printed for printed in PRINTED_HASHES.values())
    for right in ("6b4c8bf9", "7cd80f8b", "7cdb84cd88be6"):
        assert right in PAGE
        assert any(right in file.sha256 for file in FILES.values())


def test_the_towers_have_the_parameters_that_the_page_says() -> None:
    with torch.device("meta"):
        base, large = build_model(PUBLISHED["ViT-B/16"]), build_model(PUBLISHED["ViT-L/14"])
    assert isinstance(base.text, TextTransformer)
    projection = base.text.text_projection
    assert isinstance(projection, torch.nn.Parameter)
    text = sum(parameter.numel() for parameter in base.text.parameters()) - projection.numel()
    assert text == 63_165_952
    assert "63,165,952" in PAGE
    towers = [
        sum(parameter.numel() for parameter in model.visual.parameters()) / 1e6 for model in (base, large)
    ]
    assert "86.2 M (ViT-B/16) and 304.0 M (ViT-L/14)" in PAGE
    assert [round(tower, 1) for tower in towers] == [86.2, 304.0]


@pytest.mark.parametrize(
    ("name", "numbers", "width"), [("ViT-B/32", 3072, 768), ("ViT-B/16", 768, 768), ("ViT-L/14", 588, 1024)]
)
def test_a_patch_is_not_always_projected_to_fewer_numbers(name: str, numbers: int, width: int) -> None:
    image = PUBLISHED[name].image
    assert isinstance(image, VisionTransformer)
    assert (3 * image.patch**2, image.width) == (numbers, width)


def test_the_example_caption_fits_the_context() -> None:
    assert len(Tokenizer().encode(EXAMPLE_CAPTION)) == 59
    assert "59 tokens" in PAGE


def test_the_printed_attention_rows_sum_to_one_but_are_not_causal() -> None:
    matrix = np.array(
        [[0.8, 0.1, 0.05, 0.05], [0.1, 0.6, 0.2, 0.1], [0.05, 0.2, 0.65, 0.1], [0.2, 0.1, 0.1, 0.6]]
    )
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert np.triu(matrix, k=1).any()


def test_the_printed_differences_under_shift_add_up() -> None:
    supervised = np.array([76.2, 64.3, 37.7, 32.6, 25.2, 2.7])
    zero_shot = np.array([76.2, 70.1, 88.9, 72.3, 60.2, 77.1])
    np.testing.assert_allclose(zero_shot - supervised, [0, 5.8, 51.2, 39.7, 35.0, 74.4], atol=1e-9)
    for values in (supervised, zero_shot):
        assert " / ".join(map(str, values)) in PAGE
