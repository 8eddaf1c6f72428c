"""Models of the hub: names, files, revisions, the cache, and what happens when something is in the way.

The client is the real one; the hub is on loopback.
"""

import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import diptych
from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.errors import CheckpointError, DownloadError
from diptych.models.architectures import PUBLISHED, Architecture, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.pretrained import fingerprint, full_name, name_of
from diptych.weights import named_models
from diptych.weights.checkpoint import save_checkpoint
from diptych.weights.foreign import open_clip_models, published
from diptych.weights.foreign.hub import HubName, HubWarning, hub_name
from diptych.weights.foreign.open_clip_config import architecture_of
from diptych.weights.foreign.open_clip_models import TaggedModel, tagged_models
from tests.foreign_folders import write_open_clip_folder, write_transformers_folder
from tests.weights.local_hub import COMMIT, LocalHub, Repository, running_hub

OTHER_COMMIT = "f" * 40
ARCHITECTURE = Architecture(
    embed_dim=32,
    image=VisionTransformer(resolution=32, patch=8, width=64, layers=2),
    text=TextTransformer(width=64, layers=2),
)
PREPROCESS = Preprocess(32)


def _model(seed: int = 0) -> ImageModel:
    torch.manual_seed(seed)
    return build_model(ARCHITECTURE).eval()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """A hub with one model in three forms, which the client takes for the only hub; its cache is empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    save_checkpoint(tmp_path / "served" / "diptych", _model(), config.plain(PREPROCESS))
    write_open_clip_folder(tmp_path / "served" / "open_clip", _model(), PREPROCESS)
    write_transformers_folder(tmp_path / "served" / "transformers", _model(), PREPROCESS)
    with running_hub() as running:
        for form in ("diptych", "open_clip", "transformers"):
            running.repositories[f"someone/{form}"] = Repository(tmp_path / "served" / form)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


@pytest.mark.parametrize("form", ["diptych", "open_clip", "transformers"])
@pytest.mark.parametrize("prefix", ["hf-hub:", ""])
def test_a_repository_of_each_form_loads_as_the_same_model(hub: LocalHub, prefix: str, form: str) -> None:
    name = f"{prefix}someone/{form}"
    loaded = diptych.load(name, "cpu")
    assert fingerprint(*loaded) == fingerprint(_model(), PREPROCESS)
    assert name_of(loaded[0]) == full_name(name) == f"hf-hub:someone/{form}"


def test_what_open_clip_and_transformers_wrote_themselves_loads(
    hub: LocalHub, open_clip: Any, transformers: Any, tmp_path: Path
) -> None:
    theirs = open_clip.CLIP(
        16,
        {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    ).eval()
    settings = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    tokenizer = open_clip.tokenizer.HFTokenizer.__new__(open_clip.tokenizer.HFTokenizer)
    tokenizer.tokenizer = type("Nothing", (), {"save_pretrained": lambda self, folder: None})()
    theirs.visual.image_mean, theirs.visual.image_std = PREPROCESS.mean, PREPROCESS.std
    importlib.import_module("open_clip.push_to_hf_hub").save_for_hf(
        theirs, tokenizer, settings, tmp_path / "written", safe_serialization="both"
    )
    hub.repositories["someone/written"] = Repository(tmp_path / "written")
    model, preprocess = diptych.load("hf-hub:someone/written", "cpu")
    tokens, pixels = diptych.tokenize(["a cat"]), preprocess(Image.new("RGB", (40, 50), "red"))[None]
    with torch.inference_mode():
        torch.testing.assert_close(model.encode_text(tokens), theirs.encode_text(tokens), atol=1e-5, rtol=0)
        torch.testing.assert_close(model.encode_image(pixels), theirs.encode_image(pixels), atol=1e-5, rtol=0)
    assert "open_clip_pytorch_model.bin" not in hub.files_asked()  # safetensors come first

    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 1}
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**tower, "eos_token_id": 49407, "bos_token_id": 49406},
            vision_config={**tower, "image_size": 32, "patch_size": 16},
            projection_dim=16,
        )
    ).eval()
    clip.save_pretrained(tmp_path / "theirs", max_shard_size="4MB")
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessorPil(**sizes).save_pretrained(tmp_path / "theirs")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 1
    hub.repositories["someone/theirs"] = Repository(tmp_path / "theirs")
    model, _ = diptych.load("someone/theirs", "cpu")
    with torch.inference_mode():
        found = model.encode_text(tokens)
        expected = clip.get_text_features(input_ids=tokens)
    torch.testing.assert_close(found, getattr(expected, "pooler_output", expected), atol=1e-5, rtol=0)


def test_a_pickle_is_read_without_running_it_where_there_is_nothing_else(
    hub: LocalHub, tmp_path: Path
) -> None:
    folder = tmp_path / "served" / "open_clip"
    weights = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    assert fingerprint(*diptych.load("someone/open_clip", "cpu")) == fingerprint(_model(), PREPROCESS)


def test_a_revision_is_a_branch_or_a_commit(hub: LocalHub, tmp_path: Path) -> None:
    write_open_clip_folder(tmp_path / "older", _model(1), PREPROCESS)
    hub.repositories["someone/open_clip"].revisions["refs/pr/1"] = COMMIT
    hub.repositories["someone/older"] = Repository(tmp_path / "older", revisions={"v1": OTHER_COMMIT})
    for name in ("hf-hub:someone/older@v1", f"someone/older@{OTHER_COMMIT}"):
        assert fingerprint(*diptych.load(name, "cpu")) == fingerprint(_model(1), PREPROCESS)
    with pytest.raises(DownloadError, match="has no branch, tag or commit 'v2'"):
        diptych.load("someone/older@v2", "cpu")


def test_a_second_load_and_one_without_the_hub_read_the_cache(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    diptych.load("someone/open_clip", "cpu")
    hub.asked.clear()
    diptych.load("someone/open_clip", "cpu")
    assert not [path for method, path, _ in hub.asked if method == "GET"]
    hub.asked.clear()
    diptych.load("someone/open_clip", "cpu", offline=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    diptych.load("someone/open_clip", "cpu")
    assert hub.asked == []


def test_offline_without_a_cached_copy_is_one_line(hub: LocalHub) -> None:
    with pytest.raises(
        DownloadError, match=r"hf-hub:someone/open_clip: downloads are switched off .*hf download"
    ):
        diptych.load("someone/open_clip", "cpu", offline=True)
    assert hub.asked == []


def test_a_configuration_alone_in_the_cache_names_the_missing_weights(hub: LocalHub, tmp_path: Path) -> None:
    diptych.load("someone/open_clip", "cpu")
    for weights in tmp_path.glob("hub-cache/models--*/snapshots/*/open_clip_model.safetensors"):
        weights.unlink()
    with pytest.raises(DownloadError, match=r"the cache .* has none of open_clip_model\.safetensors"):
        diptych.load("someone/open_clip", "cpu", offline=True)


def test_gated_private_and_missing_repositories_say_what_to_do(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["someone/open_clip"].gated = True
    hub.repositories["someone/transformers"].private = True
    with pytest.raises(DownloadError, match=r"is gated; accept its conditions at http.*someone/open_clip"):
        diptych.load("someone/open_clip", "cpu")
    for name in ("someone/absent", "someone/transformers"):
        with pytest.raises(DownloadError, match="neither a file or folder here, nor a model at") as raised:
            diptych.load(name, "cpu")
        assert "\n" not in str(raised.value)
    monkeypatch.setenv("HF_TOKEN", "secret")
    diptych.load("someone/transformers", "cpu")
    assert hub.tokens_in_storage == []


def test_a_repository_without_a_model_or_its_weights_says_which_files_it_lacks(
    hub: LocalHub, tmp_path: Path
) -> None:
    (tmp_path / "served" / "open_clip" / "open_clip_model.safetensors").unlink()
    with pytest.raises(
        DownloadError, match=r"has none of open_clip_model\.safetensors, open_clip_pytorch_model"
    ):
        diptych.load("someone/open_clip", "cpu")
    (tmp_path / "served" / "open_clip" / "open_clip_config.json").unlink()
    with pytest.raises(
        DownloadError, match=r"has none of diptych\.json, open_clip_config\.json, config\.json"
    ):
        diptych.load("someone/open_clip", "cpu")
    hub.repositories["someone/diptych"].folder.joinpath("model.safetensors").unlink()
    with pytest.raises(DownloadError, match=r"lacks the file model\.safetensors"):
        diptych.load("someone/diptych", "cpu")


def test_weights_of_a_model_that_cannot_be_built_are_not_downloaded(hub: LocalHub, tmp_path: Path) -> None:
    path = tmp_path / "served" / "open_clip" / "open_clip_config.json"
    settings = json.loads(path.read_text())
    settings["model_cfg"]["vision_cfg"]["timm_model_name"] = "convnext_base"
    path.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="timm_model_name"):
        diptych.load("someone/open_clip", "cpu")
    other = tmp_path / "served" / "transformers" / "config.json"
    other.write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="model_type is 'bert'"):
        diptych.load("someone/transformers", "cpu")
    assert not {name for name in hub.files_asked() if name.endswith((".safetensors", ".bin"))}


def test_a_cut_download_resumes_where_it_ended(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cuts = [5000]
    seen: list[tuple[int, int | None]] = []
    model = diptych.load("someone/open_clip", "cpu", progress=lambda done, total: seen.append((done, total)))
    assert fingerprint(*model) == fingerprint(_model(), PREPROCESS)
    assert "bytes=5000-" in {wanted for _, _, wanted in hub.asked}
    assert seen[-1][0] == seen[-1][1]


def test_a_download_that_is_always_cut_is_one_line_and_leaves_nothing(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.cuts = [0] * 50
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(
        DownloadError, match=r"model\.safetensors could not be fetched whole .*again"
    ) as raised:
        diptych.load("someone/open_clip", "cpu")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("hub-cache/**/*.incomplete"))
    hub.cuts = []
    diptych.load("someone/open_clip", "cpu")


def test_a_file_with_another_hash_is_deleted_unread(hub: LocalHub) -> None:
    hub.repositories["someone/open_clip"].damaged = True
    with pytest.raises(DownloadError, match=r"has the SHA-256 [0-9a-f]{64}; the hub states [0-9a-f]{64}"):
        diptych.load("someone/open_clip", "cpu")
    hub.repositories["someone/open_clip"].damaged = False
    assert fingerprint(*diptych.load("someone/open_clip", "cpu")) == fingerprint(_model(), PREPROCESS)


def test_a_file_that_changed_in_the_cache_is_fetched_again_after_one_error(
    hub: LocalHub, tmp_path: Path
) -> None:
    diptych.load("someone/open_clip", "cpu")
    (weights,) = tmp_path.glob("hub-cache/models--*/snapshots/*/open_clip_model.safetensors")
    contents = weights.read_bytes()
    weights.resolve().write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    with pytest.raises(DownloadError, match="the hub states"):
        diptych.load("someone/open_clip", "cpu", offline=True)
    assert fingerprint(*diptych.load("someone/open_clip", "cpu")) == fingerprint(_model(), PREPROCESS)


def test_a_renamed_repository_loads_and_its_new_name_is_said_once(hub: LocalHub) -> None:
    hub.renamed["someone/before"] = "someone/open_clip"
    with pytest.warns(HubWarning, match="is now called hf-hub:someone/open_clip"):
        model = diptych.load("hf-hub:someone/before", "cpu")
    assert fingerprint(*model) == fingerprint(_model(), PREPROCESS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diptych.load("hf-hub:someone/open_clip", "cpu")


def test_a_local_folder_wins_and_says_so_where_the_hub_was_used_too(hub: LocalHub, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "someone" / "open_clip", _model(2), config.plain(PREPROCESS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fingerprint(*diptych.load("someone/open_clip", "cpu")) == fingerprint(_model(2), PREPROCESS)
    assert hub.asked == []
    assert fingerprint(*diptych.load("hf-hub:someone/open_clip", "cpu")) == fingerprint(_model(), PREPROCESS)
    with pytest.warns(HubWarning, match="the hub's model is hf-hub:someone/open_clip"):
        assert fingerprint(*diptych.load("someone/open_clip", "cpu")) == fingerprint(_model(2), PREPROCESS)


@pytest.mark.parametrize("name", ["someone/absent", "models/epoch_9.pt", "ViT-B/23", "a/b/c", "./x/y"])
def test_a_misspelt_path_or_name_is_not_asked_of_the_hub(hub: LocalHub, tmp_path: Path, name: str) -> None:
    (tmp_path / "someone").mkdir()
    with pytest.raises(CheckpointError, match="neither a file, nor a folder, nor the name of a model"):
        diptych.load(name, "cpu")
    assert hub.asked == []


def test_the_forms_of_a_name() -> None:
    assert hub_name("hf-hub:a/b@refs/pr/1") == HubName("a/b", "refs/pr/1")
    assert hub_name("laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K") == HubName(
        "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"
    )
    assert hub_name("diptych-mini") is None
    with pytest.raises(CheckpointError, match="expected hf-hub:owner/name"):
        hub_name("hf-hub:a")


@pytest.fixture
def tagged(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """The hub, with small models under the names of open_clip's large ones."""
    table = {
        name: TaggedModel(name, repo, ARCHITECTURE, None)
        for name, repo in {
            "ViT-B-32/laion2b_s34b_b79k": "someone/open_clip",
            "ViT-B-32/openai": "someone/transformers",
        }.items()
    }
    for module in (open_clip_models, named_models):
        monkeypatch.setattr(module, "tagged_models", lambda: table)
    return hub


