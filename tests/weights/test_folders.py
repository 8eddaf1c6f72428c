"""open_clip's and transformers' folders: what is read, what is refused, what is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
)
from diptych.tokenizer import tokenize
from diptych.weights.formats import load_path
from tests.foreign_folders import write_open_clip_folder, write_transformers_folder
from tests.weights.small_clip import RESNET, VIT, same_weights, save, small_clip

TEXT = TextTransformer(width=64, layers=1)
GELU = Architecture(
    embed_dim=16, image=VisionTransformer(resolution=32, patch=8, width=96, layers=1, heads=3), text=TEXT,
    activation="gelu",
)  # fmt: skip
RESNET_HEADS = Architecture(
    embed_dim=16, image=ModifiedResNet(resolution=32, layers=(1, 1, 1, 1), width=8, heads=8), text=TEXT
)
PREPROCESS = Preprocess(
    32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bilinear", resize="squash"
)


def _edited(folder: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    contents = json.loads((folder / file).read_text())
    change(contents)
    (folder / file).write_text(json.dumps(contents))
    return folder


@pytest.mark.parametrize("architecture", [VIT, RESNET, GELU, RESNET_HEADS])
def test_an_open_clip_folder_comes_back_as_it_was(tmp_path: Path, architecture: Architecture) -> None:
    model = small_clip(architecture)
    preprocess = Preprocess(architecture.image.resolution, resize="longest", background=(0, 0, 0))
    write_open_clip_folder(tmp_path / "folder", model, preprocess)
    loaded, loaded_preprocess = load_path(tmp_path / "folder")
    assert loaded.architecture == architecture
    assert loaded_preprocess == preprocess
    assert same_weights(loaded, model)


def test_open_clip_has_our_activation_and_preprocessing(open_clip: Any, tmp_path: Path) -> None:
    model = small_clip(GELU)
    write_open_clip_folder(tmp_path / "folder", model, PREPROCESS)
    theirs, their_preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'folder'}")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    ours, expected = PREPROCESS(image), their_preprocess(image)
    # One grey level, over the smallest standard deviation.
    assert (ours - expected).abs().max() <= 1.01 / 255 / 0.2
    with torch.inference_mode():
        torch.testing.assert_close(model.encode_image(expected[None]), theirs.encode_image(expected[None]))


def test_the_prefix_of_a_custom_text_tower_is_understood(tmp_path: Path) -> None:
    model = small_clip()
    write_open_clip_folder(tmp_path / "folder", model, PREPROCESS)
    (tmp_path / "folder" / "open_clip_model.safetensors").unlink()
    save(model.state_dict(), tmp_path / "folder" / "open_clip_pytorch_model.bin")
    _edited(tmp_path / "folder", "open_clip_config.json", lambda c: c["model_cfg"].update(custom_text=True))
    loaded, _ = load_path(tmp_path / "folder")
    assert same_weights(loaded, model)


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (
            "vision_cfg",
            {"timm_model_name": "vit_base_patch16_siglip_224"},
            r"vision_cfg\.timm_model_name is 'vit_",
        ),
        ("vision_cfg", {"attentional_pool": True}, r"vision_cfg\.attentional_pool"),
        ("vision_cfg", {"no_ln_pre": True}, r"unexpected \(2\): visual\.ln_pre"),
        ("vision_cfg", {"pool_type": "none"}, r"vision_cfg\.pool_type is 'none'"),
        ("vision_cfg", {"norm_kwargs": {"bias": False}}, r"vision_cfg\.norm_kwargs is {'bias'"),
        ("vision_cfg", {"act_kwargs": {"approximate": "erf"}}, r"vision_cfg\.act_kwargs is {'approximate'"),
        ("vision_cfg", {"mlp_ratio": 3.0}, r"of another shape"),
        ("vision_cfg", {"mlp_ratio": "wide"}, r"vision_cfg\.mlp_ratio is 'wide'"),
        ("vision_cfg", {"image_size": [32, 64]}, "supports only square images"),
        ("vision_cfg", {"head_width": 0}, "number of heads is not a whole number"),
        ("vision_cfg", {"head_width": 60}, "number of heads is not a whole number"),
        ("vision_cfg", {"a_new_switch": 1}, r"vision_cfg\.a_new_switch is unknown to Diptych"),
        ("vision_cfg", {"layers": "many"}, "layers"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, r"text_cfg\.hf_model_name is 'roberta-base'"),
        (
            "text_cfg",
            {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"},
            r"text_cfg\.hf_tokenizer_name is 'timm/ViT-B-16-SigLIP', .* reads texts with that tokenizer",
        ),
        ("text_cfg", {"pool_type": "mean"}, r"text_cfg\.pool_type is 'mean'"),
        ("text_cfg", {"embed_cls": True}, r"text_cfg\.embed_cls"),
        ("text_cfg", {"layers": 3}, r"missing \(12\): transformer\.resblocks\.2"),
        ("model_cfg", {"init_logit_bias": -10}, r"model_cfg\.init_logit_bias is -10"),
        ("model_cfg", {"multimodal_cfg": {"width": 512}}, r"model_cfg\.multimodal_cfg"),
        ("model_cfg", {"embed_dim": None}, "embed_dim"),
        ("model_cfg", {"vision_cfg": None}, "no table 'vision_cfg'"),
        ("preprocess_cfg", {"resize_mode": "shear"}, "'shear' is not one of"),
        ("preprocess_cfg", {"mean": [0.5]}, "mean"),
    ],
)
def test_what_open_clip_has_and_diptych_not_is_refused_by_its_name(
    tmp_path: Path, table: str, change: dict[str, Any], message: str
) -> None:
    write_open_clip_folder(tmp_path / "folder", small_clip(), PREPROCESS)

    def edit(contents: dict[str, Any]) -> None:
        home = contents if table.startswith(("model", "preprocess")) else contents["model_cfg"]
        home[table].update(change)

    with pytest.raises(CheckpointError, match=message):
        load_path(_edited(tmp_path / "folder", "open_clip_config.json", edit))


@pytest.mark.parametrize("preprocess", [PREPROCESS, Preprocess(32)])
def test_a_transformers_folder_comes_back_as_it_was(tmp_path: Path, preprocess: Preprocess) -> None:
    model = small_clip(GELU)
    write_transformers_folder(tmp_path / "folder", model, preprocess)
    loaded, loaded_preprocess = load_path(tmp_path / "folder")
    assert loaded.architecture == GELU
    assert loaded_preprocess == preprocess
    assert same_weights(loaded, model)


def test_transformers_processor_prepares_images_and_texts_as_we_do(transformers: Any, tmp_path: Path) -> None:
    model = small_clip(GELU)
    write_transformers_folder(tmp_path / "folder", model, Preprocess(32))
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "folder", use_fast=False)
    texts = ["a photo of a cat", "Wide-eyed  OWLS, 2021!", "日本語 naïve"]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    prepared = processor(
        text=texts, images=image, return_tensors="pt", padding="max_length", truncation=True, max_length=77
    )
    expected = tokenize(texts).long()
    # Its padding is the end token, ours zero; what comes after the first end token has no effect.
    end = expected.argmax(dim=-1)
    for found, ours, last in zip(prepared["input_ids"], expected, end, strict=True):
        assert torch.equal(found[: last + 1], ours[: last + 1])
    assert (prepared["pixel_values"][0] - Preprocess(32)(image)).abs().max() <= 1.01 / 255 / 0.26


def test_a_processor_saved_by_this_version_of_transformers_is_read(transformers: Any, tmp_path: Path) -> None:
    write_transformers_folder(tmp_path / "folder", small_clip(GELU), PREPROCESS)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "folder", use_fast=False)
    (tmp_path / "folder" / "preprocessor_config.json").unlink()
    processor.save_pretrained(tmp_path / "folder")
    _, preprocess = load_path(tmp_path / "folder")
    assert preprocess == PREPROCESS


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda c: c.update(model_type="siglip"), "model_type is 'siglip'"),
        ("config.json", lambda c: c["text_config"].update(hidden_act="gelu_new"), "hidden_act is 'gelu_new'"),
        ("config.json", lambda c: c["text_config"].update(eos_token_id=5), r"eos_token_id is 5"),
        ("config.json", lambda c: c["text_config"].update(intermediate_size=100), "of another shape"),
        ("config.json", lambda c: c["vision_config"].update(layer_norm_eps="no"), "epsilon"),
        ("config.json", lambda c: c["vision_config"].update(num_channels=4), "num_channels is 4"),
        ("config.json", lambda c: c.update(projection_dim=32), "of another shape"),
        (
            "preprocessor_config.json",
            lambda c: c.update(size={"shortest_edge": 40}),
            "do not give the 32 x 32",
        ),
        ("preprocessor_config.json", lambda c: c.update(do_center_crop=False), "do not give the 32 x 32"),
        ("preprocessor_config.json", lambda c: c.update(do_normalize=False), "do_normalize is False"),
        ("preprocessor_config.json", lambda c: c.update(resample=0), "resample is 0"),
        ("preprocessor_config.json", lambda c: c.update(rescale_factor=1.0), "rescale_factor is 1.0"),
        ("preprocessor_config.json", lambda c: c.update(image_mean="grey"), "mean"),
    ],
)
def test_a_transformers_model_that_is_no_clip_is_refused_by_the_key(
    tmp_path: Path, file: str, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    write_transformers_folder(tmp_path / "folder", small_clip(GELU), Preprocess(32))
    with pytest.raises(CheckpointError, match=message):
        load_path(_edited(tmp_path / "folder", file, change))


def test_a_legacy_end_token_and_stored_positions_are_accepted(tmp_path: Path) -> None:
    model = small_clip(GELU)
    write_transformers_folder(tmp_path / "folder", model, Preprocess(32))
    _edited(tmp_path / "folder", "config.json", lambda c: c["text_config"].update(eos_token_id=2))
    loaded, _ = load_path(tmp_path / "folder")
    assert same_weights(loaded, model)


def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    write_transformers_folder(tmp_path / "folder", small_clip(GELU), Preprocess(32))
    shutil.move(tmp_path / "folder" / "model.safetensors", tmp_path / "folder" / "part.safetensors")
    index = tmp_path / "folder" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"logit_scale": "../folder/part.safetensors"}}))
    with pytest.raises(CheckpointError, match="files beside it"):
        load_path(tmp_path / "folder")
    index.write_text(json.dumps({"weight_map": {"absent": "part.safetensors"}}))
    with pytest.raises(CheckpointError, match="lacks the tensor 'absent'"):
        load_path(tmp_path / "folder")


def test_without_a_processor_the_preprocessing_is_not_guessed(tmp_path: Path) -> None:
    write_transformers_folder(tmp_path / "folder", small_clip(GELU), Preprocess(32))
    (tmp_path / "folder" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        load_path(tmp_path / "folder")


BAG = Architecture(embed_dim=16, image=GELU.image, text=BagOfWords(width=64))
SINUSOIDAL = Architecture(
    embed_dim=16, image=GELU.image, text=TextTransformer(width=64, layers=1, positions="sinusoidal")
)
FINE_STEM = Architecture(
    embed_dim=16, image=ModifiedResNet(resolution=32, layers=(1, 1, 1, 1), width=8, stem_stride=2), text=TEXT
)


@pytest.mark.parametrize("architecture", [BAG, SINUSOIDAL, FINE_STEM], ids=["bag", "sinusoidal", "fine stem"])
@pytest.mark.parametrize("write", [write_open_clip_folder, write_transformers_folder])
def test_what_others_cannot_represent_is_not_written(
    tmp_path: Path, architecture: Architecture, write: Callable[..., None]
) -> None:
    with pytest.raises(CheckpointError, match=r"open_clip|transformers"):
        write(tmp_path / "folder", small_clip(architecture), Preprocess(32))
    assert not list(tmp_path.iterdir())


def test_transformers_cannot_have_another_vocabulary_or_padded_images(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="100 tokens"):
        write_transformers_folder(tmp_path / "folder", small_clip(VIT), Preprocess(32))
    with pytest.raises(CheckpointError, match="cannot pad"):
        write_transformers_folder(tmp_path / "folder", small_clip(GELU), Preprocess(32, resize="longest"))


def test_a_folder_without_weights_or_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"expected one of the files diptych\.json, open_clip_config\.json, config\.json",
    ):
        load_path(tmp_path)
    write_open_clip_folder(tmp_path / "folder", small_clip(), PREPROCESS)
    (tmp_path / "folder" / "open_clip_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_path(tmp_path / "folder")
