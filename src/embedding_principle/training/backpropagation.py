"""Forward and backward pass of S networks at once, written by hand into buffers that are allocated once.

Arrays are features first, (S, m_l, n). Every bias is the last column of its weight matrix, which acts on features
with a row of ones below them: one batched product then gives W f + b, and one more the gradient in both.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedding_principle.activations import Activation, relu, sigmoid, tanh
from embedding_principle.networks import Network
from embedding_principle.risks import Risk

Array = NDArray[np.float64]

Elementwise = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class _InPlace:
    """σ without temporaries: `forward(z, f)` writes f = σ(z), `backward(δ, f)` multiplies δ by σ′, found from f."""

    forward: Elementwise
    backward: Elementwise


_IN_PLACE: dict[Activation, _InPlace] = {
    tanh: _InPlace(
        lambda z, f: torch.tanh(z, out=f),
        lambda delta, f: torch.ops.aten.tanh_backward.grad_input(delta, f, grad_input=delta),
    ),
    sigmoid: _InPlace(
        lambda z, f: torch.sigmoid(z, out=f),
        lambda delta, f: torch.ops.aten.sigmoid_backward.grad_input(delta, f, grad_input=delta),
    ),
    relu: _InPlace(
        lambda z, f: torch.clamp_min(z, 0, out=f),
        lambda delta, f: torch.ops.aten.threshold_backward.grad_input(delta, f, 0, grad_input=delta),
    ),
}


@dataclass(frozen=True)
class _Parameters:
    """One layer's parameters (or their gradient) as views of the flat tensor."""

    weight: Tensor  # (S, m_l, m_{l−1} + 1), the bias last
    gamma: Tensor  # (S, m_l) with batch normalization, otherwise (S, 0)
    beta: Tensor


def _views(network: Network, flat: Tensor) -> list[_Parameters]:
    views, start = [], 0
    for index, (fan_in, width) in enumerate(zip(network.widths, network.widths[1:]), start=1):
        normalized = network.batch_norm_epsilon is not None and index < network.depth
        sizes = [width * (fan_in + 1), *([width, width] if normalized else [0, 0])]
        weight, gamma, beta = torch.split(flat[:, start : start + sum(sizes)], sizes, -1)
        views.append(_Parameters(weight.view(len(flat), width, fan_in + 1), gamma, beta))
        start += sum(sizes)
    return views


def _order(network: Network) -> Tensor:
    """Where each entry of the views' flat tensor stands in θ."""
    parts = []
    for layer in network.layers(torch.arange(network.n_parameters)):
        parts.append(torch.cat([layer.weight, layer.bias[:, None]], -1).flatten())
        parts.extend(part for part in layer[2:] if part is not None)
    return torch.cat(parts)


class Backpropagation:
    """The risk and its gradient for S networks whose parameters change in place.

    Attributes:
        parameters: θ[:, order], (S, P); an optimizer updates it in place.
        gradient: ∇R_S in the same order, (S, P), as `backward` leaves it.
        order: a permutation of 0..P−1 that puts each bias beside its weights.

    Example:
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> risk = Risk(Network.uniform((1, 2, 1), tanh), x, x)
        >>> theta = torch.ones(3, 7, dtype=torch.float64)
        >>> passes = Backpropagation(risk, theta)
        >>> passes.forward()
        >>> passes.backward()
        >>> torch.allclose(passes.gradient, risk.gradient(theta)[:, passes.order])
        True
    """

    def __init__(self, risk: Risk, theta: Tensor) -> None:
        self._loss, self._targets, network = risk.loss, risk.targets, risk.network
        self.order = _order(network)
        self.parameters = theta[:, self.order]
        self.gradient = torch.zeros_like(self.parameters)
        feed = _with_ones(risk.inputs.mT)
        self._affine: list[_Affine] = []
        self._hidden: list[_Hidden] = []
        for index, views in enumerate(zip(_views(network, self.parameters), _views(network, self.gradient))):
            self._affine.append(_Affine(*views, feed))
            if index < network.depth - 1:
                activation = network.activations[index]
                self._hidden.append(_Hidden(self._affine[-1], activation, *views, network.batch_norm_epsilon))
                feed = self._hidden[-1].feed

    @property
    def theta(self) -> Tensor:
        """The parameters in the order of `Network`, (S, P); a copy."""
        theta = torch.empty_like(self.parameters)
        theta[:, self.order] = self.parameters
        return theta

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


