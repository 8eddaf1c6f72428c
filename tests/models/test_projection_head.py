"""The head of SimCLR: its shape, its batch norm over all processes, and where fine-tuning begins."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.distributed import world
from diptych.errors import SettingsError
from diptych.models import architectures
from diptych.models.heads.label_head import LabelHead
from diptych.models.layers.global_batch_norm import GlobalBatchNorm
from diptych.models.layers.projection_head import ProjectionHead
from tests.processes import run_processes

SHARES = (5, 2)  # rows of each process


def rows(count: int = 7, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def head(layers: int = 3) -> ProjectionHead:
    torch.manual_seed(2)
    made = ProjectionHead(architectures.ProjectionHead(head_layers=layers, head_dim=4), 6).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter))  # gains and shifts that show
    return made


def linears(made: ProjectionHead) -> list[nn.Linear]:
    found = [*made.hidden.linears, made.linear]
    return [layer for layer in found if isinstance(layer, nn.Linear)]


def norms(made: ProjectionHead) -> list[nn.Module]:
    return [*made.hidden.norms, made.norm]


def slow_head(made: ProjectionHead, features: Tensor) -> Tensor:
    """Every number by itself: linear, batch norm over the rows, ReLU but for the last layer."""
    for number, (linear, norm) in enumerate(zip(linears(made), norms(made), strict=True)):
        assert isinstance(linear, nn.Linear)
        assert isinstance(norm, GlobalBatchNorm)
        mixed = torch.stack([linear.weight @ row for row in features])
        columns = []
        for column in range(mixed.shape[1]):
            values = mixed[:, column]
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
            normed = (values - mean) / (variance + 1e-5) ** 0.5 * norm.weight[column]
            columns.append(normed if norm.bias is None else normed + norm.bias[column])
        features = torch.stack(columns, dim=1)
        if number < len(linears(made)) - 1:
            features = features.clamp(min=0)
    return features


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_head_equals_the_slow_formula_row_by_row(layers: int) -> None:
    made = head(layers)
    torch.testing.assert_close(made(rows()), slow_head(made, rows()), rtol=1e-10, atol=1e-12)


def test_the_norm_and_its_running_averages_equal_torchs_batch_norm() -> None:
    torch.manual_seed(3)
    own, reference = GlobalBatchNorm(6).double(), nn.BatchNorm1d(6).double()
    for number in range(3):
        given = (rows() * (1 + number)).requires_grad_()
        other = given.detach().clone().requires_grad_()
        found, expected = own(given), reference(other)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        found.pow(3).sum().backward()
        expected.pow(3).sum().backward()
        torch.testing.assert_close(given.grad, other.grad, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(own.running_mean, reference.running_mean)
    torch.testing.assert_close(own.running_var, reference.running_var)
    torch.testing.assert_close(own.eval()(rows()), reference.eval()(rows()))


def test_hidden_layers_have_a_shift_and_the_last_has_none_and_no_linear_layer_has_a_bias() -> None:
    made = ProjectionHead(architectures.ProjectionHead(head_layers=3, head_dim=4), 6)
    assert [norm.bias is None for norm in norms(made)] == [False, False, True]
    assert [tuple(linear.weight.shape) for linear in linears(made)] == [(6, 6), (6, 6), (4, 6)]
    assert all(linear.bias is None for linear in linears(made))
    assert made(rows().float()).min() < 0  # no ReLU at the end
    with pytest.raises(SettingsError, match="0 layers"):
        ProjectionHead(architectures.ProjectionHead(head_layers=0), 6)


def test_a_label_head_takes_over_the_first_layer_of_a_deeper_head_and_begins_at_zero() -> None:
    made = head(3)
    size = architectures.LabelHead(classes=("cat", "dog", "owl"), kept_layers=1)
    labels = LabelHead(size, 6).double()
    assert torch.equal(labels(rows()), torch.zeros(7, 3, dtype=torch.float64))
    taken = {name: value for name, value in made.state_dict().items() if name.startswith("hidden.")}
    unused = labels.load_state_dict(taken, strict=False)
    assert unused.missing_keys == ["weight", "bias"]
    assert all(".1." in name for name in unused.unexpected_keys)
    with torch.no_grad():
        labels.weight.normal_()
    middle = F.relu(norms(made)[0](linears(made)[0](rows())))
    torch.testing.assert_close(labels(rows()), middle @ labels.weight.T)
    plain = LabelHead(architectures.LabelHead(classes=("cat", "dog")), 6)
    assert {name: tuple(value.shape) for name, value in plain.named_parameters()} == {
        "weight": (2, 6),
        "bias": (2,),
    }


def test_gradients_are_those_of_finite_differences() -> None:
    made = head(2)
    assert torch.autograd.gradcheck(made, (rows(5).requires_grad_(),))


def outcome(made: ProjectionHead, given: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients and running averages of this process's rows; the gradients of parameters are summed."""
    given = given.clone().requires_grad_()
    projected = made(given)
    (projected * weights).sum().backward()
    found = {"out": projected.detach(), "rows": given.grad if given.grad is not None else given}
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad
        if world().size > 1:
            dist.all_reduce(found[name])
    return {**found, **dict(made.named_buffers())}


def main(out: Path) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    first = 0 if world().rank == 0 else SHARES[0]
    mine = slice(first, first + SHARES[world().rank])
    weights = torch.arange(28, dtype=torch.float64).view(7, 4)
    torch.save(outcome(head(), rows()[mine], weights[mine]), out / f"{world().rank}.pt")
    dist.destroy_process_group()


def test_two_processes_with_uneven_shares_norm_and_learn_as_one(tmp_path: Path) -> None:
    ended = run_processes(2, ["-m", "tests.models.test_projection_head", str(tmp_path)])
    assert all(code == 0 for code, _, _ in ended), ended
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    weights = torch.arange(28, dtype=torch.float64).view(7, 4)
    whole = outcome(head(), rows(), weights)
    for name, value in whole.items():
        if name in ("out", "rows"):
            torch.testing.assert_close(torch.cat([part[name] for part in parts]), value, rtol=0, atol=1e-10)
        else:
            for part in parts:
                torch.testing.assert_close(part[name], value, rtol=1e-10, atol=1e-10)
    # The trap: a norm of each process's own rows is another function.
    made = head()
    local = torch.cat([made(rows()[:5]), made(rows()[5:])])
    assert (local - whole["out"]).abs().max() > 0.1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
