r"""The spare-neuron lift: a deeper strict saddle over a shallow local minimum (ours).

Lifting as in `lifting` keeps a local minimum a local minimum: nearby deeper points have the risk of nearby shallow
ones. One *spare neuron* in the inserted layer changes that. Write F_i = (f[q](x_i), 1), δ_i = ∂ℓ/∂z_i for the
pre-activation z_i of layer q+1 (a vector of m_{q+1} entries) at sample i, and give the spare neuron incoming parameters
u = (a, c) and outgoing weights β = 0. If

    (1/n) Σ_i δ_i σ(u·F_i) = 0    (m_{q+1} equations in the m_q + 1 unknowns u; for ReLU one of them is mere scale),

the deeper point is critical where θ is. Its Hessian in the coordinates (rest, β, u) is

    [[H₀, h, 0], [hᵀ, α, V], [0, Vᵀ, 0]],    V = (1/n) Σ_i δ_i σ′(u·F_i) F_iᵀ,

H₀ the Hessian without the spare neuron: all derivatives with respect to u alone carry the factor β = 0. So V ≠ 0 makes
the point a strict saddle, and where V has full row rank r = m_{q+1} the inertia is that of H₀ plus (r, m_q + 1 − r, r).
"""

import itertools
import math
from dataclasses import dataclass

import torch
from scipy import integrate, special
from torch import Generator, Tensor

from embedding_principle.activations import Activation
from embedding_principle.arguments import checked, number, real, require_room, variable, whole
from embedding_principle.curvature.hessian import hessian
from embedding_principle.depth.lifting import Insertion, deepened, lift, smallest_width
from embedding_principle.networks import Layer, Parametrised, with_ones
from embedding_principle.risks import Risk

Counts = tuple[int, int, int]

_STARTS = 512
# Halve a segment of length one down to the spacing of float64.
_BISECTIONS = 60
# Gauss–Newton converges in some ten steps where it does; the rest is for backtracking.
_POLISHING_STEPS = 25
# Rounding leaves a sum of n ≤ 1e3 terms with a relative error near n ε ~ 1e-13, usually much less.
_SOLVED = 1e-12
# σ′ jumps at a kink. Rounding moves a pre-activation by 1e-15 of its size; at 1e-6 the Hessian is safely the same.
_LEAST_MARGIN = 1e-6
# A neuron whose samples all lie in one affine piece, or are all dead, solves the equations with V = 0. In float64
# rounding leaves 1e-16 there, at neurons of use the ratio is about 1e-2.
_LEAST_COUPLING = 1e-6


class NoSpareNeuronError(ValueError):
    """No incoming parameters were found that make a spare neuron critical and coupled."""


@dataclass(frozen=True, eq=False)
class SpareNeuron:
    """Incoming parameters of a neuron that may be added with zero outgoing weights.

    Attributes:
        incoming: u = (a, c), (m_q + 1,).
        coupling: V, (m_{q+1}, m_q + 1).
        residual: ‖(1/n) Σ δ_i σ(u·F_i)‖ relative to (1/n) Σ ‖δ_i‖ |σ(u·F_i)|.
        margin: smallest distance of a pre-activation from a kink of σ, relative to the largest pre-activation;
            infinite without kinks.
        rank: of V: how many negative (and positive) eigenvalues it adds at least.
    """

    incoming: Tensor
    coupling: Tensor
    residual: float
    margin: float
    rank: int


@dataclass(frozen=True, eq=False)
class SpareNeuronLift:
    """A deeper point with the outputs of θ on S, critical where θ is, with a direction of negative curvature.

    Attributes:
        point: θ′, (P′,); the spare neuron is the last one of the inserted layer.
        neuron: the spare neuron.
        curvature: the smallest eigenvalue of ∇²R_S(θ′).
        direction: its unit eigenvector, (P′,): along ± direction the risk falls, at a rate of curvature / 2 · t².
    """

    point: Parametrised
    neuron: SpareNeuron
    curvature: float
    direction: Tensor


