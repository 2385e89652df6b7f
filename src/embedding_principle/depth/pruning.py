"""Layer pruning: the inverse of lifting (Bai et al., arXiv:2205.13283, v4), for layers that act almost affinely on S.

A layer whose neurons each stay in one affine piece (λ_j, μ_j) on S is removed exactly by φ of `depth.lifting`. A layer
of a trained network is often only near that; `prune` puts in place of (λ_j, μ_j) each neuron's own regression of σ(z_j)
on z_j over S, which is the affine piece where there is one. The residuals r of these regressions are all that is lost:
on S the next layer's pre-activations change by −B r.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from embedding_principle.activations import identity
from embedding_principle.arguments import checked, class_numbers, real, require_common_batch, require_room, variable
from embedding_principle.depth.lifting import collapse
from embedding_principle.networks import Layer, Parametrised, with_ones
from embedding_principle.scaling import scaled


@dataclass(frozen=True, eq=False)
class AffineFit:
    """The affine functions λ_j z + μ_j nearest to the neurons of one layer on S.

    Attributes:
        slope: λ, (..., k).
        intercept: μ, (..., k).
    """

    slope: Tensor
    intercept: Tensor


@checked
def affine_fit(point: Parametrised, inputs: Tensor, position: int) -> AffineFit:
    """The least-squares regression of σ(z_j) on z_j over S, for each neuron of one hidden layer.

    A neuron inside an affine piece gets that piece's slope and intercept. Where z_j is constant on S, the regression is
    not unique, and its tangent is taken: again the piece's, where there is one. Where z_j is not finite, the fit is not
    a number.

    Args:
        point: θ, (..., P), without batch normalization.
        inputs: the training inputs x, (n, m_0).
        position: q: the layer looked at is hidden layer q + 1, as in `depth.lifting`.

    Raises:
        ValueError: if there is no hidden layer at that position, the network has batch normalization, or the inputs are
            not finite.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> theta = torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 0.0]).double()  # z = x + 1 and z = x − 1
        >>> point = Parametrised(Network.uniform((1, 2, 1), relu), theta)
        >>> fit = affine_fit(point, torch.tensor([[0.0], [1.0], [2.0]]).double(), 0)
        >>> fit.slope, fit.intercept.round(decimals=3)
        (tensor([1.0000, 0.5000], dtype=torch.float64), tensor([0.0000, 0.3330], dtype=torch.float64))
    """
    inputs = _checked(point, inputs, position)
    trace = point.trace(inputs)
    z, f = trace.preactivations[position], trace.features[position + 1]
    z_mean, f_mean = z.mean(-2), f.mean(-2)
    z_centred, z_scale = scaled(z - z_mean.unsqueeze(-2), dim=-2)
    f_centred, f_scale = scaled(f - f_mean.unsqueeze(-2), dim=-2)
    constant = (z.amax(-2) == z.amin(-2)) | (z_scale.squeeze(-2) == 0)
    squares = torch.where(constant, 1.0, (z_centred**2).sum(-2))
    tangent = point.network.activations[position].first(z[..., 0, :])
    ratio = torch.where(constant, 1.0, (f_scale / z_scale).squeeze(-2))
    slope = torch.where(constant, tangent, (z_centred * f_centred).sum(-2) / squares * ratio)
    return AffineFit(slope, f_mean - slope * z_mean)


@checked
def prune(point: Parametrised, inputs: Tensor, position: int) -> Parametrised:
    """Merge one hidden layer with the next affine map, each neuron replaced by its regression line on S.

    If the layer is linear on S in the sense of lifting, this is the inverse of `lift`: the outputs on S are kept, and
    the given θ lies in T_S of the pruned one.

    Args:
        point: θ, (..., P′), with at least one hidden layer and no batch normalization.
        inputs: the training inputs x, (n, m_0).
        position: q: hidden layer q + 1 goes, A, c and B, b′ become (BΛA, B(Λc + μ) + b′).

    Raises:
        ValueError: see `affine_fit`.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> point = Parametrised(Network.uniform((1, 1, 1), relu), torch.tensor([1.0, 2.0, 2.0, -4.0]).double())
        >>> pruned = prune(point, torch.tensor([[-1.0], [1.0]]).double(), 0)
        >>> pruned.network.widths, pruned.theta
        ((1, 1), tensor([2., 0.], dtype=torch.float64))
    """
    fit = affine_fit(point, inputs, position)
    return collapse(point, position, fit.slope, fit.intercept)


@checked
def prune_by_least_squares(point: Parametrised, inputs: Tensor, position: int) -> Parametrised:
    """Replace one hidden layer and the next affine map by the affine map nearest to the two on S.

    The map from f[q] to the next pre-activations with the least sum of squared errors, and of least norm among those.
    On S no affine map does better, `prune` included. It is a poor judge of linearity for the same reason: whatever σ
    does, it is exact as soon as f[q] takes affinely independent values on S (n ≤ m_q + 1 samples in general position,
    or features in one point for each class). Of a network whose features are not finite, it is not a number.

    Args:
        point: as for `prune`, (..., P′).
        inputs: x, (n, m_0).
        position: q.

    Raises:
        ValueError: see `affine_fit`.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0]]).double()  # two samples: always exact
        >>> point = Parametrised(Network.uniform((1, 1, 1), relu), torch.tensor([1.0, 0.0, 1.0, 0.0]).double())
        >>> prune_by_least_squares(point, x, 0).theta.round(decimals=6)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    inputs = _checked(point, inputs, position)
    trace, (weight, bias) = point.trace(inputs), point.layers()[position + 1]
    target = trace.features[position + 1] @ weight.mT + bias.unsqueeze(-2)
    features = trace.features[position].expand(*point.theta.shape[:-1], -1, -1)
    # LAPACK would give up on all networks for the sake of one, and on sums that overflow.
    known = torch.isfinite(features.abs().sum((-2, -1)) + target.abs().sum((-2, -1)))[..., None, None]
    features, target = torch.where(known, features, 0.0), torch.where(known, target, 0.0)
    # gelsd: pixels that are always blank make the design rank-deficient.
    solution = torch.linalg.lstsq(with_ones(features), target, driver="gelsd").solution.mT
    solution = torch.where(known, solution, torch.nan)
    return point.without(position, Layer(solution[..., :-1], solution[..., -1]))


