"""Critical points made to order: a risk for which a given θ is critical, without a search.

Any finite θ of any network is a critical point for targets with residuals in the kernel of Jᵀ, J the Jacobian of all
outputs in θ: ∇R_S = (1/n) Jᵀ ∂ℓ/∂f. Where n·m_L > P the kernel is not zero. Small residuals leave the Gauss–Newton
part of the Hessian in charge, and θ is a minimum where J has full column rank; large ones make saddles.
"""

import torch
from torch import Generator, Tensor

from embedding_principle.arguments import checked, number, real
from embedding_principle.networks import Parametrised
from embedding_principle.risks import Loss, Risk, cross_entropy, squared_error

# Once leaves 1e-16 of the noise, whose part in the kernel may be as small where n·m_L hardly exceeds P.
_PROJECTIONS = 3


@checked
def plant(
    point: Parametrised,
    inputs: Tensor,
    *,
    generator: Generator,
    residual: float = 1.0,
    loss: Loss = squared_error,
    orthogonal_to: Tensor | None = None,
) -> Risk:
    """A risk with random targets for which this point is critical, up to rounding.

    Args:
        point: θ, (P,).
        inputs: x, (n, m_0).
        generator: of the residuals.
        residual: how large they are. For the squared error the root mean square of f_θ(x_i) − y_i over samples and
            outputs; for cross-entropy the fraction, at most 1, of the largest residuals in their direction that leave
            every target a probability.
        loss: `squared_error` or `cross_entropy`.
        orthogonal_to: (k, n·m_L), further directions that the residuals have no component along, sample by sample.

    Raises:
        ValueError: if the point is not a single finite one, the residual is out of range, or J and the further
            directions leave no residual.

    Example:
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.networks import Network
        >>> point = Parametrised(Network.uniform((1, 2, 1), tanh), torch.linspace(-1, 1, 7).double())
        >>> x = torch.linspace(-2, 2, 20).double()[:, None]
        >>> risk = plant(point, x, generator=torch.Generator().manual_seed(0))
        >>> bool(risk.gradient(point.theta).norm() < 1e-14), round(risk(point.theta).item(), 12)
        (True, 1.0)
    """
    point = Parametrised(point.network, real("point", point.theta, (point.network.n_parameters,)))
    inputs = real("inputs", inputs, ("n", point.network.widths[0]))
    number("residual", residual, at_least=0.0)
    outputs = point.forward(inputs).detach()
    normals = [point.jacobian(inputs).flatten(0, 1)]
    if loss == cross_entropy:
        # Rows of residuals p − y sum to zero.
        normals.append(torch.eye(len(outputs), dtype=torch.float64).repeat_interleave(outputs.shape[1], 0))
    if orthogonal_to is not None:
        normals.append(real("orthogonal_to", orthogonal_to, ("k", outputs.numel())).mT)
    direction = _kernel_direction(torch.cat(normals, 1), generator).view_as(outputs)
    if loss != cross_entropy:
        return Risk(point.network, inputs, outputs - residual * direction, loss)
    if residual > 1:
        raise ValueError(f"residual: for cross-entropy expected a fraction of at most 1, got {residual}")
    # y = p − t r stays at least 0 up to the smallest p / r among positive r.
    probabilities = torch.softmax(outputs, -1)
    largest = (probabilities / direction)[direction > 0].min()
    return Risk(point.network, inputs, (probabilities - residual * largest * direction).clamp_min(0), loss)


def _kernel_direction(normals: Tensor, generator: Generator) -> Tensor:
    """A random vector of unit root mean square, orthogonal to the columns of a matrix."""
    rows, columns = normals.shape
    basis = torch.linalg.qr(normals).Q
    noise = torch.randn(rows, generator=generator, dtype=torch.float64)
    if rows <= columns:
        raise ValueError(
            f"inputs: n·m_L = {rows} residuals under {columns} conditions may all vanish; give more than "
            f"{columns} / m_L samples"
        )
    for _ in range(_PROJECTIONS):
        noise = noise - basis @ (basis.mT @ noise)
    return noise / noise.square().mean().sqrt()
