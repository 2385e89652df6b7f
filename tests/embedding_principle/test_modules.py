"""torch's modules and the networks of this library are the same functions, and turn into each other exactly."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from embedding_principle.activations import Activation
from embedding_principle.modules import from_module, to_module
from embedding_principle.networks import Network, Parametrised

ACTIVATIONS = (
    nn.ReLU(),
    nn.LeakyReLU(),
    nn.LeakyReLU(0.3),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Softplus(),
    nn.GELU(),
    nn.ELU(),
    nn.SELU(),
    nn.Hardtanh(),
    nn.Identity(),
)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_outputs_are_those_of_torch(activation: nn.Module) -> None:
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 5), activation, nn.Linear(5, 4), activation, nn.Linear(4, 2)))
    x = 2 * torch.randn(50, 3)
    point = from_module(module)
    assert point.network.widths == (3, 5, 4, 2)
    torch.testing.assert_close(point.forward(x), module(x).detach(), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(to_module(point)(x), module(x), rtol=1e-13, atol=1e-14)
    assert from_module(to_module(point)).network == point.network
    assert torch.equal(from_module(to_module(point)).theta, point.theta)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU()], ids=str)
def test_batch_normalization_is_over_the_inputs_of_the_pass(activation: nn.Module) -> None:
    module = seeded(
        lambda: nn.Sequential(
            nn.Linear(3, 5), nn.BatchNorm1d(5, eps=1e-3), activation, nn.Linear(5, 4, bias=False),
            nn.BatchNorm1d(4, eps=1e-3, affine=False), activation, nn.Linear(4, 2),
        )
    )  # fmt: skip
    module[1].weight.data.uniform_(-1, 1)
    module[1].bias.data.uniform_(-1, 1)
    x = torch.randn(50, 3)
    point = from_module(module)
    torch.testing.assert_close(point.forward(x), module(x).detach(), rtol=1e-12, atol=1e-13)
    rebuilt = to_module(point)
    torch.testing.assert_close(rebuilt(x), point.forward(x), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(rebuilt.eval()(x), point.forward(x), rtol=1e-12, atol=1e-13)


def nested(dtype: torch.dtype) -> nn.Module:
    """Names of its own, a layer without bias, two linear layers in a row, dropout that is switched off."""
    body = nn.Sequential()
    body.add_module("first", nn.Linear(3, 4, bias=False))
    body.add_module("second", nn.Linear(4, 4))
    body.add_module("bend", nn.Hardtanh())
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
    module = nn.Sequential()
    module.add_module("body", body)
    module.add_module("head", head)
    return module.to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_module_comes_back_with_its_names_and_float_types(dtype: torch.dtype) -> None:
    module = seeded(lambda: nested(dtype))
    before = copy.deepcopy(module.state_dict())
    point = from_module(module)
    assert point.theta.dtype == torch.float64
    assert [activation.name for activation in point.network.activations] == ["identity", "hard_tanh"]
    back = to_module(point, like=module)
    assert list(back.state_dict()) == ["body.first.weight", "body.second.weight", "body.second.bias",
                                       "head.1.weight", "head.1.bias"]  # fmt: skip
    for name, value in back.state_dict().items():
        assert value.dtype == dtype
        assert torch.equal(value, before[name])
    changed = to_module(point.with_theta(2 * point.theta), like=module)
    assert torch.equal(changed.state_dict()["head.1.bias"], 2 * before["head.1.bias"])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_layer_that_is_used_twice_is_two_layers() -> None:
    shared = nn.Linear(2, 2)
    module = nn.Sequential(shared, nn.Tanh(), shared)
    point, x = from_module(module), torch.randn(5, 2)
    torch.testing.assert_close(point.forward(x), module(x).detach())
    torch.testing.assert_close(to_module(point)(x), module(x))
    with pytest.raises(ValueError, match="like: the same linear layer stands there twice"):
        to_module(point, like=module)


def test_parameters_are_copies_without_gradients() -> None:
    module = nn.Linear(2, 1)
    point = from_module(module)
    assert not point.theta.requires_grad
    module.weight.data.fill_(7)
    assert not (point.theta == 7).any()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(), "module: it holds no layer"),
        (nn.Sequential(nn.ReLU(), nn.Linear(1, 1)), r"module: ReLU\(\) at '0' stands where a linear layer must"),
        (nn.Sequential(nn.Linear(1, 1), nn.Tanh()), "module: it must end in a linear layer"),
        (nn.Sequential(nn.Linear(1, 2), nn.Softmax(-1)), r"Softmax\(dim=-1\) at '1' has no counterpart here; known"),
        (nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.ReLU(), nn.Linear(1, 1)), r"ReLU\(\) at '2' stands where"),
        (nn.Sequential(nn.Sequential(nn.Conv1d(1, 1, 1)), nn.Linear(1, 1)), r"Conv1d\(.*\) at '0.0' stands where"),
        (nn.Sequential(nn.Linear(1, 1), nn.GELU("tanh"), nn.Linear(1, 1)), "at '1' is not gelu, for which approximate"),
        (nn.Sequential(nn.Linear(1, 1), nn.Softplus(2.0), nn.Linear(1, 1)), "is not softplus, for which beta = 1.0"),
        (nn.Sequential(nn.Linear(1, 1), nn.ELU(0.5), nn.Linear(1, 1)), "is not elu, for which alpha = 1.0"),
        (nn.Sequential(nn.Linear(1, 1), nn.LeakyReLU(0.0), nn.Linear(1, 1)), "at '1' is not leaky; put nn.ReLU"),
        (nn.Sequential(nn.Linear(1, 1), nn.Hardtanh(-2, 2), nn.Linear(1, 1)), "is not hard_tanh, for which min_val"),
        (nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5), nn.Linear(1, 1)), r"Dropout\(.*\) at '1' has no counterpart"),
        (nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)), "module: it must end in a linear layer"),
        (
            nn.Sequential(
                nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Tanh(), nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1)
            ),
            "module: batch normalization, of one eps, must stand before all activations or before none; found eps",
        ),
        (nn.Linear(1, 1, dtype=torch.complex64), "module: expected parameters that are real floating-point numbers"),
        (torch.zeros(3), "module: expected an nn.Sequential, got Tensor"),
        (nn.Sequential, "module: expected an nn.Sequential, got type"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name_and_place(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_module(module)


def test_a_network_that_does_not_fit_the_module_is_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Tanh(), nn.Linear(3, 1))
    point = from_module(module)
    with pytest.raises(ValueError, match=r"like: computes .* not"):
        to_module(point, like=nn.Linear(2, 1))
    with pytest.raises(ValueError, match="point: expected one network, got a batch of"):
        to_module(point.expand(4), like=module)
    with pytest.raises(ValueError, match=r"like: Linear\(.*\) at '0' has no bias, but the network has one"):
        to_module(point.with_theta(point.theta + 1), like=module)
    bent = Activation("cube", lambda z: z**3, lambda z: 3 * z**2, lambda z: 6 * z)
    with pytest.raises(ValueError, match="point: torch has no module for the activation cube"):
        to_module(Parametrised(Network.uniform((1, 1, 1), bent), torch.zeros(4).double()))
    plain = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, affine=False), nn.Tanh(), nn.Linear(3, 1))
    normalized = from_module(plain)
    normalized.layers()[0].gamma.fill_(2.0)
    with pytest.raises(ValueError, match=r"like: BatchNorm1d\(.*\) at '1' has neither γ nor β"):
        to_module(normalized, like=plain)


def test_running_statistics_and_their_names_are_those_of_the_module() -> None:
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)))
    module(torch.randn(20, 3))
    back = to_module(from_module(module), like=module)
    assert list(back.state_dict()) == list(module.state_dict())
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in back.state_dict().items())