@checked
def linearized(point: Parametrised, inputs: Tensor, position: int) -> Parametrised:
    """The same depth with one layer made exactly linear: its neurons are their regression lines on S.

    The layer becomes f = (ΛA) f[q] + Λc + μ with identity activation, all else stays. So the result is a member of
    T_S(θ̂) for the pruned θ̂ of `prune`, and differs from the given one by the regressions' residuals alone.

    Args:
        point: as for `prune`, (..., P′).
        inputs: x, (n, m_0).
        position: q.

    Raises:
        ValueError: see `affine_fit`.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> from embedding_principle.networks import Network
        >>> point = Parametrised(Network.uniform((1, 1, 1), tanh), torch.ones(4).double())
        >>> straight = linearized(point, x, 0)
        >>> straight.network.activations[0].name
        'identity'
        >>> torch.allclose(straight.forward(x), prune(point, x, 0).forward(x))
        True
    """
    fit, (weight, bias) = affine_fit(point, inputs, position), point.layers()[position]
    straight = Layer(fit.slope.unsqueeze(-1) * weight, fit.slope * bias + fit.intercept)
    return point.replaced(position, straight, activation=identity)


@checked
def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """The share of samples whose largest output is that of their label; one with an output that is not finite has none.

    Args:
        outputs: (..., n, m).
        labels: class numbers, (n,).

    Returns:
        (...).

    Raises:
        ValueError: for other shapes, no samples, or labels that are not integers from 0 on.

    Example:
        >>> accuracy(torch.tensor([[1.0, 2.0], [4.0, 3.0]]), torch.tensor([1, 1])).item()
        0.5
    """
    outputs = variable("outputs", outputs, (..., "n", "m"))
    labels = class_numbers("labels", labels, outputs.shape[-2])
    return (_classes(outputs) == labels).double().mean(-1)


def _classes(outputs: Tensor) -> Tensor:
    """The class of each sample, (..., n); −1 where an output is not finite."""
    return torch.where(outputs.isfinite().all(-1), outputs.argmax(-1), -1)


@checked
def agreement(outputs: Tensor, others: Tensor) -> Tensor:
    """The share of samples that two classifiers put in the same class, whether it is right or wrong.

    A sample with an output that is not finite is put in no class.

    Args:
        outputs: (..., n, m).
        others: likewise; the leading dimensions may be fewer.

    Returns:
        (...).

    Raises:
        ValueError: if the shapes do not go together, or there are no samples.

    Example:
        >>> agreement(torch.tensor([[1.0, 2.0], [4.0, 3.0]]), torch.tensor([[0.0, 9.0], [0.0, 9.0]])).item()
        0.5
    """
    outputs = variable("outputs", outputs, (..., "n", "m"))
    others = variable("others", others, (..., *outputs.shape[-2:]))
    require_common_batch(outputs.shape[:-2], others.shape[:-2])
    ours, theirs = _classes(outputs), _classes(others)
    return ((ours == theirs) & (ours >= 0)).double().mean(-1)


@checked
def class_share(features: Tensor, labels: Tensor) -> Tensor:
    """The share of the features' variance that lies between classes: 1 where each class is a single point, 0 to 1.

    Args:
        features: (..., n, m).
        labels: class numbers, (n,).

    Returns:
        (...); not a number for features that are constant, or not finite.

    Raises:
        ValueError: for other shapes, no samples, or labels that are not integers from 0 on.

    Example:
        >>> features = torch.tensor([[0.0], [0.0], [2.0], [2.0]])
        >>> [class_share(features, torch.tensor(labels)).item() for labels in ([0, 0, 1, 1], [0, 1, 0, 1])]
        [1.0, 0.0]
    """
    features = variable("features", features, (..., "n", "m"))
    labels = class_numbers("labels", labels, features.shape[-2])
    # Numbers of classes may be large, and leave gaps.
    found, classes = torch.unique(labels, return_inverse=True)
    require_room("labels", len(labels), len(found))
    members = torch.nn.functional.one_hot(classes).double()
    centred = features - features.mean(-2, keepdim=True)
    centred = scaled(centred.flatten(-2), dim=-1)[0].view_as(centred)
    means = (members / members.sum(0)).mT @ centred
    between = (members.sum(0).unsqueeze(-1) * means**2).sum((-2, -1))
    return between / (centred**2).sum((-2, -1))


def _checked(point: Parametrised, inputs: Tensor, position: int) -> Tensor:
    """The inputs, (n, m_0), if there is a layer to prune at that position."""
    point.network.check_hidden(position)
    if point.network.batch_norm_epsilon is not None:
        raise ValueError("point: pruning is defined for networks without batch normalization; see fold_batch_norm")
    return real("inputs", inputs, ("n", point.network.widths[0]))
