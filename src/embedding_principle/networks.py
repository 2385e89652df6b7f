"""Fully connected networks NN(m_0, …, m_L) as functions of one flat parameter vector θ.

θ = (W[1], b[1], …, W[L], b[L]), each W[l] ∈ R^{m_l × m_{l−1}} row by row; with batch normalization every hidden
layer adds (γ[l], β[l]) after its b[l]. θ has shape (..., P): leading dimensions are a batch of networks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Generator, Tensor, nn

from embedding_principle.activations import Activation
from embedding_principle.arguments import (
    check_fields,
    checked,
    number,
    require_common_batch,
    require_room,
    require_shape,
    require_tensor,
    variable,
    whole,
)

# Doubles (2 MB): larger temporaries leave the cache and are asked of the system anew each time, which makes an
# evaluation on thousands of inputs two to three times as slow.
_CACHED = 1 << 18


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer's parameters, in the order of θ; iteration passes over those that there are.

    Attributes:
        weight: W, (..., m_l, m_{l−1}).
        bias: b, (..., m_l).
        gamma: γ, (..., m_l); None where there is no batch normalization.
        beta: β, likewise.
    """

    weight: Tensor
    bias: Tensor
    gamma: Tensor | None = None
    beta: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return (part for part in (self.weight, self.bias, self.gamma, self.beta) if part is not None)

    @property
    def incoming(self) -> Tensor:
        """The incoming vector u = (w, b) of every neuron, (..., m_l, m_{l−1} + 1)."""
        return torch.cat([self.weight, self.bias.unsqueeze(-1)], -1)

    def variables(self, name: str) -> "Layer":
        """The same layer in float64, see `arguments.variable`; ValueError where its parts do not fit together."""
        weight = variable(f"{name}.weight", self.weight, (..., "m", "k"))
        others = [variable(f"{name}.bias", part, weight.shape[:-1]) for part in (*self,)[1:]]
        return Layer(weight, *others)