@checked
def backpropagated(risk: Risk, theta: Tensor, position: int) -> Tensor:
    """δ_i = ∂ℓ/∂z_i, z_i the pre-activation of layer q+1 (the output, where q + 1 = L), (n, m_{q+1}).

    At a critical point Σ_i δ_i F_iᵀ = 0: that is the gradient with respect to layer q+1.

    Args:
        risk: the empirical risk.
        theta: θ, (P,).
        position: q.

    Raises:
        ValueError: if θ is not a single finite point, there is no layer q+1, or the network has batch normalization.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> backpropagated(Risk(Network((1, 1)), x, 0 * x), torch.tensor([3.0, 0.0]).double(), 0)
        tensor([[-6.],
                [ 6.]], dtype=torch.float64)
    """
    network = risk.network
    if network.batch_norm_epsilon is not None:
        raise ValueError("risk: spare neurons are for networks without batch normalization; see fold_batch_norm")
    theta, position = real("theta", theta, (network.n_parameters,)), whole("position", position, 0, network.depth - 1)
    # Outside inference mode, and with gradients, whatever the caller's mode is.
    with torch.inference_mode(False):
        layers = network.layers(theta)
        features = network.trace(theta, risk.inputs).features[position]
        z = features @ layers[position].weight.mT + layers[position].bias
        output = z.requires_grad_(True)
        for layer, activation in zip(layers[position + 1 :], network.activations[position:]):
            output = activation(output) @ layer.weight.detach().mT + layer.bias.detach()
        (gradient,) = torch.autograd.grad(risk.loss.value(output, risk.targets).sum(), z)
    return gradient


class _Equations:
    """u ↦ (1/n) Σ_i δ_i σ(u·F_i) and its derivative V, for a batch of u (S, m_q + 1)."""

    def __init__(self, errors: Tensor, features: Tensor, activation: Activation) -> None:
        self.errors, self.activation = errors / len(errors), activation
        self.extended = with_ones(features)
        ends = [end for piece in activation.pieces for end in (piece.lower, piece.upper)]
        self.kinks = torch.tensor(sorted({end for end in ends if abs(end) < float("inf")}), dtype=torch.float64)

    def preactivations(self, u: Tensor) -> Tensor:
        """u·F_i, (S, n)."""
        return u @ self.extended.mT

    def values(self, u: Tensor) -> Tensor:
        """(1/n) Σ_i δ_i σ(u·F_i), (S, m_{q+1})."""
        return self.activation(self.preactivations(u)) @ self.errors

    def coupling(self, u: Tensor) -> Tensor:
        """V, (S, m_{q+1}, m_q + 1)."""
        slopes = self.activation.first(self.preactivations(u))
        return (self.errors.mT * slopes[:, None, :]) @ self.extended

    def residual(self, u: Tensor) -> Tensor:
        """The norm of `values` relative to the sum of the norms of its terms, (S,)."""
        scale = self.activation(self.preactivations(u)).abs() @ self.errors.norm(dim=-1)
        relative: Tensor = self.values(u).norm(dim=-1) / scale
        return relative.nan_to_num(nan=torch.inf)  # a dead neuron, 0 / 0, solves nothing

    def margin(self, u: Tensor) -> Tensor:
        """The smallest distance of a u·F_i from a kink, relative to the largest |u·F_i|, (S,)."""
        z = self.preactivations(u)
        if not len(self.kinks):
            return torch.full((len(u),), torch.inf, dtype=u.dtype)
        nearest = (z[..., None] - self.kinks).abs().amin((-2, -1))
        relative: Tensor = nearest / z.abs().amax(-1)
        return relative

    def strength(self, u: Tensor) -> Tensor:
        """The singular values of V relative to the size of its terms, (S, min(m_{q+1}, m_q + 1)), decreasing."""
        scale = (self.errors.norm(dim=-1) * self.extended.norm(dim=-1)).sum()
        strength: Tensor = torch.linalg.svdvals(self.coupling(u)) / scale.clamp(min=1e-300)
        return strength


