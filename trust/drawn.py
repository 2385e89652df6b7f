"""Strategies: arguments of the library that are valid, hardly valid or not at all, drawn by the kind of a good one."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Generator, Tensor

from embedding_principle import activations
from embedding_principle.activations import Activation
from embedding_principle.depth.lifting import Insertion
from embedding_principle.networks import Layer, Network, Parametrised
from embedding_principle.risks import Risk, cross_entropy, squared_error
from trust.pieces import load

EDGES = (0.0, -0.0, 1.0, -1.0, 5e-324, 1e-300, 1e-16, 1e16, 1e154, 1e300, math.inf, -math.inf, math.nan)
ACTIVATIONS = [value for value in vars(activations).values() if isinstance(value, Activation)]
BAD = "tests/embedding_principle/test_bad_arguments.py"
LOSSES = (squared_error, cross_entropy)

seeds = st.integers(0, 2**32 - 1)
# A power of ten that leaves products of three matrices finite, most of the time 1.
exponents = st.one_of(st.just(0), st.integers(-12, 12))
sizes = st.integers(1, 4)


def normal(shape: tuple[int, ...], seed: int, exponent: int = 0) -> Tensor:
    """Independent Gaussians times a power of ten."""
    draws = torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)
    return draws * 10.0**exponent


@st.composite
def tensors(draw: DrawFn, good: Tensor) -> object:
    """A tensor of the same shape, or of another, with entries that are ordinary, equal, or at the edges of floats."""
    kind = draw(st.sampled_from(["other", "other", "shape", "edges", "repeated", "listed"]))
    if kind == "listed" or not good.is_floating_point():
        return draw(st.sampled_from([value for _, value in load(BAD).bad_tensors(good)]))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4))) if kind == "shape" else tuple(good.shape)
    made = normal(shape, draw(seeds), draw(exponents))
    if kind == "repeated" and made.dim():
        made = made[:1].expand_as(made).clone()
    if kind == "edges" and made.numel():
        for place in draw(st.lists(st.integers(0, made.numel() - 1), min_size=1, max_size=3)):
            made.view(-1)[place] = draw(st.sampled_from(EDGES))
    return made


@st.composite
def networks(draw: DrawFn) -> Network:
    """A valid network, mostly small."""
    widths = draw(st.lists(sizes, min_size=2, max_size=4))
    chosen = [draw(st.sampled_from(ACTIVATIONS)) for _ in widths[2:]]
    epsilon = draw(st.sampled_from([None, None, None, 1e-5, 1e-300])) if chosen else None
    return Network(tuple(widths), tuple(chosen), batch_norm_epsilon=epsilon)


@st.composite
def points(draw: DrawFn, good: Parametrised) -> Parametrised:
    """The same network, or another, at other parameters."""
    network = draw(st.one_of(st.just(good.network), networks()))
    batch = tuple(good.theta.shape[:-1]) if draw(st.booleans()) else tuple(draw(st.lists(sizes, max_size=2)))
    return Parametrised(network, normal((*batch, network.n_parameters), draw(seeds), draw(exponents)))


@st.composite
def risks(draw: DrawFn, good: Risk) -> Risk:
    """The same network, or another, with other data."""
    network = draw(st.one_of(st.just(good.network), networks()))
    samples, loss = draw(st.integers(1, 6)), draw(st.sampled_from(LOSSES))
    inputs = normal((samples, network.widths[0]), draw(seeds), draw(exponents))
    targets = normal((samples, network.widths[-1]), draw(seeds), draw(exponents))
    if draw(st.booleans()):
        inputs = inputs[:1].expand_as(inputs)
    return Risk(network, inputs, targets.softmax(-1) if loss is cross_entropy else targets, loss)


@st.composite
def layers(draw: DrawFn, good: Layer) -> Layer:
    """An affine map of the same or of another shape."""
    rows, columns = good.weight.shape[-2:] if draw(st.booleans()) else (draw(sizes), draw(sizes))
    return Layer(normal((rows, columns), draw(seeds), draw(exponents)), normal((rows,), draw(seeds)))


insertions = st.builds(
    Insertion,
    st.integers(0, 2),
    st.integers(1, 6),
    st.sampled_from(ACTIVATIONS),
    st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(0, 3))),
)
whole = st.one_of(st.integers(-2, 12), st.sampled_from([2**31, 2**63, 2**70, -(2**70), 10**9, True]))
real = st.one_of(st.floats(), st.floats(-2, 2), st.sampled_from(EDGES), st.integers(-2, 2))


def changed(good: object) -> SearchStrategy[Any]:
    """What may come in the place of a good argument: mostly of its kind, else one of the listed bad values."""
    listed = st.deferred(lambda: st.sampled_from([value for _, value in load(BAD).bad_values(good)]))
    return st.one_of(_alike(good), _alike(good), listed)


def _alike(good: object) -> SearchStrategy[Any]:
    if isinstance(good, Tensor):
        return tensors(good)
    if isinstance(good, bool):
        return st.booleans()
    if isinstance(good, int):
        return whole
    if isinstance(good, float):
        return real
    if isinstance(good, str):
        return st.one_of(st.just(good), st.text(max_size=8))
    if isinstance(good, list | tuple) and good:
        kind = type(good)
        return st.lists(st.one_of(*(st.just(item) | _alike(item) for item in good)), max_size=4).map(kind)
    for of, strategy in ((Parametrised, points), (Risk, risks), (Layer, layers)):
        if isinstance(good, of):
            return strategy(good)
    if isinstance(good, Network):
        return networks()
    if isinstance(good, Activation):
        return st.sampled_from(ACTIVATIONS)
    if isinstance(good, Insertion):
        return insertions
    if isinstance(good, Generator):
        return seeds.map(lambda seed: Generator().manual_seed(seed))
    return st.just(good)