@dataclass(frozen=True, eq=False)
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
            Where ε = 0 a neuron that is constant on them has no normalization: it is not a number.

    Raises:
        ValueError: if a width is not a positive integer, the number of activations is not L − 1, or ε is negative.

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

    @staticmethod
    def instead_of(value: object) -> str:
        """What to give instead of this, for messages."""
        return "take modules.from_module(…).network" if isinstance(value, nn.Module) else "give one"

    def __post_init__(self) -> None:
        check_fields(self)
        # The class is frozen.
        object.__setattr__(self, "widths", tuple(map(int, self.widths)))
        object.__setattr__(self, "activations", tuple(self.activations))
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(f"widths: need at least two positive integers, got {self.widths}")
        if self.batch_norm_epsilon is not None:
            number("batch_norm_epsilon", self.batch_norm_epsilon, at_least=0.0)
        if len(self.activations) != self.depth - 1:
            raise ValueError(
                f"activations: {self.depth - 1} hidden layers need as many activations, got {len(self.activations)}"
            )

    @classmethod
    @checked
    def uniform(
        cls, widths: Sequence[int], activation: Activation, *, batch_norm_epsilon: float | None = None
    ) -> "Network":
        """A network with the same activation in every hidden layer."""
        return cls(tuple(widths), (activation,) * (len(widths) - 2), batch_norm_epsilon)

    @property
    def depth(self) -> int:
        """L, the number of affine maps; there are L − 1 hidden layers."""
        return len(self.widths) - 1

    @checked
    def inserted(self, position: int, width: int, activation: Activation) -> "Network":
        """The architecture with a hidden layer between layers q and q+1; ValueError unless q is among 0 … L−1.

        Example:
            >>> from embedding_principle.activations import tanh
            >>> Network((1, 2)).inserted(0, 3, tanh).without(0).widths
            (1, 2)
        """
        if not 0 <= position < self.depth:
            raise ValueError(f"position: {position} is not among 0 … {self.depth - 1} for widths {self.widths}")
        widths = (*self.widths[: position + 1], width, *self.widths[position + 1 :])
        activations = (*self.activations[:position], activation, *self.activations[position:])
        return replace(self, widths=widths, activations=activations)

    @checked
    def without(self, position: int) -> "Network":
        """The architecture without hidden layer q + 1, as before `inserted`; ValueError where there is none."""
        self.check_hidden(position)
        widths = (*self.widths[: position + 1], *self.widths[position + 2 :])
        activations = (*self.activations[:position], *self.activations[position + 1 :])
        return replace(self, widths=widths, activations=activations)

    @checked
    def with_activation(self, position: int, activation: Activation) -> "Network":
        """The architecture with another σ in hidden layer q + 1; ValueError where there is none."""
        self.check_hidden(position)
        return replace(self, activations=(*self.activations[:position], activation, *self.activations[position + 1 :]))

    @checked
    def check_hidden(self, position: int) -> None:
        """Refuse, by a ValueError, a position q at which there is no hidden layer q + 1."""
        if not 0 <= position < self.depth - 1:
            raise ValueError(
                f"position: no hidden layer at {position}; widths {self.widths} have positions 0 … {self.depth - 2}"
            )

    def check_one_hidden_layer(self, name: str) -> None:
        """Refuse, by a ValueError under this name, another number of hidden layers, or batch normalization."""
        if self.depth != 2 or self.batch_norm_epsilon is not None:
            raise ValueError(
                f"{name}: expected one hidden layer without batch normalization, got widths {self.widths}"
                f"{'' if self.batch_norm_epsilon is None else ' with it'}; give such a network"
            )

    @cached_property
    def n_parameters(self) -> int:
        """P, the length of θ."""
        return sum(math.prod(shape) for shapes in self._shapes for shape in shapes)

    @cached_property
    def _shapes(self) -> list[tuple[tuple[int, ...], ...]]:
        shapes: list[tuple[tuple[int, ...], ...]] = []
        for index, (fan_in, fan_out) in enumerate(zip(self.widths, self.widths[1:]), start=1):
            normalized = self.batch_norm_epsilon is not None and index < self.depth
            shapes.append(((fan_out, fan_in), (fan_out,), *(((fan_out,),) * 2 if normalized else ())))
        return shapes

    def layers(self, theta: Tensor) -> list[Layer]:
        """Split θ (..., P), or anything else that has an entry for each parameter, into its layers: views of it.

        Raises:
            ValueError: if it is no tensor with a last dimension of P.
        """
        return [Layer(*parts) for parts in self._split(theta, self._shapes)]

    def _split(self, theta: Tensor, groups: Sequence[Sequence[tuple[int, ...]]]) -> list[list[Tensor]]:
        """Views of consecutive entries of θ (..., P) in these shapes, group by group."""
        require_tensor("theta", theta)
        if theta.layout is not torch.strided:
            raise ValueError(f"theta: expected a dense tensor, got one of {theta.layout}; convert with .to_dense()")
        sizes = [math.prod(shape) for shapes in groups for shape in shapes]
        require_shape("theta", theta, (..., sum(sizes)))
        views = iter(torch.split(theta, sizes, dim=-1))
        return [[next(views).view(*theta.shape[:-1], *shape) for shape in shapes] for shapes in groups]

    def trace(self, theta: Tensor, inputs: Tensor) -> Trace:
        """The forward pass with every layer's pre-activations and features.

        Args:
            theta: (..., P). Entries that are not finite, or so large that float64 overflows, show in what is computed.
            inputs: (n, m_0), or (..., n, m_0) to give each network of the batch inputs of its own.

        Raises:
            ValueError: for other shapes, or numbers that are not floating-point ones.
        """
        return self._trace(*self._checked(theta, inputs))

    def _checked(self, theta: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        theta = variable("theta", theta, (..., self.n_parameters))
        inputs = variable("inputs", inputs, (..., "n", self.widths[0]))
        if inputs.dim() > 2:
            require_common_batch(theta.shape[:-1], inputs.shape[:-2])
        return theta, inputs

    def _trace(self, theta: Tensor, inputs: Tensor) -> Trace:
        features = [inputs]
        preactivations = []
        layers = self.layers(theta)
        for layer, activation in zip(layers, self.activations):
            z = self._normalize(_affine(layer, features[-1]), layer)
            preactivations.append(z)
            features.append(activation.function(z))
        return Trace(tuple(preactivations), tuple(features), _affine(layers[-1], features[-1]))

    def forward(self, theta: Tensor, inputs: Tensor) -> Tensor:
        """The output f_θ(x_i) for every input, (..., n, m_L), found for so many inputs at a time as the cache holds.

        Arguments are those of `trace`.

        Example:
            >>> Network((2, 1)).forward(torch.ones(10, 3), torch.ones(100_000, 2)).shape
            torch.Size([10, 100000, 1])
        """
        theta, inputs = self._checked(theta, inputs)
        networks = math.prod(theta.shape[:-1])
        rows = max(1, _CACHED // (max(1, networks) * max(self.widths)))
        if self.batch_norm_epsilon is not None or inputs.shape[-2] <= rows:
            return self._trace(theta, inputs).output
        return torch.cat([self._trace(theta, block).output for block in torch.split(inputs, rows, dim=-2)], dim=-2)

    def _normalize(self, z: Tensor, layer: Layer) -> Tensor:
        if layer.gamma is None or layer.beta is None or self.batch_norm_epsilon is None:
            return z
        variance, mean = torch.var_mean(z, dim=-2, keepdim=True, correction=0)
        standardized = (z - mean) * torch.rsqrt(variance + self.batch_norm_epsilon)
        return standardized * layer.gamma.unsqueeze(-2) + layer.beta.unsqueeze(-2)

    @checked
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
        number("scale", scale)
        number("bias_scale", bias_scale)
        batch = [whole("batch", size, 0) for size in batch]
        require_room("batch", *batch, self.n_parameters)
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


@checked
def flatten(layers: Sequence[Layer]) -> Tensor:
    """The flat θ of these layers: the inverse of `Network.layers`.

    Raises:
        ValueError: if there is none, or their parts do not belong to one batch.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> network = Network.uniform((2, 3, 1), tanh)
        >>> theta = torch.arange(13.0).double()
        >>> torch.equal(flatten(network.layers(theta)), theta)
        True
    """
    parts = []
    for index, layer in enumerate(layers):
        weight, *others = layer.variables(f"layers[{index}]")
        parts += [weight.flatten(-2), *others]
    if not parts or any(part.shape[:-1] != parts[0].shape[:-1] for part in parts):
        raise ValueError(f"layers: expected parts of one batch, got shapes {[tuple(part.shape) for part in parts]}")
    return torch.cat(parts, dim=-1)


def with_ones(features: Tensor, *, dim: int = -1) -> Tensor:
    """(f, 1): the features and a constant one, whose weights are the biases.

    Example:
        >>> with_ones(torch.tensor([[2.0], [3.0]]))
        tensor([[2., 1.],
                [3., 1.]], dtype=torch.float64)
    """
    features = variable("features", features, (...,))
    if not features.shape[whole("dim", dim, -features.dim(), features.dim() - 1)]:
        raise ValueError(f"features: there is none along dimension {dim}, got shape {tuple(features.shape)}")
    return torch.cat([features, torch.ones_like(features.narrow(dim, 0, 1))], dim)


@dataclass(frozen=True, eq=False)
class Parametrised:
    """A network with its parameters: a point of its landscape, or a batch of points.

    Attributes:
        network: the architecture.
        theta: θ, (..., P), float64 from any floating-point type. It need not be finite: what a diverged training left
            has outputs too, which say so.

    Raises:
        ValueError: if θ is not of that shape, or not of floating-point numbers.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> point = Parametrised(Network.uniform((1, 2, 1), tanh), torch.zeros(7))
        >>> point.expand(10).forward(torch.ones(5, 1)).shape
        torch.Size([10, 5, 1])
    """

    network: Network
    theta: Tensor

    @staticmethod
    def instead_of(value: object) -> str:
        """What to give instead of this, for messages."""
        if isinstance(value, nn.Module):
            return "convert it with modules.from_module"
        return "make one of a network and its θ"

    def __post_init__(self) -> None:
        check_fields(self)
        # The class is frozen.
        object.__setattr__(self, "theta", variable("theta", self.theta, (..., self.network.n_parameters)))

    def __getitem__(self, index: int | slice | Tensor) -> "Parametrised":
        """Some points of a batch."""
        return self.with_theta(self.theta[index])

    def __iter__(self) -> Iterator["Parametrised"]:
        """The points of a batch, one by one."""
        return map(self.with_theta, self.theta)

    def with_theta(self, theta: Tensor) -> "Parametrised":
        """Another point, or batch of points, of the same network."""
        return Parametrised(self.network, theta)

    @checked
    def expand(self, *batch: int) -> "Parametrised":
        """The same point, or batch, once for each index of further leading dimensions: views, not copies."""
        batch = tuple(whole("batch", size, 0) for size in batch)
        require_room("batch", *batch, *self.theta.shape)  # what looks at all of a view needs that room
        return self.with_theta(self.theta.expand(*batch, *self.theta.shape))

    def layers(self) -> list[Layer]:
        """See `Network.layers`: views of θ."""
        return self.network.layers(self.theta)

    def trace(self, inputs: Tensor) -> Trace:
        """See `Network.trace`."""
        return self.network.trace(self.theta, inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """See `Network.forward`."""
        return self.network.forward(self.theta, inputs)

    def single(self, name: str) -> "Parametrised":
        """The point out of autograd's graph; a ValueError, under this name, if it is a batch."""
        return self.with_theta(variable(name, self.theta, (self.network.n_parameters,)).detach())

    @checked
    def jacobian(self, inputs: Tensor) -> Tensor:
        """J = ∂f/∂θ at every input, (n, m_L, P), of a single point.

        Raises:
            ValueError: if the point is a batch, or inputs are not (n, m_0) floating-point numbers.

        Example:
            >>> Parametrised(Network((2, 1)), torch.zeros(3)).jacobian(torch.tensor([[5.0, 7.0]]))
            tensor([[[5., 7., 1.]]], dtype=torch.float64)
        """
        inputs = variable("inputs", inputs, ("n", self.network.widths[0]))
        theta = self.single("point").theta
        # Outside inference mode, and with gradients, whatever the caller's mode is.
        with torch.inference_mode(False), torch.enable_grad():
            theta, inputs = theta.clone(), inputs.detach().clone()
            derivative: Tensor = torch.func.jacrev(lambda t: self.network.forward(t, inputs))(theta)
        return derivative.detach()

    @checked
    def inserted(self, position: int, first: Layer, second: Layer, activation: Activation) -> "Parametrised":
        """One hidden layer more: `first` and `second` take the place of layer q + 1, σ between them.

        Their weights are (..., k, m_q) and (..., m_{q+1}, k), q the position; a ValueError says where they do not fit.

        Example:
            >>> from embedding_principle.activations import identity
            >>> one = Layer(torch.ones(1, 1), torch.ones(1))
            >>> Parametrised(Network((1, 1)), torch.ones(2)).inserted(0, one, one, identity).forward(torch.ones(1, 1))
            tensor([[3.]], dtype=torch.float64)
        """
        first, second = first.variables("first"), second.variables("second")
        network = self.network.inserted(position, first.bias.shape[-1], activation)
        return self._spliced(network, position, 1, first, second)

    @checked
    def without(self, position: int, merged: Layer) -> "Parametrised":
        """One hidden layer less: `merged`, weight (..., m_{q+2}, m_q), takes the place of layers q + 1 and q + 2."""
        return self._spliced(self.network.without(position), position, 2, merged.variables("merged"))

    @checked
    def replaced(self, position: int, *layers: Layer, activation: Activation | None = None) -> "Parametrised":
        """Other layers, of any width, in the place of layers q + 1, q + 2, …; σ behind the first of them, if given.

        Example:
            >>> from embedding_principle.activations import tanh
            >>> point = Parametrised(Network.uniform((1, 1, 1), tanh), torch.zeros(4))
            >>> wide = Layer(torch.zeros(3, 1), torch.zeros(3)), Layer(torch.zeros(1, 3), torch.zeros(1))
            >>> point.replaced(0, *wide).network.widths
            (1, 3, 1)
        """
        whole("position", position, 0, self.network.depth - len(layers))
        layers = tuple(layer.variables("layers") for layer in layers)
        end = position + len(layers)
        widths = (*self.network.widths[: position + 1], *(layer.bias.shape[-1] for layer in layers))
        network = replace(self.network, widths=widths + self.network.widths[end + 1 :])
        if activation is not None:
            network = network.with_activation(position, activation)
        return self._spliced(network, position, len(layers), *layers)

    def _spliced(self, network: Network, position: int, count: int, *layers: Layer) -> "Parametrised":
        """A network with these layers instead of `count` ones from layer q + 1 on."""
        given = self.layers()
        spliced = [*given[:position], *layers, *given[position + count :]]
        # P alone may agree by chance.
        for place, (layer, shape) in enumerate(zip(spliced, zip(network.widths[1:], network.widths)), start=1):
            if layer.weight.shape[-2:] != shape:
                raise ValueError(f"layer {place}: expected weights {shape}, got {tuple(layer.weight.shape)}")
        return Parametrised(network, flatten(spliced))