@checked
def find_spare_neuron(
    risk: Risk, theta: Tensor, position: int, activation: Activation, *, generator: Generator, spread: float = 1.0
) -> SpareNeuron:
    """Solve (1/n) Σ_i δ_i σ(u·F_i) = 0 for u = (a, c) with V ≠ 0 and no sample at a kink.

    For m_{q+1} = 1 by bisection of segments from random neurons to others, or to neurons whose kink passes through m_q
    samples, at which the sum has the opposite sign; otherwise by Gauss–Newton steps of least norm from random neurons.
    Of all solutions the most strongly coupled one is returned, that whose V has the largest smallest singular value.

    For ReLU and leaky ReLU and m_{q+1} = 1 a solution exists for generic data if and only if Q = Σ_i δ_i |u·F_i| takes
    both signs, as it does when two vertices of the convex hull of the features have errors δ of opposite signs; the two
    activations have the same solutions. Q is linear between the hyperplanes u·F_i = 0, so its extremes lie where m_q of
    them meet: with at most 512 such lines all are tried, and a sign that Q takes is not missed.

    For an odd continuous activation such as hard-tanh and m_{q+1} < m_q the theorem of Borsuk and Ulam gives for every
    ρ > 0 some u = (a, −a·f̄) with ‖a‖ = ρ that solves the equations, f̄ the mean feature. It promises neither V ≠ 0
    (for small ρ every such u is an affine neuron, with V = 0) nor that no sample is at a kink.

    Args:
        risk: the empirical risk.
        theta: θ, (P,); a critical point, for the equations to mean what they say.
        position: q: the neuron reads the features f[q].
        activation: σ of the inserted layer.
        generator: draws the random neurons.
        spread: standard deviation of their pre-activations over S. A small one makes α small, so that the negative
            curvature comes near to −‖V‖.

    Raises:
        NoSpareNeuronError: if no start leads to a solution; it counts equations, unknowns and what was found instead.
        ValueError: as `backpropagated` does; if the spread is not positive, derivatives at θ are not finite, or there
            are so many samples that what is tried does not fit in memory.

    Example:
        >>> from embedding_principle.activations import relu
        >>> x = torch.linspace(-2, 2, 10, dtype=torch.float64)[:, None]
        >>> from embedding_principle.networks import Network
        >>> slope = float((x**4).sum() / (x**2).sum())  # of the best affine fit of x³
        >>> risk, theta = Risk(Network((1, 1)), x, x**3), torch.tensor([slope, 0.0]).double()
        >>> neuron = find_spare_neuron(risk, theta, 0, relu, generator=torch.Generator().manual_seed(0))
        >>> neuron.residual < 1e-12, neuron.rank
        (True, 1)
    """
    spread = number("spread", spread, above=0.0)
    errors = backpropagated(risk, theta, position)
    require_room("risk", _STARTS, *errors.shape)
    features = risk.network.trace(theta.detach(), risk.inputs).features[position]
    if not torch.isfinite(errors.abs().sum() * features.abs().sum()):
        raise ValueError("theta: features or errors there overflow float64; take a smaller one, or scale the data")
    equations = _Equations(errors, features, activation)
    starts = _random_neurons(features, equations.kinks, spread, generator)
    if equations.errors.shape[1] == 1:
        ends = torch.cat([_through_samples(equations.extended, spread, generator), starts])
        starts = _bracketed(equations, starts, ends, generator)
    found = _polished(equations, starts)
    solved = equations.residual(found) <= _SOLVED
    coupled = equations.strength(found)[:, 0] >= _LEAST_COUPLING
    clear = equations.margin(found) >= _LEAST_MARGIN
    usable = found[solved & coupled & clear]
    if not len(usable):
        raise NoSpareNeuronError(_explain(equations, position, len(found), solved, coupled))
    weakest = equations.strength(usable)[:, -1]
    # Many starts lead to one solution: take the first of them, lest rounding decide how large a ReLU neuron is.
    best = usable[weakest >= (1 - 1e-6) * weakest.max()][:1]
    rank = int((equations.strength(best) >= _LEAST_COUPLING).sum())
    measures = float(equations.residual(best)), float(equations.margin(best)), rank
    return SpareNeuron(best[0], equations.coupling(best)[0], *measures)


