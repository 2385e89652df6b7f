"""Ensembles in training: `training.train` against what a user would otherwise write for many seeds.

The goals are against a loop over `nn.Module` and `torch.optim.Adam`. Further peers share work between the networks:
`torch.func.vmap` of the gradient with one fused Adam and, where jax is installed, a jitted `lax.scan` over steps.
All start from the same parameters and take the same number of Adam steps.
"""

from collections.abc import Callable

import torch
from benchmarks.timing import Comparison, compare, one_thread, report
from torch import Tensor, nn

from embedding_principle.activations import tanh
from embedding_principle.networks import Network
from embedding_principle.risks import Risk
from embedding_principle.training.ensembles import Adam, ensemble, train

try:
    import jax
    from jax import numpy as jnp
except ImportError:
    jax = None

STEPS = 50
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
CASES = [((1, 10, 1), 256, 20, 100.0), ((2, 20, 20, 1), 64, 100, 20.0), ((10, 100, 100, 1), 16, 1000, None)]


def module(widths: tuple[int, ...], network: Network, theta: Tensor) -> nn.Sequential:
    """The same network as a torch module."""
    parts: list[nn.Module] = []
    for layer in network.layers(theta):
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], dtype=torch.float64)
        linear.weight.data.copy_(layer.weight)
        linear.bias.data.copy_(layer.bias)
        parts += [linear, nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def loop(risk: Risk, starts: Tensor) -> Callable[[], None]:
    modules = [module(risk.network.widths, risk.network, theta) for theta in starts]
    optimizers = [torch.optim.Adam(each.parameters(), lr=RATE) for each in modules]

    def run() -> None:
        for each, optimizer in zip(modules, optimizers):
            for _ in range(STEPS):
                optimizer.zero_grad()
                ((each(risk.inputs) - risk.targets) ** 2).sum(-1).mean().backward()
                optimizer.step()

    return run


def vmapped(risk: Risk, starts: Tensor) -> Callable[[], None]:
    gradient = torch.func.vmap(torch.func.grad(risk))
    theta = nn.Parameter(starts.clone())
    optimizer = torch.optim.Adam([theta], lr=RATE, fused=True)

    def run() -> None:
        for _ in range(STEPS):
            theta.grad = gradient(theta.detach())
            optimizer.step()

    return run


def scanned(risk: Risk, starts: Tensor) -> Callable[[], None]:
    jax.config.update("jax_enable_x64", True)
    x, y, theta = (jnp.asarray(each.numpy()) for each in (risk.inputs, risk.targets, starts))

    def jax_risk(theta):
        features, start, widths = x, 0, risk.network.widths
        for index, (fan_in, width) in enumerate(zip(widths, widths[1:])):
            weight, start = theta[start : start + fan_in * width].reshape(width, fan_in), start + fan_in * width
            bias, start = theta[start : start + width], start + width
            features = features @ weight.T + bias
            features = jnp.tanh(features) if index < len(widths) - 2 else features
        return ((features - y) ** 2).sum(-1).mean()

    def step(state, count):
        theta, mean, square = state
        gradient = jax.vmap(jax.grad(jax_risk))(theta)
        mean, square = BETA1 * mean + (1 - BETA1) * gradient, BETA2 * square + (1 - BETA2) * gradient**2
        scale = jnp.sqrt(square / (1 - BETA2**count)) + EPSILON
        return (theta - RATE * mean / (1 - BETA1**count) / scale, mean, square), None

    run = jax.jit(lambda theta: jax.lax.scan(step, (theta, 0 * theta, 0 * theta), 1.0 + jnp.arange(STEPS))[0][0])
    return lambda: run(theta).block_until_ready()


def case(widths: tuple[int, ...], size: int, n: int, goal: float | None) -> list[Comparison]:
    generator = torch.Generator().manual_seed(0)
    network = Network.uniform(widths, tanh)
    inputs = torch.randn(n, widths[0], generator=generator, dtype=torch.float64)
    risk = Risk(network, inputs, torch.randn(n, widths[-1], generator=generator, dtype=torch.float64))
    starts = ensemble(network, generator, size)
    name = f"{'-'.join(map(str, widths))}, S = {size}, n = {n}, {STEPS} steps"

    def ours() -> None:
        train(risk, starts, Adam(RATE), steps=STEPS, per_decade=1)

    peers = {"vmap(grad)": vmapped(risk, starts)} | ({"jax": scanned(risk, starts)} if jax else {})
    return [
        compare(name, ours, {"loop of nn.Module": loop(risk, starts)}, rounds=5, goal=goal),
        *(compare(name, ours, {peer: run}) for peer, run in peers.items()),
    ]


if __name__ == "__main__":
    one_thread()
    report("ensembles", "Ensembles in training (Adam)", [row for each in CASES for row in case(*each)])
