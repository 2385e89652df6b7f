import math

import pytest
import torch
from torch import nn

from embedding_principle.activations import tanh
from embedding_principle.networks import Network
from embedding_principle.risks import Risk
from embedding_principle.training import ensembles
from embedding_principle.training.ensembles import Adam, GradientDescent, Training, ensemble, log_grid, train


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_risk(network: Network, *, n: int, seed: int) -> Risk:
    g = generator(seed)
    inputs = torch.randn(n, network.widths[0], generator=g, dtype=torch.float64)
    targets = torch.rand(n, network.widths[-1], generator=g, dtype=torch.float64)
    return Risk(network, inputs, targets)


class Module(nn.Module):
    """The same architecture out of torch's own layers."""

    def __init__(self, network: Network, theta: torch.Tensor) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        layers = network.layers(theta)
        for layer, following in zip(layers, [*network.activations, None]):
            linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], dtype=torch.float64)
            linear.weight.data, linear.bias.data = layer.weight.clone(), layer.bias.clone()
            parts.append(linear)
            if layer.gamma is not None:
                parts.append(nn.BatchNorm1d(len(layer.gamma), eps=network.batch_norm_epsilon, dtype=torch.float64))
                parts[-1].weight.data, parts[-1].bias.data = layer.gamma.clone(), layer.beta.clone()
            if following:
                parts.append(nn.Tanh())
        self.parts = nn.Sequential(*parts)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.parts(inputs)

    def theta(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters()])


@pytest.mark.parametrize("epsilon", [None, 1e-3])
@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        (GradientDescent(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (Adam(0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
        (Adam(0.02, 0.8, 0.99, 1e-3), lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.99), eps=1e-3)),
    ],
)
def test_trajectories_are_those_of_torch_optim(method, optimizer, epsilon):
    network = Network.uniform((2, 4, 3, 2), tanh, batch_norm_epsilon=epsilon)
    risk = random_risk(network, n=7, seed=2)
    starts = ensemble(network, generator(3), 3)
    run = train(risk, starts, method, steps=10)
    for start, end in zip(starts, run.theta):
        module = Module(network, start)
        steps = optimizer(module.parameters())
        for _ in range(10):
            steps.zero_grad()
            ((module(risk.inputs) - risk.targets) ** 2).sum(-1).mean().backward()
            steps.step()
        difference = (module.theta() - end).abs()
        if epsilon is not None and isinstance(method, Adam):
            difference = difference[~cancelled_by_normalization(network)]
        # Ten steps of rounding, 1e-16 each, with no instability to amplify it.
        assert difference.max() < 1e-12


def cancelled_by_normalization(network: Network) -> torch.Tensor:
    """Biases before batch normalization: their gradient is zero but for rounding, which Adam would scale up."""
    marks = torch.zeros(network.n_parameters)
    for layer in network.layers(marks)[:-1]:
        layer.bias.fill_(1.0)
    return marks.bool()


def small_run(size: int, **options: object) -> Training:
    network = Network.uniform((1, 3, 1), tanh)
    risk = random_risk(network, n=6, seed=4)
    return train(risk, ensemble(network, generator(5), size), Adam(0.02), steps=300, **options)


def test_a_network_that_diverged_stays_where_its_risk_overflowed() -> None:
    """Steps that are too long multiply the parameters by ten each: ‖θ‖² overflows long before θ does."""
    inputs = torch.ones(2, 1, dtype=torch.float64)
    risk = Risk(Network((1, 1)), inputs, 0 * inputs)
    run = train(risk, torch.ones(1, 2).double(), GradientDescent(5.0), steps=2000, thresholds=[0.0])
    assert run.risk[0, -1].isinf() or run.risk[0, -1].isnan()
    assert run.theta.isfinite().all()


def test_recorded_risks_belong_to_the_observed_parameters():
    run = small_run(4, observers={"theta": torch.clone})
    risk = random_risk(Network.uniform((1, 3, 1), tanh), n=6, seed=4)
    assert run.steps.tolist() == log_grid(300, 20)
    assert run.observations["theta"].shape == (4, len(run.steps), 10)
    # Two ways of summing the same few terms.
    torch.testing.assert_close(risk(run.observations["theta"]), run.risk, rtol=1e-12, atol=1e-15)
    assert torch.equal(run.observations["theta"][:, -1], run.theta)


def test_a_network_does_not_depend_on_its_companions(monkeypatch):
    together = small_run(9)
    monkeypatch.setattr(ensembles, "_BLOCK_BYTES", 1)
    alone = small_run(3)  # three blocks of one network
    # The order of summation in a batched product may depend on the batch.
    torch.testing.assert_close(alone.risk, together.risk[:3], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(alone.theta, together.theta[:3], rtol=1e-9, atol=1e-12)


def test_a_network_stops_at_its_last_threshold_and_not_before():
    free, everything = small_run(8, thresholds=[0.0], per_decade=1000), small_run(8)
    levels = [0.05, 1.1e-3]
    stopped = small_run(8, thresholds=levels, observers={"theta": torch.clone})
    for row in range(8):
        for index, level in enumerate(levels):
            below = (free.risk[row] <= level).nonzero()
            first = float(free.steps[below[0]]) if len(below) else math.inf
            assert stopped.reached[row, index] == first
    reached = stopped.reached[:, 1].isfinite()
    assert 0 < reached.sum() < 8, "the case must hold both kinds of network"
    assert (stopped.risk[reached, -1] <= levels[1]).all()
    torch.testing.assert_close(stopped.theta[~reached], everything.theta[~reached], rtol=1e-9, atol=1e-12)
    assert torch.equal(stopped.observations["theta"][:, -1], stopped.theta)


def test_training_ends_when_every_network_has_stopped():
    run = small_run(5, thresholds=[1e6])
    assert (run.reached == 0).all()
    assert torch.equal(run.risk, run.risk[:, :1].expand_as(run.risk))


def test_divergence_shows_in_the_risk_and_raises_nothing():
    x = torch.ones(3, 1, dtype=torch.float64)
    run = train(Risk(Network((1, 1)), x, x), torch.zeros(1, 2).double(), GradientDescent(10.0), steps=2000)
    assert not run.risk[0, -1].isfinite()


def test_gradient_descent_on_a_quadratic_contracts_as_predicted():
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    run = train(Risk(Network((1, 1)), x, x), torch.tensor([[3.0, 0.0]]).double(), GradientDescent(0.1), steps=20)
    # R = (w − 1)² here, so each step multiplies w − 1 by 1 − 2 · 0.1.
    torch.testing.assert_close(run.risk[0, -1], torch.tensor(4 * 0.8**40, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("starts", [torch.zeros(2, 9).double(), torch.zeros(10).double(), torch.zeros(0, 10).double()])
def test_unusable_starts_are_refused(starts):
    network = Network.uniform((1, 3, 1), tanh)
    with pytest.raises(ValueError, match=r"starts: expected shape \(S, 10\)"):
        train(random_risk(network, n=4, seed=0), starts, Adam(), steps=1)


@pytest.mark.parametrize("kind", [Adam, GradientDescent])
def test_a_rate_is_not_negative(kind: type) -> None:
    assert kind(0.0).rate == 0
    with pytest.raises(ValueError, match=r"rate: expected a finite number of at least 0, got -0\.1"):
        kind(-0.1)
