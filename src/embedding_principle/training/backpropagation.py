"""Forward and backward pass of S networks at once, written by hand into buffers that are allocated once.

Arrays are laid out (S, units, n): a batch of S networks first, the samples last. With the bias as the last column of
V = (W, b) and a = (f, 1), one batched product gives the pre-activations z = V a, and one more the gradient
∂R_S/∂V = δ aᵀ, where δ = ∂R_S/∂z. The parameters lie layer by layer, not network by network: so the matrices V of a
layer are one block, and all networks' first layers, which have the same inputs, are one matrix product.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedding_principle.activations import Activation, Elementwise, relu, sigmoid, tanh
from embedding_principle.arguments import checked, variable
from embedding_principle.networks import Network, with_ones
from embedding_principle.risks import Risk

Array = NDArray[np.float64]

Writing = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class _InPlace:
    """σ without temporaries: `forward(z, f)` writes f = σ(z), using z up; `backward(δ, f)` multiplies δ by σ′(z)."""

    forward: Writing
    backward: Writing


def _tanh_by_exp(z: Tensor, f: Tensor) -> None:
    """Write 1 − 2/(1 + e^{2z}) to f; z is lost.

    The C library's tanh takes up to twice as long as exp and what is done around it. The absolute error is a rounding
    of 1, the relative error of a small f is larger: good for training, where f is added to numbers of any size.
    """
    z.mul_(2).exp_().add_(1).reciprocal_()
    torch.sub(_ONE, z, alpha=2, out=f)


def _tanh_by_numpy(z: Tensor, f: Tensor) -> None:
    """Write tanh z to f; z is lost. With AVX-512 NumPy takes less time than the other way, without it more."""
    with np.errstate(all="ignore"):
        np.tanh(z.numpy(), out=z.numpy())
    f.copy_(z)


_ONE = torch.ones((), dtype=torch.float64)

# By σ and σ′ themselves: another curve that bears the name of one of these is computed as it says.
_IN_PLACE: dict[tuple[Elementwise, Elementwise], _InPlace] = {
    (tanh.function, tanh.first): _InPlace(
        _tanh_by_numpy if torch.backends.cpu.get_cpu_capability() == "AVX512" else _tanh_by_exp,
        lambda delta, f: torch.ops.aten.tanh_backward.grad_input(delta, f, grad_input=delta),
    ),
    (sigmoid.function, sigmoid.first): _InPlace(
        lambda z, f: torch.sigmoid(z, out=f),
        lambda delta, f: torch.ops.aten.sigmoid_backward.grad_input(delta, f, grad_input=delta),
    ),
    (relu.function, relu.first): _InPlace(
        lambda z, f: torch.clamp_min(z, 0, out=f),
        lambda delta, f: torch.ops.aten.threshold_backward.grad_input(delta, f, 0, grad_input=delta),
    ),
}


class Backpropagation:
    """The risk and its gradient for S networks whose parameters change in place.

    Attributes:
        parameters: `pack(θ)`, (S·P,); an optimizer updates it in place.
        gradient: ∇R_S in the same order, (S·P,), as `backward` leaves it.

    Raises:
        ValueError: if θ is not of shape (S, P).

    Example:
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> risk = Risk(Network.uniform((1, 2, 1), tanh), x, x)
        >>> theta = torch.ones(3, 7, dtype=torch.float64)
        >>> propagation = Backpropagation(risk, theta)
        >>> propagation.forward()
        >>> propagation.backward()
        >>> torch.allclose(propagation.unpack(propagation.gradient), risk.gradient(theta))
        True
    """

    @checked
    def __init__(self, risk: Risk, theta: Tensor) -> None:
        theta = variable("theta", theta, (*theta.shape[:1], risk.network.n_parameters)).detach()
        self._loss, self._targets = risk.loss, risk.targets
        network, epsilon = risk.network, risk.network.batch_norm_epsilon
        layers = _layer_major(network, torch.arange(theta.numel()).view(theta.shape))
        self._shape = theta.shape
        self._order = torch.cat([part.flatten() for layer in layers for part in layer])
        self.parameters = self.pack(theta)
        self.gradient = torch.zeros_like(self.parameters)
        features = with_ones(risk.inputs.mT, dim=-2).numpy()
        self._affine: list[_Affine] = []
        self._hidden: list[_Hidden] = []
        views = zip(_views(layers, self.parameters), _views(layers, self.gradient))
        for (layer, gradient), activation in zip_longest(views, network.activations):
            self._affine.append(_Affine(layer[0], gradient[0], features))
            if activation:
                normalization = _Normalization(layer[1:], gradient[1:], epsilon) if epsilon is not None else None
                self._hidden.append(_Hidden(self._affine[-1], activation, normalization))
                features = self._hidden[-1].features

    def pack(self, theta: Tensor) -> Tensor:
        """Entries (S, P) in the order of `Network` as (S·P,) in the order of `parameters`; a copy."""
        return theta.flatten()[self._order]

    def unpack(self, packed: Tensor) -> Tensor:
        """The inverse of `pack`; a copy."""
        theta = torch.empty_like(packed)
        theta[self._order] = packed
        return theta.view(self._shape)

    @property
    def theta(self) -> Tensor:
        """The parameters in the order of `Network`, (S, P); a copy."""
        return self.unpack(self.parameters)

    @property
    def outputs(self) -> Tensor:
        """f_θ(x_i) as the last forward pass found it, (S, n, m_L)."""
        return self._affine[-1].z.mT

    def risk(self) -> Tensor:
        """R_S of each network at the last forward pass, (S,)."""
        return self._loss.value(self.outputs, self._targets).mean(-1)

    def forward(self) -> None:
        """Compute features and outputs for the present parameters."""
        for affine, hidden in zip(self._affine, self._hidden):
            affine.forward()
            hidden.forward()
        self._affine[-1].forward()

    def backward(self) -> None:
        """Compute the gradient at the parameters of the last forward pass."""
        last = self._affine[-1]
        torch.div(self._loss.residuals(self.outputs, self._targets).mT, len(self._targets), out=last.delta)
        for index in range(len(self._hidden), 0, -1):
            self._affine[index].backward(self._affine[index - 1].delta)
            self._hidden[index - 1].backward()
        self._affine[0].backward()


def _layer_major(network: Network, theta: Tensor) -> list[list[Tensor]]:
    """For each layer of S networks its V = (W, b), (S, m_l, m_{l−1} + 1), and γ and β, if it has them, (S, m_l)."""
    return [
        [torch.cat([weight, bias[..., None]], dim=-1), *scaling] for weight, bias, *scaling in network.layers(theta)
    ]


def _views(layers: list[list[Tensor]], packed: Tensor) -> list[list[Tensor]]:
    """The consecutive entries of `packed` in the shapes of these layers."""
    parts = iter(torch.split(packed, [part.numel() for layer in layers for part in layer]))
    return [[next(parts).view(part.shape) for part in layer] for layer in layers]


class _Affine:
    """z = V a, and back from δ to ∂R_S/∂V = δ aᵀ and, below, ∂R_S/∂f = Wᵀ δ."""

    def __init__(self, matrix: Tensor, gradient: Tensor, features: Array) -> None:
        self._weights = matrix[:, :, :-1]
        self.z = torch.empty(*matrix.shape[:-1], features.shape[-1], dtype=torch.float64)
        self.delta = torch.empty_like(self.z)
        self._matrix, self._gradient, self._z, self._delta = (
            _rows(part, shared=features.ndim == 2) for part in (matrix, gradient, self.z, self.delta)
        )
        self._features = features
        transposed = features.swapaxes(-1, -2)
        self._transposed = transposed if features.ndim > 2 else np.ascontiguousarray(transposed)

    def forward(self) -> None:
        """Find z from the features."""
        np.matmul(self._matrix, self._features, out=self._z)

    def backward(self, pulled: Tensor | None = None) -> None:
        """Find the gradient of the weights and, where wanted, write ∂R_S/∂f to `pulled`."""
        np.matmul(self._delta, self._transposed, out=self._gradient)
        if pulled is None:
            return
        if self.delta.shape[1] > 1:
            np.matmul(self._weights.numpy().swapaxes(1, 2), self.delta.numpy(), out=pulled.numpy())
        else:  # an outer product, for which matmul is slow
            torch.mul(self._weights.mT, self.delta, out=pulled)


def _rows(part: Tensor, *, shared: bool) -> Array:
    """A part (S, m, k), as one matrix (S·m, k) where all networks share their features."""
    return (part.view(-1, part.shape[-1]) if shared else part).numpy()


class _Normalization:
    """z ↦ γ ẑ + β in place, and back: δ ↦ γ/s · (δ − mean δ − ẑ mean(δ ẑ)), s the standard deviation of z."""

    def __init__(self, scaling: Sequence[Tensor], gradient: Sequence[Tensor], epsilon: float) -> None:
        self._gamma, self._beta = (part[..., None] for part in scaling)
        self._gamma_gradient, self._beta_gradient = gradient
        self._epsilon = epsilon

    def forward(self, z: Tensor) -> None:
        """Replace z (S, m_l, n) by γ ẑ + β."""
        self._standardized = z - z.mean(-1, keepdim=True)
        # torch.var_mean takes several times as long: it is written for long, uncentred rows.
        variance = self._standardized.square().mean(-1, keepdim=True)
        self._scale = torch.rsqrt(variance + self._epsilon)
        self._standardized *= self._scale
        torch.addcmul(self._beta, self._gamma, self._standardized, out=z)

    def backward(self, delta: Tensor) -> None:
        """Replace δ (S, m_l, n) by that of the z before normalization, and find the gradient in γ and β."""
        mean = delta.mean(-1, keepdim=True)
        moment = (delta * self._standardized).mean(-1, keepdim=True)
        n = delta.shape[-1]
        torch.mul(mean[..., 0], n, out=self._beta_gradient)
        torch.mul(moment[..., 0], n, out=self._gamma_gradient)
        delta -= mean
        delta.addcmul_(self._standardized, moment, value=-1)
        delta *= self._scale * self._gamma


class _Hidden:
    """f = σ(z), after batch normalization of z where the network has it, and back from ∂R_S/∂f to ∂R_S/∂z."""

    def __init__(self, affine: _Affine, activation: Activation, normalization: _Normalization | None) -> None:
        self._affine, self._activation, self._normalization = affine, activation, normalization
        self._in_place = _IN_PLACE.get((activation.function, activation.first))
        self.features = with_ones(torch.zeros_like(affine.z), dim=-2).numpy()
        self._f = torch.from_numpy(self.features)[:, :-1]

    def forward(self) -> None:
        """Find the features from z, normalized in place first where the network does so."""
        z = self._affine.z
        if self._normalization:
            self._normalization.forward(z)
        if self._in_place:
            self._in_place.forward(z, self._f)
        else:
            self._f.copy_(self._activation(z))

    def backward(self) -> None:
        """Turn ∂R_S/∂f in `delta` of the affine map into ∂R_S/∂z."""
        z, delta = self._affine.z, self._affine.delta
        if self._in_place:
            self._in_place.backward(delta, self._f)
        else:
            delta *= self._activation.first(z)
        if self._normalization:
            self._normalization.backward(delta)
