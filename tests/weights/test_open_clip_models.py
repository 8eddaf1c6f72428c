"""How many of open_clip's configurations and published weights, and of transformers' families, can be read: counted.

The table in docs/models.md has these numbers; the version of open_clip is the one in the constraints file.
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.errors import CheckpointError
from diptych.models.architectures import TextTransformer, VisionTransformer
from diptych.weights.assembly import lay_out
from diptych.weights.foreign.open_clip_config import architecture_of

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
LOADED = "loaded"
ROWS = {
    LOADED: "loaded",
    "vision_cfg.timm_model_name": "an image tower of timm: SigLIP, EVA, ConvNeXt, MobileCLIP, ViTamin, PE",
    "text_cfg.hf_tokenizer_name": "CLIP's towers with another tokenizer: CLIPA, worldwide",
    "text_cfg.hf_model_name": "a text tower of transformers: XLM-R, mT5, NLLB",
    "model_cfg.multimodal_cfg": "CoCa",
}


@pytest.fixture(scope="module")
def configurations(open_clip: Any) -> dict[str, dict[str, Any]]:
    return {name: open_clip.get_model_config(name) for name in open_clip.list_models()}


def reason(configuration: dict[str, Any]) -> str:
    """LOADED, or the key by which the configuration is refused, the towers' before the model's."""
    # A sigmoid's bias alone says nothing of what the towers are.
    towers = {key: value for key, value in configuration.items() if key != "init_logit_bias"}
    try:
        lay_out(architecture_of(towers, "here"))
    except CheckpointError as error:
        key = re.search(r"here: (\w+\.\w+) is ", str(error))
        return str(error) if key is None else key[1]
    return "model_cfg.init_logit_bias" if "init_logit_bias" in configuration else LOADED


def test_the_page_counts_what_loads_and_gives_a_reason_for_the_rest(
    open_clip: Any, configurations: dict[str, dict[str, Any]]
) -> None:
    tags = [name for name, _ in open_clip.list_pretrained()]
    groups = defaultdict(list)
    for name, configuration in configurations.items():
        groups[reason(configuration)].append(name)
    assert groups.keys() == ROWS.keys()
    page = PAGE.read_text(encoding="utf-8")
    for key, words in ROWS.items():
        count = sum(tags.count(name) for name in groups[key])
        assert f"| {words} | {len(groups[key])} | {count} |" in page, (
            key,
            len(groups[key]),
            count,
            groups[key],
        )
    assert f"| together | {len(configurations)} | {len(tags)} |" in page, (len(configurations), len(tags))


@pytest.mark.parametrize(
    "name", ["ViT-bigG-14", "ViT-g-14", "ViT-H-14-CLIPA", "ViT-bigG-14-CLIPA", "ViT-M-16-alt", "ViT-e-14"]
)
def test_a_model_of_open_clip_has_as_many_parameters_here(
    open_clip: Any, configurations: dict[str, dict[str, Any]], name: str
) -> None:
    """Also CLIPA's, of which the tokenizer alone is missing."""
    configuration = json.loads(json.dumps(configurations[name]))
    configuration["text_cfg"].pop("hf_tokenizer_name", None)
    configuration["text_cfg"].pop("tokenizer_kwargs", None)
    architecture = architecture_of(configuration, "here")
    assert isinstance(architecture.image, VisionTransformer)
    assert isinstance(architecture.text, TextTransformer)
    with torch.device("meta"):
        theirs = open_clip.CLIP(
            **{key: value for key, value in configuration.items() if key != "custom_text"}
        )
    ours = {
        key.removeprefix("text."): tuple(value.shape)
        for key, value in lay_out(architecture).state_dict().items()
    }
    assert ours == {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
