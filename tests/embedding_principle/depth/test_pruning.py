"""Pruning: exact on linear layers, with a known error on others, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embedding_principle.activations import ACTIVATIONS, identity, leaky_relu, relu, tanh
from embedding_principle.depth.lifting import Insertion, lift, smallest_width, violations
from embedding_principle.depth.pruning import (
    accuracy,
    affine_fit,
    agreement,
    class_share,
    linearized,
    prune,
    prune_by_least_squares,
)
from embedding_principle.linearity import linearization_index
from embedding_principle.networks import Network, Parametrised

LIFTABLE = [activation for activation in ACTIVATIONS.values() if activation.pieces]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(activation, *, seed, widths=(3, 4, 5, 2), n=20, batch=()):
    network, g = Network.uniform(widths, activation), generator(seed)
    x = torch.randn(n, widths[0], generator=g, dtype=torch.float64)
    return Parametrised(network, network.initial(g, bias_scale=0.5, batch=batch)), x


@pytest.mark.parametrize("activation", LIFTABLE, ids=lambda activation: activation.name)
@pytest.mark.parametrize("position", [0, 1, 2])
@settings(max_examples=5)
@given(extra=st.integers(0, 3), seed=st.integers(0, 2**31))
def test_pruning_inverts_lifting(activation, position, extra, seed):
    point, x = problem(tanh, seed=seed)
    insertion = Insertion(position, smallest_width(point.network, position) + extra, activation)
    lifted = lift(point, x, [insertion], generator=generator(seed))
    pruned = prune(lifted, x, position)
    assert pruned.network == point.network
    # As for `collapse`; the regression adds rounding that grows with |c| over the spread of z, at most some hundreds.
    torch.testing.assert_close(pruned.theta, point.theta, rtol=1e-10, atol=1e-10)
    assert violations(pruned, lifted, x, insertion, tolerance=1e-9) == ()


def test_the_piece_is_found_where_a_single_sample_leaves_no_slope():
    point, x = problem(tanh, seed=0, n=1)
    lifted = lift(point, x, [Insertion(1, 6, leaky_relu(0.1))], generator=generator(1))
    pruned = prune(lifted, x, 1)
    torch.testing.assert_close(pruned.theta, point.theta, rtol=1e-12, atol=1e-12)


def test_fits_are_the_regressions_of_scipy():
    point, x = problem(tanh, seed=1, batch=(3,))
    for position in range(2):
        trace, fit = point.trace(x), affine_fit(point, x, position)
        z, f = trace.preactivations[position], trace.features[position + 1]
        for s in range(3):
            for j in range(z.shape[-1]):
                line = stats.linregress(z[s, :, j], f[s, :, j])
                assert fit.slope[s, j].item() == pytest.approx(line.slope, rel=1e-12, abs=0)
                assert fit.intercept[s, j].item() == pytest.approx(line.intercept, abs=1e-13)


def next_preactivations(point, x, position):
    trace = point.trace(x)
    return (*trace.preactivations, trace.output)[position]


@pytest.mark.parametrize("activation", [tanh, relu], ids=lambda activation: activation.name)
@pytest.mark.parametrize("position", [0, 1])
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_the_change_is_the_outgoing_weights_times_the_residuals_and_bounded_by_the_index(activation, position, seed):
    point, x = problem(activation, seed=seed)
    pruned = prune(point, x, position)
    before = next_preactivations(point, x, position + 1)
    change = before - next_preactivations(pruned, x, position)
    fit, trace = affine_fit(point, x, position), point.trace(x)
    z, f = trace.preactivations[position], trace.features[position + 1]
    weight = point.layers()[position + 1].weight
    residuals = f - fit.slope * z - fit.intercept
    torch.testing.assert_close(change, residuals @ weight.mT, rtol=0, atol=1e-13)
    variance = f.var(0, correction=0).sum()
    bound = torch.linalg.matrix_norm(weight, 2) ** 2 * linearization_index(point, x)[position] * variance
    assert change.square().sum(-1).mean() <= bound * (1 + 1e-12) + 1e-28  # the margin is rounding


@pytest.mark.parametrize("activation", [tanh, relu], ids=lambda activation: activation.name)
@pytest.mark.parametrize("position", [0, 1])
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_no_affine_map_is_nearer_on_the_data_than_least_squares(activation, position, seed):
    point, x = problem(activation, seed=seed)
    target = next_preactivations(point, x, position + 1)
    errors = []
    for method in (prune_by_least_squares, prune):
        pruned = method(point, x, position)
        errors.append(float((next_preactivations(pruned, x, position) - target).norm()))
    assert errors[0] <= errors[1] + 1e-13
    residual = next_preactivations(prune_by_least_squares(point, x, position), x, position)
    normal = point.trace(x).features[position].mT @ (residual - target)
    assert normal.abs().max() <= 1e-11  # the normal equations: residuals orthogonal to the features


def test_least_squares_is_exact_on_few_points_whatever_the_layer_does():
    """Four affinely independent samples in three dimensions, each ten times: a strongly nonlinear layer."""
    point, x = problem(relu, seed=3, n=4)
    repeated = x.repeat(10, 1)
    assert linearization_index(point, x)[0] > 0.05
    target = point.forward(repeated)
    fitted, neurons = (f(point, repeated, 0) for f in (prune_by_least_squares, prune))
    torch.testing.assert_close(fitted.forward(repeated), target, rtol=0, atol=1e-12)
    assert (neurons.forward(repeated) - target).abs().max() > 1e-3


def test_least_squares_takes_the_least_norm_for_blank_inputs():
    point, x = problem(tanh, seed=4, batch=(2,))
    x[:, 1] = 0.0
    pruned = prune_by_least_squares(point, x, 0)
    assert pruned.layers()[0].weight[:, :, 1].abs().max() < 1e-12


@pytest.mark.parametrize("position", [0, 1])
def test_the_linearized_network_is_a_member_over_the_pruned_one(position):
    point, x = problem(tanh, seed=5, widths=(3, 4, 4, 2))
    straight, pruned = linearized(point, x, position), prune(point, x, position)
    insertion = Insertion(position, 4, identity)
    assert violations(pruned, straight, x, insertion) == ()
    assert violations(pruned, straight.with_theta(point.theta), x, insertion) != ()


@pytest.mark.parametrize("method", [prune, prune_by_least_squares, linearized])
def test_a_batch_is_pruned_like_its_members(method):
    point, x = problem(tanh, seed=6, batch=(3,))
    together = method(point, x, 1).theta
    for s in range(3):
        torch.testing.assert_close(together[s], method(point[s], x, 1).theta, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("method", [prune, prune_by_least_squares, linearized])
def test_what_cannot_be_pruned_is_refused(method):
    point, x = problem(tanh, seed=7)
    for position in (-1, 2):
        with pytest.raises(ValueError, match=rf"no hidden layer at {position}; .* positions 0 … 1"):
            method(point, x, position)
    normalized = Network.uniform((3, 4, 5, 2), tanh, batch_norm_epsilon=1e-5)
    with pytest.raises(ValueError, match="without batch normalization"):
        method(Parametrised(normalized, normalized.initial(generator(0))), x, 0)


def test_agreement_is_about_the_likeliest_class():
    """Four classes: the least likely one is the same where the likeliest differs, and the other way round."""
    one = torch.tensor([[9.0, 1.0, 2.0, 3.0], [0.0, 5.0, 6.0, 7.0]])
    other = torch.tensor([[9.0, 2.0, 1.0, 3.0], [0.0, 7.0, 6.0, 5.0]])
    assert agreement(one, other).item() == 0.5
    assert agreement(one, other).item() == agreement(other, one).item()
    assert agreement(one[:1], other[:1]).item() == 1.0


def test_accuracy_and_agreement_are_counted_by_hand():
    outputs = torch.tensor([[[3.0, 1, 2], [0, 5, 1], [1, 2, 9]], [[0.0, 1, 0], [0, 1, 0], [0, 1, 0]]])
    assert accuracy(outputs, torch.tensor([0, 1, 1])).tolist() == pytest.approx([2 / 3, 2 / 3])
    assert agreement(outputs[0], outputs[1]).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_output_that_is_no_number_is_of_no_class(value):
    outputs = torch.tensor([[3.0, 1, 2], [value, 5, 1], [value, value, value]], dtype=torch.float64)
    for label in range(3):
        assert accuracy(outputs[1:], torch.tensor([label, label])).item() == 0
    assert accuracy(outputs, torch.tensor([0, 0, 0])).item() == pytest.approx(1 / 3)
    assert agreement(outputs, outputs).item() == pytest.approx(1 / 3)


def test_the_class_share_is_that_of_an_analysis_of_variance():
    features = torch.randn(30, 4, generator=generator(8), dtype=torch.float64)
    labels = torch.tensor([0, 1, 3] * 10)  # class 2 is empty
    centred = features - features.mean(0)
    within = sum(((features[labels == c] - features[labels == c].mean(0)) ** 2).sum() for c in (0, 1, 3))
    # Total = between + within, up to rounding.
    assert class_share(features, labels).item() == pytest.approx(float(1 - within / (centred**2).sum()), abs=1e-13)
