"""The Hessian of the empirical risk."""

import torch
from torch import Tensor

from embedding_principle.arguments import checked, number, require_room, variable
from embedding_principle.curvature.deep import closed_form_derivatives
from embedding_principle.curvature.kinks import require_smooth
from embedding_principle.curvature.one_hidden_layer import has_one_hidden_layer, one_hidden_layer_derivatives
from embedding_principle.curvature.passes import Derivatives
from embedding_principle.risks import Risk


@checked
def hessian(risk: Risk, theta: Tensor, *, ridge: float = 0.0) -> Tensor:
    """∇²(R_S + ridge ‖·‖²)(θ), (..., P, P), exactly symmetric.

    In closed form (see `deep` and, for one hidden layer and a scalar output, `one_hidden_layer`); with batch
    normalization by automatic differentiation.

    Args:
        risk: the empirical risk.
        theta: θ, (..., P), of any float type; the Hessian is float64. It is not finite where θ is not, or where
            float64 overflows; the others of the batch have theirs.
        ridge: weight of ‖θ‖², as for `critical_points.search`.

    Raises:
        ValueError: if θ is not of that shape, the ridge is negative, or the Hessian would not fit in memory.
        KinkError: if a sample sits on a kink of σ, where there is no Hessian; see `kinks.require_smooth`.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> hessian(Risk(Network((1, 1)), x, x), torch.zeros(2).double())
        tensor([[2., 0.],
                [0., 2.]], dtype=torch.float64)
    """
    require_smooth(risk, theta)
    return formal_hessian(risk, theta, ridge=ridge)


@checked
def formal_hessian(risk: Risk, theta: Tensor, *, ridge: float = 0.0) -> Tensor:
    """The same by its formula alone: on a kink, with autograd's choice of σ′ and σ″ there. For steps of a search.

    It is not finite where θ is not, or where float64 overflows.

    Example:
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> x = torch.zeros(1, 1).double()
        >>> formal_hessian(Risk(Network.uniform((1, 1, 1), relu), x, x), torch.zeros(4)).shape
        torch.Size([4, 4])
    """
    theta = variable("theta", theta, (..., risk.network.n_parameters)).detach()
    ridge, size = number("ridge", ridge, at_least=0.0), theta.shape[-1]
    if not theta.numel():
        return theta.new_empty(*theta.shape, size)
    require_room("theta", *theta.shape, size)
    return derivatives(risk, theta.reshape(-1, size), ridge=ridge).hessian.view(*theta.shape, size)


@checked
def derivatives(risk: Risk, theta: Tensor, *, ridge: float = 0.0) -> Derivatives:
    """R = R_S + ridge ‖·‖² with ∇R and the formal ∇²R at θ (S, P), in one pass over the samples.

    Raises:
        ValueError: as `hessian` does.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> found = derivatives(Risk(Network((1, 1)), x, x), torch.ones(1, 2).double(), ridge=0.5)
        >>> found.risk, found.gradient
        (tensor([2.], dtype=torch.float64), tensor([[1., 3.]], dtype=torch.float64))
    """
    theta = variable("theta", theta, ("S", risk.network.n_parameters)).detach()
    ridge = number("ridge", ridge, at_least=0.0)
    require_room("theta", *theta.shape, theta.shape[-1])
    if risk.network.batch_norm_epsilon is not None:
        found = Derivatives(risk(theta), risk.gradient(theta), differentiated_hessian(risk, theta))
    elif has_one_hidden_layer(risk.network):
        found = one_hidden_layer_derivatives(risk, theta)
    else:
        found = closed_form_derivatives(risk, theta)
    if ridge:
        found.risk.add_(theta.square().sum(-1), alpha=ridge)
        found.gradient.add_(theta, alpha=2 * ridge)
        found.hessian.diagonal(dim1=-2, dim2=-1).add_(2 * ridge)
    return found


@checked
def differentiated_hessian(risk: Risk, theta: Tensor) -> Tensor:
    """∇²R_S(θ) for θ (S, P) by automatic differentiation: any network, but many times slower.

    It is not finite where θ is not, or where float64 overflows.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> differentiated_hessian(Risk(Network((1, 1)), x, x), torch.zeros(5, 2).double()).shape
        torch.Size([5, 2, 2])
    """
    theta = variable("theta", theta, ("S", risk.network.n_parameters)).detach()
    # Outside inference mode, whatever the caller's mode is.
    with torch.inference_mode(False):
        matrix: Tensor = torch.func.vmap(torch.func.hessian(risk))(theta)
    return (matrix + matrix.mT) / 2
