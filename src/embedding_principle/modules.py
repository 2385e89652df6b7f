"""From torch's modules to networks of this library, and back.

Known are `nn.Sequential`, also nested, of `nn.Linear`, the activations of `activations`, and `nn.BatchNorm1d` before
each of them. Parameters of any float type become float64.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embedding_principle.activations import (
    Activation,
    elu,
    gelu,
    hard_tanh,
    identity,
    leaky_relu,
    relu,
    selu,
    sigmoid,
    softplus,
    tanh,
)
from embedding_principle.arguments import checked
from embedding_principle.networks import Layer, Network, Parametrised, flatten

# The settings with which a module is that activation; with others it is another function.
_ACTIVATIONS: tuple[tuple[type[nn.Module], dict[str, Any], Activation], ...] = (
    (nn.ReLU, {}, relu),
    (nn.Tanh, {}, tanh),
    (nn.Sigmoid, {}, sigmoid),
    (nn.Softplus, {"beta": 1.0}, softplus),
    (nn.GELU, {"approximate": "none"}, gelu),
    (nn.ELU, {"alpha": 1.0}, elu),
    (nn.SELU, {}, selu),
    (nn.Hardtanh, {"min_val": -1.0, "max_val": 1.0}, hard_tanh),
    (nn.Identity, {}, identity),
)
_MODULES: dict[str, Callable[[], nn.Module]] = {activation.name: kind for kind, _, activation in _ACTIVATIONS}


@dataclass(frozen=True, eq=False)
class _Step:
    """A linear layer with the batch normalization and the activation behind it, and where the first two stand."""

    linear: nn.Linear
    normalization: nn.BatchNorm1d | None
    activation: Activation
    places: tuple[str, str]

    @property
    def epsilon(self) -> float | None:
        """ε of the normalization, or None without one."""
        return None if self.normalization is None else self.normalization.eps

    def layer(self) -> Layer:
        """The parameters in float64; what the modules do not have is what it does without."""
        weight = _parameter(self.linear.weight)
        zeros = weight.new_zeros(len(weight))
        bias = zeros if self.linear.bias is None else _parameter(self.linear.bias)
        if self.normalization is None:
            return Layer(weight, bias)
        if not self.normalization.affine:
            return Layer(weight, bias, zeros + 1, zeros)
        return Layer(weight, bias, _parameter(self.normalization.weight), _parameter(self.normalization.bias))

    def write(self, layer: Layer) -> None:
        """Give the modules these parameters; ValueError for one that they have no place for."""
        self.linear.weight.copy_(layer.weight)
        if self.linear.bias is not None:
            self.linear.bias.copy_(layer.bias)
        elif layer.bias.any():
            raise ValueError(f"like: {self.places[0]} has no bias, but the network has one that is not zero")
        if self.normalization is None or layer.gamma is None or layer.beta is None:
            return
        if self.normalization.affine:
            self.normalization.weight.copy_(layer.gamma)
            self.normalization.bias.copy_(layer.beta)
        elif (layer.gamma != 1).any() or layer.beta.any():
            raise ValueError(f"like: {self.places[1]} has neither γ nor β, but those of the network are not 1 and 0")


def from_module(module: nn.Module) -> Parametrised:
    """The network that a module computes, with its parameters.

    Two linear layers in a row have the identity between them, a linear layer without bias has zero biases. Batch
    normalization is that over the inputs of the pass, as in training mode, whatever the running statistics are; an
    `nn.Softplus` switches to the line at its threshold, where `softplus` goes on. Dropout in evaluation mode is passed
    over.

    Args:
        module: an `nn.Linear` or an `nn.Sequential` of linear layers, activations and batch normalization.

    Returns:
        θ, (P,) float64: a copy, cut off from the module's gradients.

    Raises:
        ValueError: naming the module that has no counterpart here, and its place.

    Example:
        >>> module = nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.2), nn.Linear(3, 1))
        >>> point = from_module(module)
        >>> point.network.widths, point.network.activations[0].name
        ((2, 3, 1), 'leaky_relu(0.2)')
    """
    steps = list(_steps(module))
    *hidden, last = steps
    if last.activation != identity or last.normalization is not None:
        raise ValueError(
            "module: it must end in a linear layer; take off what follows (cross-entropy contains the softmax)"
        )
    epsilons = [step.epsilon for step in hidden]
    if len(set(epsilons)) > 1:
        raise ValueError(
            "module: batch normalization, of one eps, must stand before all activations or before none; "
            f"found eps = {', '.join(map(str, epsilons))}"
        )
    widths = (steps[0].linear.in_features, *(step.linear.out_features for step in steps))
    network = Network(widths, tuple(step.activation for step in hidden), epsilons[0] if epsilons else None)
    return Parametrised(network, flatten([step.layer() for step in steps]))


@checked
def to_module(point: Parametrised, *, like: nn.Module | None = None) -> nn.Module:
    """The module that computes a network with its parameters: the inverse of `from_module`.

    Args:
        point: θ, (P,).
        like: a module of the same layers, whose names, float types and settings the result takes over; it is not
            changed. Without it, a flat `nn.Sequential` of float64, named 0, 1, ….

    Raises:
        ValueError: for a batch of parameters, an activation that torch has no module for, or a `like` of other layers.

    Example:
        >>> module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> back = to_module(from_module(module), like=module)
        >>> all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), back.state_dict().values()))
        True
    """
    if point.theta.dim() != 1:
        raise ValueError(f"point: expected one network, got a batch of {tuple(point.theta.shape[:-1])}; take one of it")
    module = _built(point.network) if like is None else copy.deepcopy(like)
    found = from_module(module).network
    if found != point.network:
        raise ValueError(f"like: computes {found}, not {point.network}")
    steps = list(_steps(module))
    if len({step.linear for step in steps}) < len(steps):
        raise ValueError("like: the same linear layer stands there twice, so it cannot have the parameters of two")
    with torch.no_grad():
        for step, layer in zip(steps, point.layers()):
            step.write(layer)
    return module


def _steps(module: nn.Module) -> Iterator[_Step]:
    """The layers of a module in their order; ValueError for what has no place in it."""
    parts = list(_leaves("", module))
    if not parts:
        raise ValueError("module: it holds no layer")
    while parts:
        name, linear = parts.pop(0)
        if type(linear) is not nn.Linear:
            raise ValueError(f"module: {_place(name, linear)} stands where a linear layer must; {_known()}")
        places, normalization, activation = [_place(name, linear), ""], None, identity
        if parts and isinstance(parts[0][1], nn.BatchNorm1d):
            normalization = parts[0][1]
            places[1] = _place(*parts.pop(0))
        if parts and not isinstance(parts[0][1], nn.Linear):
            activation = _activation(*parts.pop(0))
        yield _Step(linear, normalization, activation, (places[0], places[1]))


def _leaves(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules in the order in which a nested `nn.Sequential` applies them, with their names."""
    if not isinstance(module, nn.Module):
        raise ValueError(f"module: expected an nn.Sequential, got {type(module).__name__}")
    if type(module) is nn.Sequential:
        # Not `named_children`, which passes over a module that stands there a second time.
        for key, part in module.named_modules(remove_duplicate=False):
            if key and "." not in key:
                yield from _leaves(f"{name}.{key}" if name else key, part)
    elif not isinstance(module, nn.Dropout) or module.training:
        yield name, module


