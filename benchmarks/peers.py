"""What a user would otherwise pick for Hessians and Hessian-vector products.

curvlinops is optional, in the extra `bench` with jax: it needs torchvision, which does not fit every wheel of torch.
Where it can be imported it takes part; else the table says nothing about it.
"""

from collections.abc import Callable

import torch
from benchmarks.timing import seconds
from torch import Tensor, nn

from embedding_principle.networks import Network
from embedding_principle.risks import Risk

try:
    from curvlinops import HessianLinearOperator
except ImportError:
    HessianLinearOperator = None

CHUNKS = (16, 64, 256)
# Doubles in one array of tangents (1 GB): peers that differentiate in all P directions at once take several of these.
MOST_TANGENTS = 1 << 27


def problem(widths: tuple[int, ...], activation: object, n: int, batch: tuple[int, ...] = ()) -> tuple[Risk, Tensor]:
    """A risk on Gaussian data and random parameters."""
    generator = torch.Generator().manual_seed(0)
    network = Network.uniform(widths, activation)
    x = torch.randn(n, widths[0], generator=generator, dtype=torch.float64)
    y = torch.randn(n, widths[-1], generator=generator, dtype=torch.float64)
    return Risk(network, x, y), network.initial(generator, bias_scale=0.5, batch=batch)


def chunked_hessian(risk: Risk, theta: Tensor, chunk: int) -> Tensor:
    """Forward over reverse differentiation, some columns at a time."""
    gradient = torch.func.grad(risk)

    def column(direction: Tensor) -> Tensor:
        return torch.func.jvp(gradient, (theta,), (direction,))[1]

    return torch.func.vmap(column, chunk_size=chunk)(torch.eye(len(theta), dtype=theta.dtype))


def module(network: Network, theta: Tensor) -> nn.Sequential:
    """The same tanh network as a torch module."""
    parts: list[nn.Module] = []
    for fan_in, fan_out in zip(network.widths, network.widths[1:]):
        parts += [nn.Linear(fan_in, fan_out, dtype=torch.float64), nn.Tanh()]
    model = nn.Sequential(*parts[:-1])
    nn.utils.vector_to_parameters(theta, model.parameters())
    return model


def curvlinops_operator(risk: Risk, theta: Tensor) -> object:
    """The Hessian of a scalar network's mean squared error as curvlinops sees it."""
    model, data = module(risk.network, theta), [(risk.inputs, risk.targets)]
    parameters = list(model.parameters())
    return HessianLinearOperator(model, nn.MSELoss(), parameters, data, check_deterministic=False)


def dense_peers(risk: Risk, theta: Tensor) -> dict[str, Callable[[], object]]:
    """The ways to the dense Hessian at one θ that fit into memory; of the chunk sizes the one that is fastest here."""
    times = {chunk: seconds(lambda chunk=chunk: chunked_hessian(risk, theta, chunk)) for chunk in CHUNKS}
    best = min(times, key=times.__getitem__)
    peers: dict[str, Callable[[], object]] = {
        f"vmap(jvp(grad)), chunks of {best}": lambda: chunked_hessian(risk, theta, best)
    }
    if len(theta) * len(risk.inputs) * max(risk.network.widths) <= MOST_TANGENTS:
        peers["torch.func.hessian"] = lambda: torch.func.hessian(risk)(theta)
        if HessianLinearOperator is not None:
            operator, identity = curvlinops_operator(risk, theta), torch.eye(len(theta), dtype=theta.dtype)
            peers["curvlinops @ I"] = lambda: operator @ identity
    return peers
