"""Inertia from structure against eigenvalues, and extreme eigenvalues of a network as large as MNIST's."""

import numpy as np
import torch
from benchmarks.peers import HessianLinearOperator, curvlinops_operator, problem
from benchmarks.timing import Comparison, compare, one_thread, report
from scipy.sparse.linalg import eigsh
from torch import Tensor

from embedding_principle.activations import tanh
from embedding_principle.curvature.extreme import extreme_eigenvalues, hessian_vector_product
from embedding_principle.curvature.hessian import hessian
from embedding_principle.curvature.inertia import inertia, one_hidden_layer_inertia
from embedding_principle.risks import Risk

SHALLOW = [((10, 200, 1), 100, 40.0), ((10, 200, 1), 400, None), ((10, 50, 1), 50, None)]
LARGE = ((784, 128, 10), 1000)
TOLERANCE = 1e-6
PRODUCT_GOAL = 2.0


def signs(widths: tuple[int, ...], n: int, goal: float | None) -> Comparison:
    """The counts must agree before their times are compared."""
    risk, theta = problem(widths, tanh, n)
    counts, expected = one_hidden_layer_inertia(risk, theta), inertia(hessian(risk, theta)).counts
    if counts != expected:
        raise AssertionError(f"{widths}, n = {n}: structure gives {counts}, eigenvalues {expected}")
    facts = dict(zip(("P", "n−", "n0", "n+"), (len(theta), *counts)))
    peers = {
        "closed-form Hessian, torch eigenvalues": lambda: inertia(hessian(risk, theta)),
        "closed-form Hessian, numpy eigenvalues": lambda: np.linalg.eigvalsh(hessian(risk, theta).numpy()),
    }
    case = f"inertia, {'-'.join(map(str, widths))}, n = {n}"
    return compare(case, lambda: one_hidden_layer_inertia(risk, theta), peers, goal=goal, facts=facts, rounds=5)


def product(risk: Risk, theta: Tensor) -> Comparison:
    """One Hessian-vector product."""
    vector = torch.randn(len(theta), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, operator = hessian_vector_product(risk, theta), curvlinops_operator(risk, theta)
    gradient = torch.func.grad(risk)
    peers = {
        "curvlinops": lambda: operator @ vector,
        "torch.func.jvp(grad)": lambda: torch.func.jvp(gradient, (theta,), (vector,)),
    }
    facts = {"P": len(theta)}
    return compare("Hessian-vector product, 784-128-10, n = 1000", lambda: ours(vector), peers, facts=facts)


def ends(risk: Risk, theta: Tensor) -> Comparison:
    """Both ends of the spectrum, one eigenvalue each."""
    operator = curvlinops_operator(risk, theta).to_scipy()
    start = torch.randn(len(theta), generator=torch.Generator().manual_seed(2), dtype=torch.float64).numpy()

    def ours() -> object:
        return extreme_eigenvalues(risk, theta, generator=torch.Generator().manual_seed(2), tolerance=TOLERANCE)

    found = ours()
    facts = {"P": len(theta), "products": found.products, "error": found.error}
    facts |= {"smallest": found.smallest.item(), "largest": found.largest.item()}
    peers = {"curvlinops, eigsh": lambda: eigsh(operator, k=2, which="BE", tol=TOLERANCE, v0=start)}
    case = "extreme eigenvalues, 784-128-10, n = 1000"
    return compare(case, ours, peers, goal=PRODUCT_GOAL, facts=facts, rounds=5)


if __name__ == "__main__":
    one_thread()
    rows = [signs(*case) for case in SHALLOW]
    if HessianLinearOperator is not None:
        large = problem(LARGE[0], tanh, LARGE[1])
        rows += [product(*large), ends(*large)]
    report("inertia", "Inertia and extreme eigenvalues", rows)
