"""Saturated neurons, the sign of parameters on their way to infinity.

In a valley without a minimum, a neuron may turn into a step or a constant while its incoming weights grow without
bound: gradient and Newton step tend to zero there as they do at a critical point, and only the slopes tell.
"""

import torch
from torch import Tensor

from embedding_principle.activations import Activation
from embedding_principle.arguments import checked, variable
from embedding_principle.networks import with_ones
from embedding_principle.risks import Risk

# Directions of incoming weights that move pre-activations by z, but the neuron's output by less than 1e-6 z: for tanh
# that means |z| > 7. Such a neuron is a step or a constant to float64, on its way to infinity.
_SATURATED_SLOPE = 1e-6
# An outgoing weight below it adds less to any pre-activation than the tolerance of a search, 1e-12.
_SILENT_WEIGHT = 1e-12


@checked
def saturated(risk: Risk, theta: Tensor) -> Tensor:
    """Whether some hidden neuron hardly reacts to some change of its incoming weights, boolean (...).

    The pre-activations z of a neuron on the n samples range over the column space of (f, 1), f its inputs. The neuron
    is saturated if for some unit vector u of that space ‖σ′(z) ∘ u‖ < 1e-6: that holds when all its slopes vanish, and
    also when so few are left that the neuron is a step between samples, on its way to infinitely steep.
    An exactly flat piece (ReLU below zero) is no saturation, a neuron may rest there at a finite critical point; nor is
    a neuron counted that transmits nothing, its outgoing weights below 1e-12: its incoming ones are then free.
    A network with a pre-activation that is not finite has gone all the way, and counts.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> x = torch.ones(3, 1).double()
        >>> saturated(Risk(Network.uniform((1, 1, 1), tanh), x, x), torch.tensor([0.0, 30.0, 1.0, 0.0]).double())
        tensor(True)
    """
    theta = variable("theta", theta, (..., risk.network.n_parameters)).detach()
    trace, layers = risk.network.trace(theta, risk.inputs), risk.network.layers(theta)
    found = torch.zeros(theta.shape[:-1], dtype=torch.bool)
    for z, features, activation, following in zip(
        trace.preactivations, trace.features, risk.network.activations, layers[1:]
    ):
        transmits = following.weight.abs().amax(-2) > _SILENT_WEIGHT
        stiff = _least_reaction(_slopes(activation, z), features) < _SATURATED_SLOPE
        found |= (transmits & stiff).any(-1) | ~z.isfinite().all((-2, -1))
    return found


def _least_reaction(slopes: Tensor, features: Tensor) -> Tensor:
    """The least ‖σ′ ∘ u‖ over unit vectors u of the column space of (f, 1), for each neuron: (..., m)."""
    basis, rank = _column_space(features)
    reactions: Tensor = torch.linalg.svdvals(_decomposable(slopes.mT[..., None] * basis[..., None, :, :]))
    last = (rank - 1)[..., None, None].expand(*reactions.shape[:-1], 1)
    return reactions.gather(-1, last).squeeze(-1)


# Features that agree to this, relative to their size, are merged: their difference is round-off.
_MERGED = 1e-9


def _column_space(features: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the column space of (f, 1), zero columns beyond its rank, and that rank."""
    basis, lengths, _ = torch.linalg.svd(with_ones(_decomposable(features)), full_matrices=False)
    spanning = lengths > _MERGED * lengths[..., :1]
    return basis * spanning[..., None, :], spanning.sum(-1)


def _decomposable(matrices: Tensor) -> Tensor:
    """The same with numbers where there are none: one such matrix of a batch would stop LAPACK for all."""
    return matrices.nan_to_num(0.0, 0.0, 0.0)


def _slopes(activation: Activation, z: Tensor) -> Tensor:
    slopes = activation.first(z).abs()
    return torch.where((slopes == 0) & bool(activation.pieces), 1.0, slopes)
