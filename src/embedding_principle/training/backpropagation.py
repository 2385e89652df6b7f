"""Forward and backward pass of S networks at once, written by hand into buffers that are allocated once.

Arrays are laid out (S, units, n): a batch of S networks first, the samples last. With the bias as the last column of
V = (W, b) and a = (f, 1), one batched product gives the pre-activations z = V a, and one more the gradient
∂R_S/∂V = δ aᵀ, where δ = ∂R_S/∂z.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedding_principle.activations import Activation, Elementwise, relu, sigmoid, tanh
from embedding_principle.arguments import checked, variable
from embedding_principle.networks import AugmentedLayer, with_ones
from embedding_principle.risks import Risk

Array = NDArray[np.float64]

Writing = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class _InPlace:
    """σ without temporaries: `forward(z, f)` writes f = σ(z), `backward(δ, f)` multiplies δ by σ′, found from f."""

    forward: Writing
    backward: Writing


# By σ and σ′ themselves: another curve that bears the name of one of these is computed as it says.
_IN_PLACE: dict[tuple[Elementwise, Elementwise], _InPlace] = {
    (tanh.function, tanh.first): _InPlace(
        lambda z, f: torch.tanh(z, out=f),
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
        parameters: θ[:, order], (S, P); an optimizer updates it in place.
        gradient: ∇R_S in the same order, (S, P), as `backward` leaves it.
        order: `Network.augmented_order`, (P,).

    Raises:
        ValueError: if θ is not of shape (S, P).

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> risk = Risk(Network.uniform((1, 2, 1), tanh), x, x)
        >>> theta = torch.ones(3, 7, dtype=torch.float64)
        >>> propagation = Backpropagation(risk, theta)
        >>> propagation.forward()
        >>> propagation.backward()
        >>> torch.allclose(propagation.gradient, risk.gradient(theta)[:, propagation.order])
        True
    """

    @checked
    def __init__(self, risk: Risk, theta: Tensor) -> None:
        theta = variable("theta", theta, (*theta.shape[:1], risk.network.n_parameters)).detach()
        self._loss, self._targets = risk.loss, risk.targets
        network, epsilon = risk.network, risk.network.batch_norm_epsilon
        self.order = network.augmented_order()
        self.parameters = theta[:, self.order]
        self.gradient = torch.zeros_like(self.parameters)
        features = with_ones(risk.inputs.mT, dim=-2).numpy()
        self._affine: list[_Affine] = []
        self._hidden: list[_Hidden] = []
        layers = zip(network.augmented_layers(self.parameters), network.augmented_layers(self.gradient))
        for (layer, gradient), activation in zip_longest(layers, network.activations):
            self._affine.append(_Affine(layer.matrix, gradient.matrix, features))
            if activation:
                normalization = _Normalization(layer, gradient, epsilon) if epsilon is not None else None
                self._hidden.append(_Hidden(self._affine[-1], activation, normalization))
                features = self._hidden[-1].features

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


class _Affine:
    """z = V a, and back from δ to ∂R_S/∂V = δ aᵀ and, below, ∂R_S/∂f = Wᵀ δ."""

    def __init__(self, matrix: Tensor, gradient: Tensor, features: Array) -> None:
        self._weights = matrix[:, :, :-1]
        self._matrix, self._gradient, self._features = matrix.numpy(), gradient.numpy(), features
        transposed = features.swapaxes(-1, -2)
        self._transposed = transposed if features.ndim > 2 else np.ascontiguousarray(transposed)
        self.z = torch.empty(*matrix.shape[:-1], features.shape[-1], dtype=torch.float64)
        self.delta = torch.empty_like(self.z)
        self._z, self._delta = self.z.numpy(), self.delta.numpy()

    def forward(self) -> None:
        """Find z from the features."""
        np.matmul(self._matrix, self._features, out=self._z)

    def backward(self, pulled: Tensor | None = None) -> None:
        """Find the gradient of the weights and, where wanted, write ∂R_S/∂f to `pulled`."""
        np.matmul(self._delta, self._transposed, out=self._gradient)
        if pulled is None:
            return
        if self._delta.shape[1] > 1:
            np.matmul(self._weights.numpy().swapaxes(1, 2), self._delta, out=pulled.numpy())
        else:  # an outer product, for which matmul is slow
            torch.mul(self._weights.mT, self.delta, out=pulled)


class _Normalization:
    """z ↦ γ ẑ + β in place, and back: δ ↦ γ/s · (δ − mean δ − ẑ mean(δ ẑ)), s the standard deviation of z."""

    def __init__(self, layer: AugmentedLayer, gradient: AugmentedLayer, epsilon: float) -> None:
        self._gamma, self._beta = (part[..., None] for part in layer.scaling)
        self._gamma_gradient, self._beta_gradient = gradient.scaling
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
