"""The strata of the lifted set: their dimensions by formula, parametrization, Jacobian and sampling."""

from itertools import product

import pytest
import torch
from torch import Generator, Tensor

from embedding_principle.activations import Activation, elu, hard_tanh, leaky_relu, relu, selu
from embedding_principle.depth.dimensions import (
    OutputEquations,
    Stratum,
    jacobian_dimension,
    lifted_dimension,
    sampled_dimension,
    strata,
)
from embedding_principle.depth.lifting import Insertion, lift, occupied_pieces, violations
from embedding_principle.networks import Layer, Network, Parametrised

LIFTABLE = (relu, leaky_relu(0.1), hard_tanh, elu, selu)
SIZES = [(3, 2, 3, 1), (3, 3, 2, 1), (4, 3, 3, 2), (4, 3, 6, 2), (3, 3, 4, 0), (4, 4, 2, 1), (2, 3, 1, 1), (3, 3, 3, 3)]


def generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def random_matrix(*shape: int, g: Generator) -> Tensor:
    return torch.randn(*shape, generator=g)


def point_of_rank(preceding: int, following: int, rank: int, seed: int = 0) -> tuple[Parametrised, Tensor]:
    """An affine network whose weights have this rank, and inputs."""
    g = generator(seed)
    weight = random_matrix(following, rank, g=g) @ random_matrix(rank, preceding, g=g)
    theta = torch.cat([weight.flatten(), random_matrix(following, g=g)])
    return Parametrised(Network((preceding, following)), theta), random_matrix(9, preceding, g=g)


def equations_at(deep: Parametrised, inputs: Tensor) -> OutputEquations:
    pieces = occupied_pieces(deep, inputs, 0)
    return OutputEquations(*deep.layers(), pieces.slope, pieces.intercept)


def parametrized_dimension(preceding: int, following: int, width: int, rank: int, stratum: Stratum) -> int:
    """The rank of a map onto the stratum, without c: A = X (V, E)ᵀ, B = (G, 0) X⁺ + (G, C) M (I − XX⁺)."""
    (a, b), g = stratum.ranks, generator(1)
    fixed_rows, fixed_columns = random_matrix(preceding, rank, g=g), random_matrix(following, rank, g=g)
    shapes = [(width, a), (preceding, a - rank), (following, b - rank), (b, width)]
    sizes = [rows * columns for rows, columns in shapes]

    def member(flat: Tensor) -> Tensor:
        x, e, c, m = (part.view(shape) for part, shape in zip(flat.split(sizes), shapes))
        inverse = torch.linalg.inv(x.mT @ x) @ x.mT if a else x.mT
        known = torch.cat([fixed_columns, torch.zeros(following, a - rank)], 1) @ inverse
        free = torch.cat([fixed_columns, c], 1) @ m @ (torch.eye(width) - x @ inverse)
        return torch.cat([(x @ torch.cat([fixed_rows, e], 1).mT).flatten(), (known + free).flatten()])

    jacobian = torch.func.jacrev(member)(random_matrix(sum(sizes), g=g))
    return int(torch.linalg.matrix_rank(jacobian, rtol=1e-9))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_dimension_of_every_stratum_is_the_rank_of_a_parametrization(size: tuple[int, int, int, int]) -> None:
    for stratum in strata(*size):
        assert stratum.dimension == size[2] + parametrized_dimension(*size, stratum), stratum


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_open_strata_have_the_dimension_of_the_kernel(size: tuple[int, int, int, int]) -> None:
    preceding, following, width, rank = size
    found = [stratum for stratum in strata(*size) if stratum.is_open]
    assert found
    for stratum in found:
        assert stratum.dimension == lifted_dimension(preceding, following, width) + stratum.excess
    larger = rank < min(preceding, following) and width < preceding + following - rank - 1
    assert any(stratum.excess for stratum in found) == larger


@pytest.mark.parametrize("activation", LIFTABLE, ids=lambda activation: activation.name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_members_are_drawn_from_every_stratum_and_counted_on_the_open_ones(
    size: tuple[int, int, int, int], activation: Activation
) -> None:
    preceding, following, width, rank = size
    point, inputs = point_of_rank(preceding, following, rank)
    for stratum in strata(*size):
        insertion = Insertion(0, width, activation, stratum.ranks)
        deep = lift(point, inputs, [insertion], generator=generator(2))
        assert violations(point, deep, inputs, insertion) == ()
        assert tuple(int(torch.linalg.matrix_rank(layer.weight, rtol=1e-9)) for layer in deep.layers()) == stratum.ranks
        equations = equations_at(deep, inputs)
        kernel = lifted_dimension(preceding, following, width) + stratum.excess
        assert jacobian_dimension(equations) == kernel
        if stratum.is_open:
            assert sampled_dimension(equations, generator=generator(3)) == stratum.dimension
        else:
            assert stratum.dimension < kernel


def test_what_is_no_stratum_is_refused_and_a_width_below_the_rank_has_none() -> None:
    for size in SIZES:
        preceding, following, width, rank = size
        point, inputs = point_of_rank(preceding, following, rank)
        known = {stratum.ranks for stratum in strata(*size)}
        for ranks in set(product(range(preceding + 2), range(following + 2))) - known:
            with pytest.raises(ValueError, match="ranks: no member has"):
                lift(point, inputs, [Insertion(0, width, relu, ranks)], generator=generator(0))
    with pytest.raises(ValueError, match=r"ranks: expected \(rank A, rank B\), neither negative, got \(-1, 2\)"):
        Insertion(0, 3, relu, (-1, 2))
    point, inputs = point_of_rank(3, 3, 2)
    assert strata(3, 3, 1, 2) == []
    with pytest.raises(ValueError, match="width: 1 is below the rank 2 of the weights, so the lifted set is empty"):
        lift(point, inputs, [Insertion(0, 1, relu)], generator=generator(0))


def test_a_width_below_both_neighbours_is_enough_where_it_reaches_the_rank() -> None:
    point, inputs = point_of_rank(10, 10, 1)
    insertion = Insertion(0, 1, relu)
    many = lift(point.expand(5), inputs, [insertion], generator=generator(0))
    assert all(violations(point, deep, inputs, insertion) == () for deep in many)
    (stratum,) = strata(10, 10, 1, 1)
    assert (stratum.dimension, stratum.excess, lifted_dimension(10, 10, 1)) == (2, 81, -79)
    assert sampled_dimension(equations_at(many[0], inputs), generator=generator(1)) == 2


def test_points_of_different_rank_cannot_be_lifted_to_given_ranks_at_once() -> None:
    (first, inputs), (second, _) = point_of_rank(3, 3, 1), point_of_rank(3, 3, 2)
    both = first.with_theta(torch.stack([first.theta, second.theta]))
    with pytest.raises(ValueError, match="differ in rank"):
        lift(both, inputs, [Insertion(0, 3, relu, (2, 2))], generator=generator(0))


def test_the_jacobian_counts_more_at_the_singular_origin_and_sampling_refuses_it() -> None:
    """W = 0 with A = 0 and B = 0 (all widths 1): the equation BA = 0 is singular at the origin, where lines cross."""
    zero, one = torch.zeros(1), torch.ones(1)
    origin = OutputEquations(Layer(zero[:, None], one), Layer(zero[:, None], zero), one, zero)
    assert jacobian_dimension(origin) == lifted_dimension(1, 1, 1) + 1
    with pytest.raises(ValueError, match="is its stratum open"):
        sampled_dimension(origin, generator=generator(0))
