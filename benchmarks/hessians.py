"""Dense Hessians: the closed form against automatic differentiation, and against the speed of matrix products."""

from collections.abc import Callable

import torch
from benchmarks.peers import dense_peers, problem
from benchmarks.timing import Comparison, compare, one_thread, report
from torch import Tensor

from embedding_principle.activations import tanh
from embedding_principle.curvature.hessian import hessian
from embedding_principle.risks import Risk

DENSE = [
    ((20, 20, 20, 1), 1000, 20.0),
    ((10, 45, 45, 1), 1000, 20.0),
    ((10, 64, 64, 1), 1000, 20.0),
    ((20, 20, 20, 1), 100, 5.0),
    ((10, 45, 45, 1), 100, 5.0),
    ((10, 64, 64, 1), 100, 5.0),
    ((2, 10, 1), 20, None),
]
BATCHED = [((2, 10, 1), 100, 20.0), ((1, 3, 1), 20, None), ((2, 5, 5, 1), 50, None)]
NEAR_LIMIT = [((10, 45, 45, 1), 1000), ((10, 64, 64, 1), 1000)]
NETWORKS = 256


def difference(first: Tensor, second: Tensor) -> float:
    """The largest difference relative to the largest entry."""
    return float((first - second).abs().max() / second.abs().max())


def dense(widths: tuple[int, ...], n: int, goal: float | None) -> Comparison:
    """One θ."""
    risk, theta = problem(widths, tanh, n)
    peers = dense_peers(risk, theta)
    facts = {"P": len(theta), "error": difference(hessian(risk, theta), next(iter(peers.values()))())}
    return compare(f"{name(widths)}, n = {n}", lambda: hessian(risk, theta), peers, goal=goal, facts=facts, rounds=5)


def batched(widths: tuple[int, ...], n: int, goal: float | None) -> Comparison:
    """A batch of θ against the vectorizing map."""
    risk, theta = problem(widths, tanh, n, (NETWORKS,))
    vectorized: Callable[[Tensor], Tensor] = torch.func.vmap(torch.func.hessian(risk))
    facts = {"P": theta.shape[-1], "error": difference(hessian(risk, theta), vectorized(theta))}
    peers = {"vmap(torch.func.hessian)": lambda: vectorized(theta)}
    case = f"{name(widths)}, n = {n}, S = {NETWORKS}"
    return compare(case, lambda: hessian(risk, theta), peers, goal=goal, facts=facts)


def near_limit(widths: tuple[int, ...], n: int) -> Comparison:
    """Against one square matrix product of as many operations; a ratio of 1/3 means within three times the limit."""
    risk, theta = problem(widths, tanh, n)
    size = round((operations(risk) / 2) ** (1 / 3))
    square = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    peers = {"matrix product alone": lambda: square @ square}
    facts = {"P": len(theta), "operations": operations(risk)}
    return compare(f"{name(widths)}, n = {n}", lambda: hessian(risk, theta), peers, goal=1 / 3, facts=facts)


def operations(risk: Risk) -> float:
    """Operations of the products that the formula needs when it uses every symmetry.

    A diagonal block is symmetric in both pairs of indices: a quarter of 2 n P_l². A block of two layers takes
    2 n P_l P_m, and as much again for its second term unless the layers are neighbours.
    """
    widths, n = risk.network.widths, len(risk.inputs)
    sizes = [(fan_in + 1) * fan_out for fan_in, fan_out in zip(widths, widths[1:])]
    total = sum(n * size**2 / 2 for size in sizes)
    for low, size in enumerate(sizes):
        for high in range(low + 1, len(sizes)):
            total += 2 * n * size * sizes[high] * (1 if high == low + 1 else 2)
    return total


def name(widths: tuple[int, ...]) -> str:
    return "-".join(map(str, widths))


if __name__ == "__main__":
    one_thread()
    rows = [near_limit(*case) for case in NEAR_LIMIT]
    rows += [batched(*case) for case in BATCHED]
    rows += [dense(*case) for case in DENSE]
    report("hessians", "Dense Hessians", rows)