def _activation(name: str, module: nn.Module) -> Activation:
    if type(module) is nn.LeakyReLU:
        if module.negative_slope in (0.0, 1.0):
            raise ValueError(f"module: {_place(name, module)} is not leaky; put nn.ReLU or nn.Identity there")
        return leaky_relu(module.negative_slope)
    for kind, settings, activation in _ACTIVATIONS:
        if type(module) is kind:
            for setting, value in settings.items():
                if getattr(module, setting) != value:
                    raise ValueError(
                        f"module: {_place(name, module)} is not {activation.name}, for which {setting} = {value}"
                    )
            return activation
    raise ValueError(f"module: {_place(name, module)} has no counterpart here; {_known()}")


def _known() -> str:
    kinds = (nn.Linear, nn.BatchNorm1d, nn.LeakyReLU, *(kind for kind, _, _ in _ACTIVATIONS))
    return f"known are {', '.join(kind.__name__ for kind in kinds)}, and Dropout in evaluation mode"


def _place(name: str, module: nn.Module) -> str:
    return f"{module} at {name!r}" if name else str(module)


def _parameter(parameter: Tensor) -> Tensor:
    if not parameter.is_floating_point():
        raise ValueError(f"module: expected parameters that are real floating-point numbers, got {parameter.dtype}")
    return parameter.detach().double()


def _built(network: Network) -> nn.Sequential:
    parts: list[nn.Module] = []
    for fan_in, fan_out, activation in zip(network.widths, network.widths[1:], (*network.activations, None)):
        parts.append(nn.Linear(fan_in, fan_out, dtype=torch.float64))
        if activation is None:
            break
        if network.batch_norm_epsilon is not None:
            # Without running statistics the module normalizes over its inputs, as `Network` does, in either mode.
            parts.append(
                nn.BatchNorm1d(fan_out, network.batch_norm_epsilon, track_running_stats=False, dtype=torch.float64)
            )
        parts.append(_activation_module(activation))
    return nn.Sequential(*parts)


def _activation_module(activation: Activation) -> nn.Module:
    if activation.name.startswith("leaky_relu"):
        return nn.LeakyReLU(activation.parameters[0])
    if activation.name not in _MODULES:
        raise ValueError(f"point: torch has no module for the activation {activation.name}")
    return _MODULES[activation.name]()