def _random_neurons(features: Tensor, kinks: Tensor, spread: float, generator: Generator) -> Tensor:
    """Random directions a; a random kink of σ (or 0) lies at a random place between two samples."""
    n, width = features.shape
    directions = torch.randn(_STARTS, width, generator=generator, dtype=torch.float64)
    z = directions @ features.mT
    scale = spread / z.std(-1, correction=0).clamp(min=1e-12)
    first, second = z.gather(1, torch.randint(n, (_STARTS, 2), generator=generator)).unbind(-1)
    place = torch.lerp(first, second, torch.rand(_STARTS, generator=generator, dtype=torch.float64))
    levels = kinks if len(kinks) else torch.zeros(1, dtype=torch.float64)
    level = levels[torch.randint(len(levels), (_STARTS,), generator=generator)]
    return torch.cat([scale[:, None] * directions, (level - scale * place)[:, None]], dim=1)


def _through_samples(extended: Tensor, spread: float, generator: Generator) -> Tensor:
    """Neurons whose pre-activation vanishes at m_q samples: all of them, or a random choice where they are too many."""
    n, width = len(extended), extended.shape[1] - 1
    if math.comb(n, width) <= _STARTS:
        # torch.combinations makes a table of n^width entries first.
        chosen = torch.tensor(list(itertools.combinations(range(n), width))).view(-1, width)
    else:
        chosen = torch.rand(_STARTS, n, generator=generator, dtype=torch.float64).argsort(dim=1)[:, :width]
    u = torch.linalg.svd(extended[chosen]).Vh[:, -1]
    scale = spread / (u @ extended.mT).std(-1, correction=0).clamp(min=1e-12)
    return torch.cat([scale[:, None] * u, -scale[:, None] * u])


def _bracketed(equations: _Equations, starts: Tensor, ends: Tensor, generator: Generator) -> Tensor:
    """Roots on segments from each start to a random end at which the one equation has the opposite sign."""
    roots = [starts[:0]]
    for sign in (-1.0, 1.0):
        low, opposite = starts[_signs(equations, starts) == sign], ends[_signs(equations, ends) == -sign]
        if len(opposite):
            high = opposite[torch.randint(len(opposite), (len(low),), generator=generator)]
            roots.append(_bisected(equations, low, high, sign))
    return torch.cat(roots)


def _signs(equations: _Equations, u: Tensor) -> Tensor:
    """The sign of the one sum, zero where it is rounding (of the pre-activations: a neuron may be all but dead)."""
    values = equations.values(u)[:, 0]
    scale = equations.preactivations(u).abs() @ equations.errors[:, 0].abs()
    return torch.where(values.abs() > _SOLVED * scale, values.sign(), 0.0)


def _bisected(equations: _Equations, low: Tensor, high: Tensor, sign: float) -> Tensor:
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        same = (equations.values(middle)[:, :1] * sign) > 0
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return low


def _polished(equations: _Equations, u: Tensor) -> Tensor:
    """Gauss–Newton steps of least norm; a step that does not lower the relative residual is undone, the next shorter.

    Relative, because the sum itself also tends to zero with u.
    """
    share, residual = torch.ones(len(u), 1, dtype=u.dtype), equations.residual(u)
    for _ in range(_POLISHING_STEPS if len(u) else 0):
        # Singular values below 1e-9 of the largest are noise: a step along them would be wild.
        step = (torch.linalg.pinv(equations.coupling(u), rtol=1e-9) @ equations.values(u)[..., None])[..., 0]
        trial = u - share * step
        new = equations.residual(trial)
        better = new < residual
        u, residual = torch.where(better[:, None], trial, u), torch.where(better, new, residual)
        share = torch.where(better[:, None], (2 * share).clamp(max=1), share / 2)
    return u


