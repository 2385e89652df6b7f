import math

import pytest
import torch

from embedding_principle.activations import identity, tanh
from embedding_principle.networks import Network
from embedding_principle.risks import Risk
from embedding_principle.training.ensembles import GradientDescent, Training, ensemble, log_grid, train
from embedding_principle.training.plateaus import encounters, plateau_observers, plateaus

STEPS = log_grid(10_000, 20)


def test_a_power_law_is_no_plateau_and_a_slow_one_is():
    steps = STEPS[1:]
    for exponent, expected in [(-1.0, 0), (-0.06, 0), (1.0, 0), (0.06, 0), (-0.04, 1), (0.04, 1), (0.0, 1)]:
        found = plateaus([0, *steps], [1.0, *(t**exponent for t in steps)], slope=0.05, decades=0.3)
        assert len(found) == expected
    assert found[0].first == STEPS.index(10)
    assert found[0].decades == pytest.approx(3.0)


def test_two_steps_of_a_staircase_are_told_apart_and_short_ones_left_out():
    risk = [1.0 if t < 100 else 0.1 if t < 150 else 0.01 for t in STEPS]
    long = plateaus(STEPS, risk, slope=0.05, decades=0.3)
    assert [(STEPS[p.first], STEPS[p.last]) for p in long] == [(10, 89), (158, 10_000)]
    every = plateaus(STEPS, risk, slope=0.05, decades=0.01)
    assert [(STEPS[p.first], STEPS[p.last]) for p in every] == [(10, 89), (100, 141), (158, 10_000)]


def recorded(
    outputs: torch.Tensor, risk: torch.Tensor, gradient: torch.Tensor, reached: tuple[float, ...] = ()
) -> Training:
    """A training of one network with these records."""
    observations = {"outputs": outputs[None], "gradient": gradient[None], "index": gradient[None, :, None]}
    return Training(torch.tensor(STEPS), risk[None], observations, torch.zeros(1, 1), torch.tensor([reached]))


def test_an_encounter_is_read_off_where_the_gradient_is_smallest_on_the_nearest_plateau():
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    problem = Risk(Network.uniform((1, 1, 1), tanh), x, x)
    steps = torch.tensor(STEPS)
    early, late = steps < 100, steps >= 200
    risk = torch.where(early, 1.0, torch.where(late, 0.1, 0.5)).double()
    outputs = torch.where(early[:, None, None], 0.0, torch.where(late[:, None, None], 0.5 * x, 5.0))
    gradient = 1 + (torch.arange(len(STEPS)) - STEPS.index(1000)).abs().double()
    met = encounters(recorded(outputs, risk, gradient), problem, 0.6 * x)
    assert STEPS[int(met.record)] == 1000
    assert met.distance.item() == pytest.approx(0.1)
    assert met.gap.item() == pytest.approx(0.1 / (0.16 * (x**2).mean().item()) - 1)
    assert met.decades.item() == pytest.approx(math.log10(10_000 / 200), abs=0.06)  # one record of 20 a decade
    assert met.index.item() == 1.0
    first = encounters(recorded(outputs, risk, gradient), problem, 0.1 * x)
    assert STEPS[int(first.record)] < 100


def test_the_state_in_which_a_network_stopped_is_no_plateau():
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    problem = Risk(Network.uniform((1, 1, 1), tanh), x, x)
    steps = torch.tensor(STEPS).double()
    risk = 1 / steps.clamp(1, 200)
    outputs = (0.5 * x).expand(len(STEPS), 5, 1)
    zeros = torch.zeros(len(STEPS), dtype=torch.float64)
    for reached, expected in [((), True), ((50.0, math.inf), True), ((50.0, 200.0), False)]:
        met = encounters(recorded(outputs, risk, zeros, reached), problem, 0.5 * x)
        assert bool(met.record >= 0) is expected


def test_a_network_in_training_rests_nowhere_after_it_stopped():
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    problem = Risk(Network.uniform((1, 1, 1), identity), x, 3 * x)
    start, observers = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).double(), plateau_observers(problem)
    # f = vw x: the risk (3 - vw)²/2 falls from 2, and at 0.1 it still falls steeply.
    run = train(problem, start, GradientDescent(0.05), steps=1000, thresholds=[0.1], observers=observers)
    assert run.reached.max() < 60  # the records up to step 1000 are repetitions
    assert encounters(run, problem, run.observations["outputs"][0, -1]).record.tolist() == [-1]


def test_without_a_plateau_nothing_is_met():
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    risk = torch.tensor([2.0, *(1 / t for t in STEPS[1:])], dtype=torch.float64)
    zeros = torch.zeros(len(STEPS), dtype=torch.float64)
    run = recorded(zeros[:, None, None].expand(-1, 5, 1), risk, zeros)
    met = encounters(run, Risk(Network.uniform((1, 1, 1), tanh), x, x), torch.zeros_like(x))
    assert met.distance.isinf().all()
    assert met.record.tolist() == [-1]
    assert met.gap.isnan().all()


def test_a_linear_network_rests_at_the_best_map_of_rank_one():
    # Saxe, McClelland and Ganguli (arXiv:1312.6120): from a small start a linear network learns one singular direction
    # after the other; between them it rests near a critical point, here for 1/(0.02 · 2 · 0.5) = 50 steps and more.
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    network = Network.uniform((2, 4, 2), identity)
    risk = Risk(network, x, x * torch.tensor([3.0, 0.5], dtype=torch.float64))
    starts = ensemble(network, torch.Generator().manual_seed(0), 6, scale=1e-3)
    run = train(risk, starts, GradientDescent(0.02), steps=2000, observers=plateau_observers(risk))
    met = encounters(run, risk, x * torch.tensor([3.0, 0.0], dtype=torch.float64))
    wrong = encounters(run, risk, x * torch.tensor([0.0, 0.5], dtype=torch.float64))
    # From 1e-3 the weak direction has grown by a few per cent of its size where the gradient is smallest.
    assert (met.distance < 0.02).all()
    assert (met.gap.abs() < 0.01).all()
    # The other map of rank one is not met: 0.5/‖(3, 0.5)‖ = 0.16 from zero, where the networks started.
    assert (wrong.distance > 0.16).all()
    assert (run.risk[:, -1] < 1e-6).all()


def test_a_training_without_observers_is_refused():
    x = torch.ones(3, 1, dtype=torch.float64)
    risk = Risk(Network((1, 1)), x, x)
    run = train(risk, torch.zeros(1, 2).double(), GradientDescent(0.1), steps=3)
    with pytest.raises(ValueError, match=r"gradient.*plateau_observers"):
        encounters(run, risk, x)
