"""Small certified points, and one certificate of every kind, each made once."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from embedding_principle.activations import Activation, hard_tanh, relu, tanh
from embedding_principle.certificates.certify import Certificate, certify
from embedding_principle.certificates.wider import certify_lift, certify_split
from embedding_principle.depth.lifting import Insertion, lift
from embedding_principle.depth.spare_neurons import spare_neuron_lift
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import Risk, cross_entropy

KINDS = ("point", "deep", "entropy", "pieces", "lift", "spare", "split")


def planted(
    activation: Activation = tanh,
    widths: tuple[int, ...] = (1, 1, 1),
    *,
    seed: int = 0,
    n: int = 6,
    residual: float = 0.1,
) -> tuple[Risk, Tensor]:
    """A squared error with a critical point, up to rounding."""
    generator = torch.Generator().manual_seed(seed)
    network = Network.uniform(widths, activation)
    theta = torch.randn(network.n_parameters, generator=generator, dtype=torch.float64)
    x = torch.randn(n, widths[0], generator=generator, dtype=torch.float64)
    return plant(Parametrised(network, theta), x, generator=generator, residual=residual), theta


def classified(
    activation: Activation = tanh, widths: tuple[int, ...] = (1, 1, 2), *, seed: int = 0, n: int = 8
) -> tuple[Risk, Tensor]:
    """A cross-entropy near one with a critical point there: its targets are rounded, so that they add up to one."""
    generator = torch.Generator().manual_seed(seed)
    network = Network.uniform(widths, activation)
    theta = torch.randn(network.n_parameters, generator=generator, dtype=torch.float64)
    x = torch.randn(n, widths[0], generator=generator, dtype=torch.float64)
    risk = plant(Parametrised(network, theta), x, generator=generator, residual=0.5, loss=cross_entropy)
    targets = (risk.targets * 2**40).round() / 2**40
    targets[:, -1] = 1 - targets[:, :-1].sum(1)
    return Risk(network, x, targets, cross_entropy), theta


def proved(found: Certificate) -> Certificate:
    assert found.result == "proved", found.reason
    return found


@cache
def certificate(kind: str) -> Certificate:
    """A proved certificate of this kind."""
    generator = torch.Generator().manual_seed(3)
    if kind == "entropy":
        return proved(certify(*classified()))
    if kind == "pieces":
        return proved(certify(*planted(hard_tanh, seed=4, n=9)))
    risk, theta = planted(*((tanh, (1, 1, 1, 1)) if kind == "deep" else (tanh, (1, 1, 1))), n=9)
    narrow = proved(certify(risk, theta))
    point = risk.at(torch.tensor(narrow.centre, dtype=torch.float64))
    if kind == "split":
        return proved(certify_split(risk, narrow, 0, 0, 0.25))
    if kind == "lift":
        deep = lift(point, risk.inputs, [Insertion(1, 2, hard_tanh)], generator=generator)
        return proved(certify_lift(risk, narrow, deep, 1))
    if kind == "spare":
        found = spare_neuron_lift(risk, point.theta, Insertion(0, 2, relu), generator=generator)
        return proved(certify_lift(risk, narrow, found.point, 0, spare=True))
    return narrow
