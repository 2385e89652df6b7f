"""Fully connected networks NN(m_0, …, m_L) as functions of one flat parameter vector θ.

θ = (W[1], b[1], …, W[L], b[L]), each W[l] ∈ R^{m_l × m_{l−1}} row by row; with batch normalization every hidden
layer adds (γ[l], β[l]) after its b[l]. θ has shape (..., P): leading dimensions are a batch of networks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from embedding_principle.activations import Activation

# Doubles (2 MB): larger temporaries leave the cache and are asked of the system anew each time, which makes an
# evaluation on thousands of inputs two to three times as slow.
_CACHED = 1 << 18


class Layer(NamedTuple):
    """One layer's parameters; γ and β are None where there is no batch normalization.

    Shapes: weight (..., m_l, m_{l−1}); bias, gamma, beta (..., m_l).
    """

    weight: Tensor
    bias: Tensor
    gamma: Tensor | None = None
    beta: Tensor | None = None


@dataclass(frozen=True)
class Trace:
    """What a forward pass computes, layer by layer, for n inputs.

    Attributes:
        preactivations: z[1], …, z[L−1], what σ is applied to (after normalization, if any), each (..., n, m_l).
        features: f[0] = x, f[1], …, f[L−1], each (..., n, m_l).
        output: f[L], (..., n, m_L).
    """

    preactivations: tuple[Tensor, ...]
    features: tuple[Tensor, ...]
    output: Tensor


@dataclass(frozen=True)
class Network:
    """The architecture NN(m_0, …, m_L); it holds no parameters.

    f[0](x) = x, f[l] = σ_l(W[l] f[l−1] + b[l]) for l < L, f[L] = W[L] f[L−1] + b[L].

    Attributes:
        widths: (m_0, …, m_L).
        activations: (σ_1, …, σ_{L−1}), one per hidden layer.
        batch_norm_epsilon: None without batch normalization; otherwise the ε of Ioffe and Szegedy (2015):
            z ↦ γ (z − mean) / sqrt(var + ε) + β with mean and (biased) variance over the n inputs of the pass.

    Raises:
        ValueError: if a width is not a positive integer, or the number of activations is not L − 1.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> network = Network.uniform((1, 2, 1), tanh)
        >>> network.n_parameters
        7
        >>> network.forward(torch.zeros(7), torch.ones(5, 1)).shape
        torch.Size([5, 1])
    """

    widths: tuple[int, ...]
    activations: tuple[Activation, ...] = ()
    batch_norm_epsilon: float | None = None

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(not isinstance(m, int) or m < 1 for m in self.widths):
            raise ValueError(f"widths: need at least two positive integers, got {self.widths}")
        if len(self.activations) != self.depth - 1:
            raise ValueError(
                f"activations: {self.depth - 1} hidden layers need as many activations, got {len(self.activations)}"
            )

    @classmethod
    def uniform(
        cls, widths: Sequence[int], activation: Activation, *, batch_norm_epsilon: float | None = None
    ) -> "Network":
        """A network with the same activation in every hidden layer."""
        return cls(tuple(widths), (activation,) * (len(widths) - 2), batch_norm_epsilon)

    @property
    def depth(self) -> int:
        """L, the number of affine maps; there are L − 1 hidden layers."""
        return len(self.widths) - 1

    @property
    def n_parameters(self) -> int:
        """P, the length of θ."""
        return sum(math.prod(shape) for shapes in self._shapes() for shape in shapes)

    def _shapes(self) -> list[tuple[tuple[int, ...], ...]]:
        shapes: list[tuple[tuple[int, ...], ...]] = []
        for index, (fan_in, fan_out) in enumerate(zip(self.widths, self.widths[1:]), start=1):
            normalized = self.batch_norm_epsilon is not None and index < self.depth
            shapes.append(((fan_out, fan_in), (fan_out,), *(((fan_out,),) * 2 if normalized else ())))
        return shapes

    def layers(self, theta: Tensor) -> list[Layer]:
        """Split θ (..., P) into its layers; the tensors are views of θ.

        Raises:
            ValueError: if the last dimension of θ is not P.
        """
        if theta.shape[-1] != self.n_parameters:
            raise ValueError(f"theta: expected last dimension {self.n_parameters}, got {tuple(theta.shape)}")
        layers, start = [], 0
        for shapes in self._shapes():
            parts = []
            for shape in shapes:
                stop = start + math.prod(shape)
                parts.append(theta[..., start:stop].view(*theta.shape[:-1], *shape))
                start = stop
            layers.append(Layer(*parts))
        return layers

    def trace(self, theta: Tensor, inputs: Tensor) -> Trace:
        """The forward pass with every layer's pre-activations and features.

        Args:
            theta: (..., P).
            inputs: (n, m_0), or (..., n, m_0) to give each network of the batch inputs of its own.
        """
        features = [inputs]
        preactivations = []
        layers = self.layers(theta)
        for layer, activation in zip(layers, self.activations):
            z = self._normalize(_affine(layer, features[-1]), layer)
            preactivations.append(z)
            features.append(activation(z))
        return Trace(tuple(preactivations), tuple(features), _affine(layers[-1], features[-1]))

    def forward(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """The output f_θ(x_i) for every input, (..., n, m_L), found for so many inputs at a time as the cache holds.

        Example:
            >>> Network((2, 1)).forward(torch.ones(10, 3), torch.ones(100_000, 2)).shape
            torch.Size([10, 100000, 1])
        """
        networks = math.prod(theta.shape[:-1])
        rows = max(1, _CACHED // (max(1, networks) * max(self.widths)))
        if self.batch_norm_epsilon is not None or inputs.shape[-2] <= rows:
            return self.trace(theta, inputs).output
        return torch.cat([self.trace(theta, block).output for block in torch.split(inputs, rows, dim=-2)], dim=-2)

    def _normalize(self, z: Tensor, layer: Layer) -> Tensor:
        if layer.gamma is None or layer.beta is None or self.batch_norm_epsilon is None:
            return z
        variance, mean = torch.var_mean(z, dim=-2, keepdim=True, correction=0)
        standardized = (z - mean) * torch.rsqrt(variance + self.batch_norm_epsilon)
        return standardized * layer.gamma.unsqueeze(-2) + layer.beta.unsqueeze(-2)

    def initial(
        self, generator: Generator, *, scale: float = 1.0, bias_scale: float = 0.0, batch: Sequence[int] = ()
    ) -> Tensor:
        """Random θ of shape (*batch, P), float64: W ~ N(0, scale²/fan_in), b ~ N(0, bias_scale²), γ = 1, β = 0.

        scale = 1 keeps the variance through identity layers; scale = sqrt(2) is He's choice for ReLU.

        Example:
            >>> from embedding_principle.activations import relu
            >>> g = torch.Generator().manual_seed(0)
            >>> Network.uniform((3, 4, 2), relu).initial(g, batch=(10,)).shape
            torch.Size([10, 26])
        """
        theta = torch.randn(*batch, self.n_parameters, generator=generator, dtype=torch.float64)
        for layer in self.layers(theta):  # views: in-place changes write to θ
            layer.weight.mul_(scale / math.sqrt(layer.weight.shape[-1]))
            layer.bias.mul_(bias_scale)
            if layer.gamma is not None and layer.beta is not None:
                layer.gamma.fill_(1.0)
                layer.beta.zero_()
        return theta


def _affine(layer: Layer, features: Tensor) -> Tensor:
    return (features @ layer.weight.mT).add_(layer.bias.unsqueeze(-2))


def flatten(layers: Sequence[Layer]) -> Tensor:
    """The flat θ of these layers: the inverse of `Network.layers`.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> network = Network.uniform((2, 3, 1), tanh)
        >>> theta = torch.arange(13.0)
        >>> torch.equal(flatten(network.layers(theta)), theta)
        True
    """
    parts = []
    for layer in layers:
        parts.append(layer.weight.flatten(-2))
        parts.extend(part for part in layer[1:] if part is not None)
    return torch.cat(parts, dim=-1)