def test_names_and_tags_of_open_clip_load_in_each_of_its_spellings(tagged: LocalHub) -> None:
    expected = fingerprint(_model(), PREPROCESS)
    by_name = diptych.load("ViT-B-32/laion2b_s34b_b79k", "cpu")
    by_tag = diptych.load("ViT-B-32", "cpu", pretrained="LAION2B-s34b-b79k")
    assert fingerprint(*by_name) == fingerprint(*by_tag) == expected
    assert name_of(by_name[0]) == name_of(by_tag[0]) == "ViT-B-32/laion2b_s34b_b79k"
    with pytest.raises(CheckpointError, match=r"no weights with the tag 'laion2b_s34b'.*did you mean"):
        diptych.load("ViT-B-32", "cpu", pretrained="laion2b_s34b")


def test_openai_models_come_from_this_machine_then_the_mirror_then_the_old_address(
    tagged: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = fingerprint(_model(), PREPROCESS)
    for name in ("ViT-B/32", "ViT-B-32/openai", "ViT-B-32-quickgelu/openai"):
        model = diptych.load(name, "cpu")
        assert fingerprint(*model) == expected
        assert name_of(model[0]) == "ViT-B/32"
    del tagged.repositories["someone/transformers"]
    old: list[str] = []

    def fetch(name: str, *, offline: bool = False, **_: object) -> Path:
        if offline:
            raise DownloadError("not here")
        old.append(name)
        return tmp_path / "served" / "diptych"

    monkeypatch.setattr(published, "fetch", fetch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    assert fingerprint(*diptych.load("ViT-B/32", "cpu")) == expected
    assert old == ["ViT-B/32"]
    with pytest.raises(DownloadError, match="not here"):
        diptych.load("ViT-B/32", "cpu", offline=True)
    assert old == ["ViT-B/32"]


def test_the_table_agrees_with_open_clip(open_clip: Any) -> None:
    get = open_clip.pretrained.get_pretrained_cfg
    known = tagged_models()
    for name, model in known.items():
        architecture, tag = name.split("/")
        theirs = get(architecture, tag)
        assert theirs["hf_hub"] == f"{model.hub}/", name
        assert (model.architecture.activation == "quick_gelu") == theirs.get("quick_gelu", False), name
    for architecture, tag in open_clip.list_pretrained():
        name = f"{architecture.removesuffix('-quickgelu')}/{tag}"
        try:
            architecture_of(open_clip.get_model_config(architecture), architecture)
        except CheckpointError:
            assert name not in known
        else:
            assert name in known or name == "ViT-B-16-plus-240/laion400m_e32", name


def test_the_mirror_of_a_published_model_has_its_architecture() -> None:
    for name, architecture in PUBLISHED.items():
        assert open_clip_models.tagged_model(name, "openai").architecture == architecture, name


def test_the_command_line_reads_the_variables_of_the_client(hub: LocalHub, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(tmp_path / "other"),
        "HF_HUB_OFFLINE": "0",
    }
    command = [sys.executable, "-m", "diptych.cli", "classify", "red.png", "--labels", "red,blue", "--json"]
    command += ["--model", "someone/open_clip", "--device", "cpu"]
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}):
        result = subprocess.run(
            command,
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(result.stdout)
    other = {**environment, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "empty")}
    result = subprocess.run(command, cwd=tmp_path, env=other, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "downloads are switched off" in result.stderr
