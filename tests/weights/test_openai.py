"""OpenAI's archives and plain state dicts."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diptych.errors import CheckpointError
from diptych.models.architectures import PUBLISHED, Architecture
from diptych.weights.assembly import lay_out
from diptych.weights.foreign.archive import Archive, flatten
from diptych.weights.foreign.openai import infer_architecture
from diptych.weights.formats import load_path
from diptych.weights.tensor_files import Entry
from tests.weights.small_clip import RESNET, VIT, load_stated, openai_state, same_weights, save, small_clip


def _trace(module: nn.Module, path: Path, *inputs: Tensor) -> Any:
    """The TorchScript archive of a module; PyTorch says that TorchScript is deprecated, and traces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module.eval(), inputs, check_trace=False)
        traced.save(str(path))
        return torch.jit.load(str(path))


def _openai_model(openai_model: Any, architecture: Architecture) -> Any:
    image, text = architecture.image, architecture.text_transformer
    assert text is not None
    torch.manual_seed(0)
    model = openai_model.CLIP(
        architecture.embed_dim,
        image.resolution,
        image.layers,
        image.width,
        getattr(image, "patch", None),
        text.context_length,
        text.vocab_size,
        text.width,
        text.width // 64,
        text.layers,
    )
    # As in the published archives.
    for name, value in (("input_resolution", image.resolution), ("context_length", 12), ("vocab_size", 100)):
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    return model.eval()


@pytest.mark.parametrize("architecture", [VIT, RESNET], ids=["vit", "resnet"])
def test_an_archive_of_openais_own_model_in_half_precision_is_read_without_running_it(
    openai_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: Architecture
) -> None:
    model = _openai_model(openai_model, architecture)
    openai_model.convert_weights(model)
    # Half precision is traced for a GPU; without one the trace must compute in float32 and keep its weights.
    traced = _trace(_Stored(model), tmp_path / "model.pt", torch.zeros(1))
    expected = {name.removeprefix("model."): value for name, value in traced.state_dict().items()}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the archive was opened by PyTorch")

    for opener in ("torch.jit.load", "torch.load", "torch._C.import_ir_module", "torch._C.PyTorchFileReader"):
        monkeypatch.setattr(opener, refuse)
    archive = Archive(tmp_path / "model.pt")
    assert archive.is_torchscript
    stored = {n.removeprefix("model."): v for n, v in flatten(archive.content, "model.pt").items()}
    weights = {name: value for name, value in stored.items() if not name.endswith("attn_mask")}
    assert set(weights) == set(expected)
    for name, value in weights.items():
        found = archive.read(value)
        assert found.dtype == expected[name].dtype, name
        assert torch.equal(found, expected[name]), name


class _Stored(nn.Module):
    """Keeps a model's weights in an archive without tracing what the model computes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


@pytest.mark.parametrize("architecture", [VIT, RESNET], ids=["vit", "resnet"])
def test_a_traced_archive_of_openais_own_model_gives_its_features(
    openai_model: Any, tmp_path: Path, architecture: Architecture
) -> None:
    model = _openai_model(openai_model, architecture)
    pixels = torch.randn(2, 3, architecture.image.resolution, architecture.image.resolution)
    tokens = torch.tensor(
        [[98, 5, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0], [98, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 99]]
    )
    _trace(model, tmp_path / "model.pt", pixels, tokens)
    loaded, preprocess = load_path(tmp_path / "model.pt")
    assert loaded.architecture == architecture
    assert preprocess.resolution == architecture.image.resolution
    with torch.inference_mode():
        torch.testing.assert_close(loaded.encode_image(pixels), model.encode_image(pixels))
        torch.testing.assert_close(loaded.encode_text(tokens), model.encode_text(tokens))


class _Odd(nn.Module):
    """Every kind of value that an archive can hold beside weights."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Linear(4, 3)
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), last)
        self.tied = nn.Linear(4, 3)
        self.tied.weight = last.weight
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("view", torch.arange(12.0).view(3, 4)[1:, :2])
        self.register_buffer("turned", torch.arange(12.0).view(3, 4).T)
        self.register_buffer("halved", torch.randn(3).half())
        self.register_buffer("brain", torch.randn(3).bfloat16())
        self.register_buffer("doubled", torch.randn(3).double())
        self.register_buffer("small", torch.arange(5, dtype=torch.uint8))
        self.numbers = [1, 2, 3]
        self.ratio = 0.5
        self.name = "odd"
        self.table = {"a": 1}
        self.pair = (1, "x")
        self.big = 1 << 40
        self.nothing = None

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = self.inner(x) + self.scale
        return moved


