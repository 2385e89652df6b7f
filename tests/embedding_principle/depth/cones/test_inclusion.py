"""More data, fewer members: S ⊆ S' implies T_{S'}(θ) ⊆ T_S(θ), with members that are built without `lift`."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embedding_principle.activations import relu
from embedding_principle.depth.lifting import Insertion, violations
from embedding_principle.networks import Network, Parametrised

INSERTION = Insertion(0, 4, relu)
Array = NDArray[np.float64]


def member(theta: Array, inputs: Array, rng: np.random.Generator) -> Parametrised:
    """A deeper parameter over the linear map (w, b): ReLU neurons that are positive on these inputs, by hand."""
    first = rng.standard_normal((INSERTION.width, inputs.shape[1]))
    offset = (-inputs @ first.T).max(axis=0) + rng.exponential(0.3, INSERTION.width)
    second = theta[None, :-1] @ np.linalg.pinv(first)
    remaining = theta[-1] - second @ offset
    flat = np.concatenate([first.ravel(), offset, second.ravel(), remaining])
    return Parametrised(Network((inputs.shape[1], INSERTION.width, 1), (relu,)), torch.from_numpy(flat))


@pytest.mark.parametrize("seed", range(20))
def test_members_for_more_data_are_members_for_every_part_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    theta, everything = rng.standard_normal(4), rng.standard_normal((30, 3))
    shallow = Parametrised(Network((3, 1)), torch.from_numpy(theta))
    deep = member(theta, everything, rng)
    for _ in range(5):
        part = rng.permutation(everything)[: rng.integers(1, 31)]
        assert violations(shallow, deep, torch.from_numpy(part), INSERTION) == ()


def test_members_for_a_part_are_mostly_none_for_all() -> None:
    rng = np.random.default_rng(0)
    theta, everything = rng.standard_normal(4), rng.standard_normal((30, 3))
    shallow = Parametrised(Network((3, 1)), torch.from_numpy(theta))
    found = [
        violations(shallow, member(theta, everything[:5], rng), torch.from_numpy(everything), INSERTION)
        for _ in range(50)
    ]
    # One neuron misses one of 25 further samples with certainty almost; 4 of them in 50 draws leave nothing to chance.
    assert sum(bool(violation) for violation in found) > 40
    assert {v.condition for violation in found for v in violation} == {"layer linearization"}
