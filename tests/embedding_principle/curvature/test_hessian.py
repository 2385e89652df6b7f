"""The Hessian against differentiation, closed forms and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_principle.activations import ACTIVATIONS, Activation, identity, tanh
from embedding_principle.curvature.deep import closed_form_hessian
from embedding_principle.curvature.hessian import differentiated_hessian, hessian
from embedding_principle.curvature.one_hidden_layer import one_hidden_layer_hessian
from embedding_principle.curvature.passes import passes_over
from embedding_principle.networks import Network
from embedding_principle.risks import Loss, Risk, cross_entropy, squared_error

# Sums of a few hundred products of float64 numbers, each rounded to 1.1e-16: the largest difference that 120 random
# architectures showed was 1.3e-15 of the largest entry.
ROUNDING = 1e-13

generators = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


def random_risk(network: Network, generator: torch.Generator, *, n: int, loss: Loss = squared_error) -> Risk:
    x = torch.randn(n, network.widths[0], generator=generator, dtype=torch.float64)
    y = torch.softmax(torch.randn(n, network.widths[-1], generator=generator, dtype=torch.float64), dim=-1)
    return Risk(network, x, y, loss)


def random_theta(network: Network, generator: torch.Generator, batch: tuple[int, ...] = ()) -> torch.Tensor:
    return network.initial(generator, scale=1.5, bias_scale=0.5, batch=batch)


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = ROUNDING) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("loss", [squared_error, cross_entropy], ids=lambda loss: loss.name)
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=lambda activation: activation.name)
@settings(max_examples=6)
@given(
    widths=st.lists(st.integers(1, 5), min_size=3, max_size=5),
    batch=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    n=st.integers(1, 12),
    generator=generators,
)
def test_agrees_with_automatic_differentiation(
    activation: Activation, loss: Loss, widths: list[int], batch: tuple[int, ...], n: int, generator: torch.Generator
) -> None:
    """In every other hidden layer the activation, in those between tanh."""
    activations = [activation if layer % 2 == 0 else tanh for layer in range(len(widths) - 2)]
    network = Network(tuple(widths), tuple(activations))
    risk = random_risk(network, generator, n=n, loss=loss)
    theta = random_theta(network, generator, batch)
    actual = hessian(risk, theta)
    expected = differentiated_hessian(risk, theta.reshape(-1, theta.shape[-1]))
    assert_near(actual, expected.reshape(actual.shape))
    assert torch.equal(actual, actual.mT)


@given(m=st.integers(1, 4), outputs=st.integers(1, 3), generator=generators)
def test_of_linear_regression_is_the_second_moment_of_the_inputs(
    m: int, outputs: int, generator: torch.Generator
) -> None:
    risk = random_risk(Network((m, outputs)), generator, n=10)
    moment = 2 * risk.inputs.T @ risk.inputs / 10
    mean = 2 * risk.inputs.mean(0).repeat(outputs, 1)
    matrix = hessian(risk, torch.zeros(outputs * (m + 1)).double())
    size = outputs * m
    assert_near(matrix[:size, :size], torch.block_diag(*[moment] * outputs))
    assert_near(matrix[size:, size:], 2 * torch.eye(outputs).double())
    assert_near(matrix[size:, :size], torch.block_diag(*mean.unsqueeze(1)))


def test_of_a_deep_linear_chain_has_entries_known_by_hand() -> None:
    """One sample x = 1, y = 0, f = c b a without biases: ∂²f²/∂a² = 2b²c² and ∂²f²/∂a∂b = 4abc²."""
    network = Network.uniform((1, 1, 1, 1), identity)
    risk = Risk(network, torch.ones(1, 1).double(), torch.zeros(1, 1).double())
    a, b, c = 2.0, 3.0, 5.0
    weights = [0, 2, 4]
    matrix = hessian(risk, torch.tensor([a, 0, b, 0, c, 0]).double())[weights][:, weights]
    by_hand = [
        [2 * b**2 * c**2, 4 * a * b * c**2, 4 * a * b**2 * c],
        [4 * a * b * c**2, 2 * a**2 * c**2, 4 * a**2 * b * c],
        [4 * a * b**2 * c, 4 * a**2 * b * c, 2 * a**2 * b**2],
    ]
    assert torch.equal(matrix, torch.tensor(by_hand).double())


@pytest.mark.parametrize("widths", [(2, 4, 1), (2, 4, 3), (2, 3, 4, 2)], ids=str)
@pytest.mark.parametrize("loss", [squared_error, cross_entropy], ids=lambda loss: loss.name)
def test_finite_differences_of_the_gradient_stay_within_their_predicted_error(
    widths: tuple[int, ...], loss: Loss
) -> None:
    generator = torch.Generator().manual_seed(0)
    risk = random_risk(Network.uniform(widths, tanh), generator, n=8, loss=loss)
    theta = random_theta(risk.network, generator)
    direction = torch.nn.functional.normalize(torch.randn(theta.shape, generator=generator, dtype=torch.float64), dim=0)

    def difference(step: float) -> torch.Tensor:
        return (risk.gradient(theta + step * direction) - risk.gradient(theta - step * direction)) / (2 * step)

    step = 1e-4
    fine, coarse = difference(step), difference(2 * step)
    # A central difference errs by c h² + O(h⁴), so that coarse − fine = 3 c h²; the gradients, of order one, are
    # rounded to some 10 units in the last place, which the difference divides by the step.
    predicted = (coarse - fine).norm() / 3
    rounding = 10 * torch.finfo(torch.float64).eps * (1 + risk.gradient(theta).norm()) / step
    exact = hessian(risk, theta) @ direction
    assert (fine - exact).norm() <= 1.1 * predicted + rounding
    assert (fine - exact).norm() >= 0.9 * predicted - rounding


@pytest.mark.parametrize("widths", [(3, 63, 1), (3, 63, 2)], ids=str)
def test_blocks_of_samples_and_of_networks_add_up(widths: tuple[int, ...]) -> None:
    """Width 63 makes blocks of 128 samples and one network: 300 samples need three, the last one partial."""
    generator = torch.Generator().manual_seed(0)
    risk = random_risk(Network.uniform(widths, tanh), generator, n=300)
    theta = random_theta(risk.network, generator, (3,))
    direction = torch.randn(theta.shape[-1], generator=generator, dtype=torch.float64)
    products = torch.stack([torch.func.jvp(torch.func.grad(risk), (row,), (direction,))[1] for row in theta])
    assert_near(hessian(risk, theta) @ direction, products)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@settings(max_examples=5)
@given(inputs=st.integers(1, 4), width=st.integers(1, 5), generator=generators)
def test_the_two_closed_forms_agree(inputs: int, width: int, name: str, generator: torch.Generator) -> None:
    risk = random_risk(Network.uniform((inputs, width, 1), ACTIVATIONS[name]), generator, n=9)
    theta = random_theta(risk.network, generator, (4,))
    assert_near(one_hidden_layer_hessian(risk, theta), closed_form_hessian(risk, theta))


@given(widths=st.lists(st.integers(1, 4), min_size=3, max_size=4), generator=generators)
def test_batch_normalization_is_differentiated(widths: list[int], generator: torch.Generator) -> None:
    network = Network.uniform(widths, tanh, batch_norm_epsilon=1e-3)
    risk = random_risk(network, generator, n=8)
    theta = random_theta(network, generator, (2,))
    direction = torch.randn(theta.shape[-1], generator=generator, dtype=torch.float64)
    products = torch.stack([torch.func.jvp(torch.func.grad(risk), (row,), (direction,))[1] for row in theta])
    # Normalization divides by standard deviations, which may be small: its derivatives amplify rounding errors.
    assert_near(hessian(risk, theta) @ direction, products, 1e-10)


def test_carries_no_graph() -> None:
    generator = torch.Generator().manual_seed(0)
    risk = random_risk(Network.uniform((1, 2, 1), tanh), generator, n=3)
    assert not hessian(risk, random_theta(risk.network, generator).requires_grad_(True)).requires_grad


def test_numpys_floating_point_errors_are_no_matter_of_the_caller() -> None:
    x = torch.linspace(-1, 1, 7)[:, None]
    risk = Risk(Network.uniform((1, 3, 1), tanh), x, x)
    with np.errstate(all="raise"):
        # exp(−2|z|) underflows, and the gradient's squares overflow.
        assert hessian(risk, torch.full((10,), 400.0)).isfinite().all()
        assert not hessian(risk, torch.full((10,), 1e160)).isfinite().all()


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_passes_go_through_vectorized_maps() -> None:
    x = torch.linspace(-1, 1, 7)[:, None]
    risk = Risk(Network.uniform((1, 3, 1), tanh), x, x**2)
    theta = torch.linspace(-1, 1, 40).view(2, 2, 10)
    mapped = torch.func.vmap(lambda each: passes_over(risk, each).risk)(theta)
    torch.testing.assert_close(mapped, risk(theta))