def _with_ones(features: Tensor) -> Array:
    """Features (..., m, n) in a buffer with a last row of ones, (..., m + 1, n)."""
    return torch.cat([features, torch.ones_like(features[..., :1, :])], -2).numpy()


class _Affine:
    """z = W f + b, and back from δ = ∂R_S/∂z."""

    def __init__(self, parameters: _Parameters, gradient: _Parameters, feed: Array) -> None:
        self._weights = parameters.weight[:, :, :-1]
        self._matrix, self._gradient, self._feed = parameters.weight.numpy(), gradient.weight.numpy(), feed
        transposed = feed.swapaxes(-1, -2)
        self._feed_transposed = transposed if feed.ndim > 2 else np.ascontiguousarray(transposed)
        self.z = torch.empty(*parameters.weight.shape[:-1], feed.shape[-1], dtype=torch.float64)
        self.delta = torch.empty_like(self.z)
        self._z, self._delta = self.z.numpy(), self.delta.numpy()

    def forward(self) -> None:
        """Find z from the features in the feed."""
        np.matmul(self._matrix, self._feed, out=self._z)

    def backward(self, features_delta: Tensor | None = None) -> None:
        """Find the gradient of the weights and, where wanted, write ∂R_S/∂f to `features_delta`."""
        np.matmul(self._delta, self._feed_transposed, out=self._gradient)
        if features_delta is None:
            return
        if len(self._delta[0]) > 1:
            np.matmul(self._weights.numpy().swapaxes(1, 2), self._delta, out=features_delta.numpy())
        else:  # an outer product, for which matmul is slow
            torch.mul(self._weights.mT, self.delta, out=features_delta)


class _Hidden:
    """f = σ(z), after batch normalization of z where the network has it, and back from ∂R_S/∂f to ∂R_S/∂z."""

    def __init__(
        self,
        affine: _Affine,
        activation: Activation,
        parameters: _Parameters,
        gradient: _Parameters,
        epsilon: float | None,
    ) -> None:
        self._affine, self._activation, self._in_place = affine, activation, _IN_PLACE.get(activation)
        self._normalization = None if epsilon is None else _Normalization(parameters, gradient, epsilon)
        self.feed = _with_ones(torch.zeros_like(affine.z))
        self._features = torch.from_numpy(self.feed)[:, :-1]

    def forward(self) -> None:
        """Find the features from z, normalized in place first where the network does so."""
        z = self._affine.z
        if self._normalization:
            self._normalization.forward(z)
        if self._in_place:
            self._in_place.forward(z, self._features)
        else:
            self._features.copy_(self._activation(z))

    def backward(self) -> None:
        """Turn ∂R_S/∂f in `delta` of the affine map into ∂R_S/∂z."""
        z, delta = self._affine.z, self._affine.delta
        if self._in_place:
            self._in_place.backward(delta, self._features)
        else:
            delta *= self._activation.first(z)
        if self._normalization:
            self._normalization.backward(delta)


class _Normalization:
    """z ↦ γ ẑ + β in place, and back: δ ↦ γ/s · (δ − mean δ − ẑ mean(δ ẑ)), s the standard deviation of z."""

    def __init__(self, parameters: _Parameters, gradient: _Parameters, epsilon: float) -> None:
        self._gamma, self._beta = parameters.gamma[..., None], parameters.beta[..., None]
        self._gradient, self._epsilon = gradient, epsilon

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
        slope = (delta * self._standardized).mean(-1, keepdim=True)
        n = delta.shape[-1]
        torch.mul(mean[..., 0], n, out=self._gradient.beta)
        torch.mul(slope[..., 0], n, out=self._gradient.gamma)
        delta -= mean
        delta.addcmul_(self._standardized, slope, value=-1)
        delta *= self._scale * self._gamma