def _explain(equations: _Equations, position: int, tried: int, solved: Tensor, coupled: Tensor) -> str:
    count, unknowns = equations.errors.shape[1], equations.extended.shape[1]
    trivial, kinked = int((solved & ~coupled).sum()), int((solved & coupled).sum())
    return (
        f"no spare neuron at position {position}: Σ_i δ_i σ(a·f_i + c) = 0, σ = {equations.activation.name}, has "
        f"{count} equation(s) in {unknowns} unknowns (a, c); {_STARTS} random neurons gave {tried} candidate(s), "
        f"{trivial} of them solution(s) with V = 0 and {kinked} with a sample at a kink. "
        "Try another position or activation"
    )


@checked
def spare_neuron_lift(
    risk: Risk, theta: Tensor, insertion: Insertion, *, generator: Generator, spread: float = 1.0
) -> SpareNeuronLift:
    """Lift θ by `lift`, with one spare neuron on top: a strict saddle if θ is a critical point, a minimum say.

    Outputs and inherited features on S are those of θ.

    Args:
        risk: the empirical risk; no batch normalization.
        theta: θ, (P,).
        insertion: position q, activation, and the width of the whole inserted layer, spare neuron included: at
            least min(m_q, m_{q+1}) + 1.
        generator: the source of randomness.
        spread: see `find_spare_neuron`.

    Raises:
        NoSpareNeuronError: see `find_spare_neuron`.
        ValueError: for an impossible insertion, see `lifting.deepened`, and as `find_spare_neuron` does.

    Example:
        >>> from embedding_principle.activations import relu
        >>> x = torch.linspace(-2, 2, 10, dtype=torch.float64)[:, None]
        >>> from embedding_principle.networks import Network
        >>> slope = float((x**4).sum() / (x**2).sum())
        >>> risk, theta = Risk(Network((1, 1)), x, x**3), torch.tensor([slope, 0.0]).double()
        >>> g = torch.Generator().manual_seed(0)
        >>> saddle = spare_neuron_lift(risk, theta, Insertion(0, 2, relu), generator=g)
        >>> saddle.point.network.widths, saddle.curvature < -0.1
        ((1, 2, 1), True)
    """
    q, width = insertion.position, insertion.width
    deep = risk.on(deepened(risk.network, insertion))
    needed = smallest_width(risk.network, q)
    if width <= needed:
        raise ValueError(
            f"width: {width} leaves no room for a spare neuron at position {q}; "
            f"min(m_q, m_{{q+1}}) + 1 = {needed + 1} are needed"
        )
    neuron = find_spare_neuron(risk, theta, q, insertion.activation, generator=generator, spread=spread)
    base = Insertion(q, width - 1, insertion.activation)
    lifted = lift(risk.at(theta.detach()), risk.inputs, [base], generator=generator)
    point = with_spare_neuron(lifted, q, neuron.incoming)
    curvature = hessian(deep, point.theta)
    if not torch.isfinite(curvature).all():
        raise ValueError("theta: the Hessian over it is not finite; it overflows float64")
    values, vectors = torch.linalg.eigh(curvature)
    return SpareNeuronLift(point, neuron, float(values[0]), vectors[:, 0])


