"""The extreme eigenvalues of Hessians too large to be formed, from Hessian-vector products."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Generator, Tensor

from embedding_principle.arguments import checked, number, real, whole
from embedding_principle.risks import Risk


@dataclass(frozen=True, eq=False)
class ExtremeEigenvalues:
    """Both ends of a spectrum.

    Attributes:
        smallest: the smallest eigenvalues in increasing order, (count,).
        largest: the largest ones in increasing order, (count,).
        error: the largest ‖H v − λ v‖ over the unit eigenvectors v: within this distance of each value given there
            is an eigenvalue of H.
        products: Hessian-vector products spent.
    """

    smallest: Tensor
    largest: Tensor
    error: float
    products: int


@checked
def hessian_vector_product(risk: Risk, theta: Tensor) -> Callable[[Tensor], Tensor]:
    """The map v ↦ ∇²R_S(θ) v on vectors (P,): one gradient is taken, and its graph kept for every product.

    The product is not finite where float64 overflows.

    Args:
        risk: the empirical risk; batch normalization is allowed.
        theta: θ, (P,).

    Raises:
        ValueError: if θ, or a vector that is multiplied, is not finite or not of that shape.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> product = hessian_vector_product(Risk(Network((1, 1)), x, x), torch.zeros(2).double())
        >>> product(torch.tensor([1.0, 2.0]).double())
        tensor([2., 4.], dtype=torch.float64)
    """
    theta = real("theta", theta, (risk.network.n_parameters,)).requires_grad_(True)
    # Outside inference mode, and with gradients, whatever the caller's mode is.
    with torch.inference_mode(False):
        (gradient,) = torch.autograd.grad(risk(theta), theta, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        """∇²R v for v (P,)."""
        with torch.inference_mode(False):
            direction = real("vector", vector, tuple(theta.shape))
            (image,) = torch.autograd.grad(gradient, theta, direction, retain_graph=True)
        return image

    return product


@checked
def extreme_eigenvalues(
    risk: Risk, theta: Tensor, *, generator: Generator, count: int = 1, tolerance: float = 1e-8
) -> ExtremeEigenvalues:
    """The `count` smallest and largest eigenvalues of ∇²R_S(θ), by implicitly restarted Lanczos (ARPACK).

    Args:
        risk: the empirical risk; batch normalization is allowed.
        theta: θ, (P,), P > 2 · count.
        generator: draws the starting vector.
        count: eigenvalues wanted at each end.
        tolerance: wanted accuracy relative to ‖H‖, at both ends.

    Raises:
        ValueError: if P is not larger than 2 · count, a derivative is not finite, or Lanczos does not reach the
            tolerance.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
        >>> generator = torch.Generator().manual_seed(0)
        >>> ends = extreme_eigenvalues(Risk(Network((1, 2)), x, x.expand(-1, 2)), torch.zeros(4).double(),
        ...                            generator=generator)
        >>> round(ends.smallest.item(), 6), round(ends.largest.item(), 6)
        (1.333333, 2.0)
    """
    theta = real("theta", theta, (risk.network.n_parameters,))
    count, tolerance = whole("count", count, 1), number("tolerance", tolerance, at_least=0.0)
    if len(theta) <= 2 * count:
        raise ValueError(f"theta: expected shape (P,) with P > {2 * count}, got {tuple(theta.shape)}")
    product = _CountedProduct(hessian_vector_product(risk, theta))
    start = torch.randn(len(theta), generator=generator, dtype=torch.float64).numpy()
    try:
        return _ends(product, start, count, tolerance)
    except ArpackError as error:
        image = product(start)
        if not np.isfinite(image).all():
            raise ValueError("theta: the Hessian there is not finite; it overflows float64") from error
        if image.any():
            raise ValueError(f"tolerance: Lanczos does not reach {tolerance:g} ({error}); ask for less") from error
        # No random vector but one of the null matrix has no image.
        nothing = torch.zeros(count, dtype=torch.float64)
        return ExtremeEigenvalues(nothing, nothing, 0.0, product.spent)


def _ends(product: "_CountedProduct", start: np.ndarray, count: int, tolerance: float) -> ExtremeEigenvalues:
    # ARPACK's tolerance is relative to each eigenvalue, so one near zero would never converge: a shift by about the
    # norm gives both ends an accuracy relative to it. A tenth is exact enough for the norm.
    norm = abs(eigsh(product.shifted(0.0, len(start)), k=1, tol=0.1, v0=start, return_eigenvectors=False)[0])
    shifted = product.shifted(2 * norm, len(start))
    values, vectors = eigsh(shifted, k=2 * count, which="BE", tol=tolerance, v0=start)
    residuals = [np.linalg.norm(product(v) + (2 * norm - value) * v) for value, v in zip(values, vectors.T.copy())]
    ends = torch.from_numpy(values - 2 * norm)
    return ExtremeEigenvalues(ends[:count], ends[count:], float(max(residuals)), product.spent)


class _CountedProduct:
    """A Hessian-vector product on numpy arrays that counts its calls."""

    def __init__(self, product: Callable[[Tensor], Tensor]) -> None:
        self.product = product
        self.spent = 0

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        self.spent += 1
        return self.product(torch.from_numpy(vector.ravel())).numpy()

    def shifted(self, shift: float, size: int) -> LinearOperator:
        """H + shift · I for scipy."""
        return LinearOperator((size, size), matvec=lambda v: self(v) + shift * v.ravel(), dtype=np.float64)