def test_every_kind_of_value_in_an_archive_is_bit_equal_to_what_torchscript_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(_Odd())
        script.save(str(tmp_path / "odd.pt"))
        expected = torch.jit.load(str(tmp_path / "odd.pt")).state_dict()
    archive = Archive(tmp_path / "odd.pt")
    stored = flatten(archive.content, "odd.pt")
    assert set(stored) == set(expected)
    assert len(stored) == 21
    for name, value in expected.items():
        found = archive.read(stored[name])
        assert found.dtype == value.dtype, name
        assert torch.equal(found, value), name
        assert found.is_contiguous(), name


WRAPPINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": lambda state: state,
    "trainer": lambda state: {"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"lr": [0.1]}},
    "model": lambda state: {"model": state},
    "nested": lambda state: {"model": {"state_dict": state}},
    "distributed": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {"state_dict": {f"module._orig_mod.{name}": v for name, v in state.items()}},
    "own names": lambda state: small_clip().state_dict(),
    "parameters": lambda state: {name: nn.Parameter(value) for name, value in state.items()},
    "scale of shape 1": lambda state: {**state, "logit_scale": state["logit_scale"].reshape(1)},
    "turned": lambda state: {**state, "visual.proj": state["visual.proj"].T.contiguous().T},
    "derived": lambda state: {**state, "vocab_size": torch.tensor(100), "context_length": torch.tensor(12)},
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_state_dict_is_found_in_what_was_saved(tmp_path: Path, wrapping: str, protocol: int) -> None:
    model = small_clip()
    path = save(WRAPPINGS[wrapping](openai_state(model)), tmp_path / "model.pt", pickle_protocol=protocol)
    loaded, _ = load_stated(path)
    assert loaded.architecture == VIT
    assert same_weights(loaded, model)


def test_views_of_one_flat_buffer_are_read(tmp_path: Path) -> None:
    model = small_clip()
    state = openai_state(model)
    flat = torch.cat([value.flatten() for value in state.values()])
    pieces = flat.split([value.numel() for value in state.values()])
    views = {name: piece.view(state[name].shape) for name, piece in zip(state, pieces, strict=True)}
    loaded, _ = load_stated(save(views, tmp_path / "model.pt"))
    assert same_weights(loaded, model)


def test_half_precision_is_returned_in_float32(tmp_path: Path) -> None:
    model = small_clip()
    halves = {name: value.half() for name, value in openai_state(model).items()}
    loaded, _ = load_stated(save(halves, tmp_path / "model.pt"))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.get_parameter("visual.proj"), model.get_parameter("visual.proj").half().float())


def test_a_bare_safetensors_file_is_a_state_dict(tmp_path: Path) -> None:
    model = small_clip(RESNET)
    save_file(openai_state(model), tmp_path / "model.safetensors")
    loaded, preprocess = load_stated(tmp_path / "model.safetensors")
    assert loaded.architecture == RESNET
    assert same_weights(loaded, model)
    assert preprocess.resolution == 64


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_of_each_published_model_follow_from_its_shapes(name: str) -> None:
    state = openai_state(lay_out(PUBLISHED[name]))
    entries = {key: Entry(torch.float16, tuple(value.shape)) for key, value in state.items()}
    assert infer_architecture(entries, "", name) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("text_projection"), "no tensor 'text_projection'"),
        (lambda s: s.pop("visual.ln_post.bias"), r"missing \(1\): visual\.ln_post\.bias"),
        (lambda s: s.update(surprise=torch.zeros(2)), r"unexpected \(1\): surprise"),
        (lambda s: s.update({"visual.ln_pre.bias": torch.zeros(3)}), r"ln_pre\.bias \[3\], expected \[64\]"),
        (lambda s: s.update({"visual.ln_pre.bias": torch.zeros(64, dtype=torch.int64)}), "type that weights"),
        (
            lambda s: s.update({"visual.positional_embedding": torch.zeros(19, 64)}),
            "one more than a square number",
        ),
        (lambda s: s.update({"text_projection": torch.zeros(96, 16)}), "width of 96"),
        (lambda s: s.update({"text_projection": torch.zeros(64)}), "expected 2 dimensions"),
    ],
)
def test_a_state_dict_that_is_no_clip_is_refused_with_the_reason(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    state = openai_state(small_clip())
    change(state)
    with pytest.raises(CheckpointError, match=message):
        load_stated(save(state, tmp_path / "model.pt"))


def test_what_is_not_a_state_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found one with \\['a'\\]"):
        load_stated(save({"a": 1}, tmp_path / "model.pt"))
    with pytest.raises(CheckpointError, match="found something else"):
        load_stated(save([1, 2], tmp_path / "model.pt"))