@checked
def with_spare_neuron(point: Parametrised, position: int, incoming: Tensor) -> Parametrised:
    """The network one neuron wider in hidden layer q + 1: incoming u = (a, c), outgoing weights zero.

    Args:
        point: θ without the neuron, (..., P).
        position: q.
        incoming: u = (a, c), (..., m_q + 1).

    Raises:
        ValueError: if there is no hidden layer at that position, or u does not fit it.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> narrow = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> with_spare_neuron(narrow, 0, torch.tensor([5.0, 6.0])).theta
        tensor([1., 5., 2., 6., 3., 0., 4.], dtype=torch.float64)
    """
    point.network.check_hidden(position)
    if point.network.batch_norm_epsilon is not None:
        raise ValueError("point: spare neurons are for networks without batch normalization; see fold_batch_norm")
    first, second = point.layers()[position : position + 2]
    incoming = variable("incoming", incoming, (*point.theta.shape[:-1], first.weight.shape[-1] + 1))
    weight = torch.cat([first.weight, incoming[..., None, :-1]], dim=-2)
    wider = Layer(weight, torch.cat([first.bias, incoming[..., -1:]], dim=-1))
    outgoing = torch.cat([second.weight, torch.zeros_like(second.weight[..., :1])], dim=-1)
    return point.replaced(position, wider, Layer(outgoing, second.bias))


@checked
def spare_neuron_inertia(before: Counts, preceding: int, following: int) -> Counts:
    """(n−, n0, n+) after a spare neuron whose V has full row rank r = m_{q+1}: plus (r, m_q + 1 − r, r) (ours).

    Args:
        before: the inertia without the spare neuron.
        preceding: m_q.
        following: m_{q+1}, at most m_q + 1.

    Raises:
        ValueError: if V cannot have full row rank, or a count is negative.

    Example:
        >>> spare_neuron_inertia((0, 6, 7), preceding=2, following=1)
        (1, 8, 8)
    """
    preceding, following = whole("preceding", preceding, 1), whole("following", following, 1)
    if len(before) != 3 or min(before) < 0:
        raise ValueError(f"before: expected (n−, n0, n+), none negative, got {before}")
    if following > preceding + 1:
        raise ValueError(f"following: V has {following} rows and {preceding + 1} columns, so no full row rank")
    negative, zero, positive = before
    return negative + following, zero + preceding + 1 - following, positive + following


@checked
def probability_of_spare_neuron(dimension: int) -> float:
    r"""The probability that the affine fit of d + 2 Gaussian points of R^d has a ReLU spare neuron: 1 − 2(d + 2)β_d.

    The residuals are a multiple of a uniformly random unit vector with sum zero, whatever the targets are. A spare
    neuron exists unless one residual alone has its sign, that is, unless one point lies in the convex hull of the
    others (Sylvester's problem for Gaussian points). Each of these 2(d + 2) events has the probability β_d, the solid
    angle at a vertex of the regular (d+1)-simplex as a share of the sphere. In the coordinates c ≥ 0 along the edges
    at that vertex, with S = Σ c_k and exp(−S²/2) = E exp(iτS) for a standard normal τ,

        β_d = √(d+2) (2π)^(−(d+1)/2) ∫_{c≥0} exp(−(Σ c_k² + S²)/2) dc = √(d+2) E[(w(τ/√2) / 2)^(d+1)],

    w the Faddeeva function; the quadrature is over τ. Source: this book, proposition on fits of d + 2 points.

    Args:
        dimension: d.

    Raises:
        ValueError: if d < 1.

    Example:
        >>> [round(probability_of_spare_neuron(d), 4) for d in (1, 2, 3, 4)]
        [0.0, 0.649, 0.9022, 0.9769]
    """
    dimension = whole("dimension", dimension, 1)

    def density(tau: float) -> float:
        """The integrand of the solid angle."""
        power: complex = (special.wofz(tau / math.sqrt(2)) / 2) ** (dimension + 1)
        return math.exp(-(tau**2) / 2) * power.real

    # The integrand is even.
    half, _ = integrate.quad(density, 0, math.inf)
    angle: float = math.sqrt(dimension + 2) * math.sqrt(2 / math.pi) * half
    # Rounding must not make the impossible of d = 1 negative.
    return max(0.0, 1 - 2 * (dimension + 2) * angle)
