"""Lifts, spare neurons and splits over proved points: their inertia, the checker's word, and what stays undecided."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from embedding_principle.activations import Activation, elu, hard_tanh, leaky_relu, relu, sigmoid, softplus, tanh
from embedding_principle.certificates import check
from embedding_principle.certificates.certify import Certificate, certify
from embedding_principle.certificates.wider import certified_lifts, certify_lift, certify_split
from embedding_principle.depth.lifting import Insertion, lift
from embedding_principle.depth.spare_neurons import spare_neuron_lift, with_spare_neuron
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import Risk
from embedding_principle.width.splitting import split

from .documents import classified, planted

LINEAR = (relu, leaky_relu(0.25), hard_tanh, elu)
# With the seed of a point that is proved.
NARROW = {
    "line": (None, (2, 1), 0, 9),
    "shallow": (tanh, (1, 1, 1), 0, 9),
    "two inputs": (sigmoid, (2, 1, 1), 0, 12),
    "two neurons": (tanh, (1, 2, 1), 4, 14),
    "two outputs": (softplus, (1, 1, 2), 0, 9),
    "deep": (tanh, (1, 1, 1, 1), 0, 10),
    "labels": (tanh, (1, 1, 2), 0, 8),
    "deep labels": (sigmoid, (1, 1, 1, 2), 0, 9),
}


@cache
def narrow(name: str) -> tuple[Risk, Certificate]:
    activation, widths, seed, n = NARROW[name]
    if activation is None:
        x = torch.randn(n, widths[0], generator=torch.Generator().manual_seed(seed))
        risk, theta = Risk(Network(widths), x, x.prod(1, keepdim=True)), torch.zeros(widths[0] + 1)
    else:
        risk, theta = (classified if "labels" in name else planted)(activation, widths, seed=seed, n=n)
    proof = certify(risk, theta)
    assert proof.result == "proved", (name, proof.reason)
    return risk, proof


def point(name: str) -> Parametrised:
    risk, proof = narrow(name)
    return risk.at(torch.tensor(proof.centre))


def agrees(risk: Risk, wide: Parametrised, proof: Certificate, found: Certificate) -> None:
    """The checker accepts it; eigenvalues in floats have these signs and zeros, where they are clear."""
    assert found.result == "proved", found.reason
    assert found.inertia is not None
    assert check.verify(found.document) == list(found.inertia)
    assert sum(found.inertia) == len(wide.theta) == len(found.centre)
    assert found.risk[0] <= proof.risk[1]
    assert proof.risk[0] <= found.risk[1]
    values = torch.linalg.eigvalsh(torch.func.hessian(risk.on(wide.network))(wide.theta))
    sizes = values.abs().sort().values / values.abs().max()
    zeros = found.inertia[1]
    assert sizes[:zeros].max() < 1e-10
    if zeros < len(sizes) and sizes[zeros] > 1e-8:
        assert found.inertia[0] == int((values < -1e-9 * values.abs().max()).sum())


# Lifts


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("sigma", LINEAR, ids=lambda a: a.name)
def test_lifts_are_proved_at_every_position(name: str, sigma: Activation) -> None:
    risk, proof = narrow(name)
    generator = torch.Generator().manual_seed(1)
    for position in range(risk.network.depth):
        for more in (0, 1):
            width = risk.network.widths[position] + more
            deep = lift(point(name), risk.inputs, [Insertion(position, width, sigma)], generator=generator)
            found = certify_lift(risk, proof, deep, position)
            agrees(risk, deep, proof, found)
            added = len(deep.theta) - risk.network.n_parameters
            assert found.inertia == (proof.inertia[0], proof.inertia[1] + added, proof.inertia[2])
            assert found.radius < 1e-9
            assert found.centre == tuple(deep.theta.tolist())


def test_a_point_away_from_the_lifted_set_is_near_to_it_in_the_document_too() -> None:
    """The floats themselves are never said to be critical: moved by 10⁻³, the true lifted point is that far away."""
    risk, proof = narrow("two neurons")
    deep = lift(point("two neurons"), risk.inputs, [Insertion(1, 3, relu)], generator=torch.Generator().manual_seed(1))
    step = torch.randn(len(deep.theta), generator=torch.Generator().manual_seed(0))
    step[: len(deep.layers()[0].incoming.flatten())] = 0  # the layer before stays that of the narrow point
    moved = Parametrised(deep.network, deep.theta + 1e-3 * step)
    near, far = certify_lift(risk, proof, deep, 1), certify_lift(risk, proof, moved, 1)
    assert near.radius < 1e-9
    assert far.radius > 1e-4
    document = json.loads(far.document)
    document["lift"]["distance"] = json.loads(near.document)["lift"]["distance"]
    with pytest.raises(ValueError, match="farther away"):
        check.verify(check.sealed(document))


def test_lifts_that_are_not_onto_stay_undecided() -> None:
    risk, proof = narrow("two neurons")

    def lifted(insertion: Insertion) -> Certificate:
        generator = torch.Generator().manual_seed(1)
        return certify_lift(risk, proof, lift(point("two neurons"), risk.inputs, [insertion], generator=generator), 1)

    thin = lifted(Insertion(1, 1, relu))
    assert (thin.result, "narrower than the 2 features" in thin.reason) == ("undecided", True)
    assert (thin.inertia, thin.document) == (None, "")
    low = lifted(Insertion(1, 3, relu, (1, 1)))
    assert (low.result, "singular" in low.reason) == ("undecided", True)


@pytest.mark.parametrize(("sigma", "beyond"), [(relu, -0.5), (leaky_relu(0.25), -0.5), (hard_tanh, -1.5)])
def test_one_input_in_another_piece_is_enough_to_decide_nothing(sigma: Activation, beyond: float) -> None:
    x = torch.linspace(-1, 1, 7)[:, None]

    def proof_of(inputs: Tensor) -> tuple[Risk, Certificate]:
        line = Risk(Network((1, 1)), inputs, x**3)
        return line, certify(line, torch.zeros(2))

    line, proof = proof_of(x)
    slope, shift = proof.centre
    a, c = (0.5, 0.2) if sigma is hard_tanh else (1.0, 1.1)
    deep = Parametrised(Network((1, 1, 1), (sigma,)), torch.tensor([a, c, slope / a, shift - c * slope / a]))
    assert certify_lift(line, proof, deep, 0).result == "proved"
    outside = x.clone()
    outside[0, 0] = (beyond - c) / a
    found = certify_lift(*proof_of(outside), deep, 0)
    assert (found.result, "one affine piece" in found.reason or "kink" in found.reason) == ("undecided", True)


def test_a_sample_at_a_kink_decides_nothing() -> None:
    x = torch.linspace(-1, 1, 5)[:, None]
    line = Risk(Network((1, 1)), x, x**3)
    proof = certify(line, torch.zeros(2))
    slope, shift = proof.centre
    deep = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, 1.0, slope, shift - slope]))  # z = 0 at x = −1
    found = certify_lift(line, proof, deep, 0)
    assert (found.result, "kink" in found.reason) == ("undecided", True)
    dead = Parametrised(Network((1, 1, 1), (relu,)), torch.tensor([1.0, -3.0, slope, shift]))
    found = certify_lift(line, proof, dead, 0)
    assert (found.result, "slope other than zero" in found.reason) == ("undecided", True)


# Spare neurons


@pytest.mark.parametrize("name", ["line", "shallow", "two inputs", "two neurons", "deep"])
@pytest.mark.parametrize("sigma", [relu, leaky_relu(0.25), hard_tanh], ids=lambda a: a.name)
def test_spare_neurons_are_proved(name: str, sigma: Activation) -> None:
    risk, proof = narrow(name)
    insertions = [Insertion(q, width + 1, sigma) for q, width in enumerate(risk.network.widths[:-1])]
    generator = torch.Generator().manual_seed(2)
    found = certified_lifts(risk, torch.tensor(proof.centre), insertions, generator=generator, spare=True)
    proved = [(each, insertion) for each, insertion in zip(found, insertions) if each.result == "proved"]
    assert proved
    for each, insertion in proved:
        q = insertion.position
        network = Network(
            (*risk.network.widths[: q + 1], insertion.width, *risk.network.widths[q + 1 :]),
            (*risk.network.activations[:q], sigma, *risk.network.activations[q:]),
        )
        wide = Parametrised(network, torch.tensor(each.centre))
        agrees(risk, wide, proof, each)
        m, p = risk.network.widths[q : q + 2]
        k = insertion.width - 1
        assert each.inertia[0] == proof.inertia[0] + p
        assert each.inertia[1] == proof.inertia[1] + k * (m + 1 + p) - p * m + m + 1 - p
        assert each.inertia[0] > 0
    for each in found:
        assert each.result == "proved" or each.reason


def test_several_equations_are_proved_for_one_spare_neuron() -> None:
    """Two outputs behind a layer of three features: V has two rows."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(12, 3, generator=generator)
    risk = Risk(Network((3, 2)), x, torch.randn(12, 2, generator=generator))
    proof = certify(risk, torch.zeros(8))
    saddle = spare_neuron_lift(risk, torch.tensor(proof.centre), Insertion(0, 4, relu), generator=generator)
    found = certify_lift(risk, proof, saddle.point, 0, spare=True)
    agrees(risk, saddle.point, proof, found)
    assert found.inertia[0] == 2
    assert len(json.loads(found.document)["lift"]["spare"]["free"]) == 2


def test_spare_neurons_stay_undecided_for_a_reason() -> None:
    risk, proof = narrow("shallow")
    generator = torch.Generator().manual_seed(2)
    base = lift(point("shallow"), risk.inputs, [Insertion(1, 1, relu)], generator=generator)

    def reason(u: list[float], outgoing: float = 0.0) -> str:
        wide = with_spare_neuron(base, 1, torch.tensor(u))
        layers = wide.layers()
        B = layers[2].weight.clone()
        B[0, -1] = outgoing
        theta = wide.theta.clone()
        theta[-B.numel() - 1 : -1] = B.flatten()
        found = certify_lift(risk, proof, Parametrised(wide.network, theta), 1, spare=True)
        assert (found.result, found.document) == ("undecided", "")
        return found.reason

    features = risk.network.trace(torch.tensor(proof.centre), risk.inputs).features[1][:, 0]
    assert "outgoing weights" in reason([1.0, 3.0], outgoing=1e-9)
    assert "kink" in reason([1.0, -float(features[0])])  # at the first sample
    assert "singular" in reason([0.1, 3.0])  # V = 0: an affine neuron
    # The equation is not solved on these pieces.
    assert reason([1.0, -float(features.median()) - 1e-3])
    # r < m_{q+1}: three outputs, but two columns.
    triple = Risk(Network((1, 3)), risk.inputs, torch.randn(len(risk.inputs), 3, generator=generator))
    of_triple = certify(triple, torch.zeros(6))
    base = lift(triple.at(torch.tensor(of_triple.centre)), risk.inputs, [Insertion(0, 1, relu)], generator=generator)
    found = certify_lift(triple, of_triple, with_spare_neuron(base, 0, torch.tensor([1.0, 0.1])), 0, spare=True)
    assert (found.result, found.document) == ("undecided", "")
    assert found.reason
    base = lift(point("shallow"), risk.inputs, [Insertion(1, 1, elu)], generator=generator)
    # An activation with one affine piece: on it a neuron is affine, and beyond it nothing is known.
    found = certify_lift(risk, proof, with_spare_neuron(base, 1, torch.tensor([1.0, 0.0])), 1, spare=True)
    assert found.result == "undecided"


def test_labels_leave_no_spare_neuron_before_the_logits() -> None:
    """Errors of cross-entropy add up to zero, so V has no full row rank."""
    risk, proof = narrow("labels")
    lifted = lift(point("labels"), risk.inputs, [Insertion(1, 1, relu)], generator=torch.Generator().manual_seed(0))
    found = certify_lift(risk, proof, with_spare_neuron(lifted, 1, torch.tensor([1.0, 0.0])), 1, spare=True)
    assert found.result == "undecided"


# Splits


@pytest.mark.parametrize("name", ["shallow", "two inputs", "two neurons", "deep", "deep labels"])
@pytest.mark.parametrize("share", [0.5, 0.25, 0.999, 2.0, -0.5, 1.25])
def test_splits_are_proved(name: str, share: float) -> None:
    risk, proof = narrow(name)
    proved = 0
    for position in range(risk.network.depth - 1):
        if risk.network.widths[position + 2] != 1:
            continue
        for neuron in range(risk.network.widths[position + 1]):
            found = certify_split(risk, proof, position, neuron, share)
            if found.result != "proved":
                assert found.reason
                continue
            proved += 1
            wide = split(point(name), position, neuron, [share, 1 - share])
            agrees(risk, wide, proof, found)
            assert found.inertia[1] == proof.inertia[1] + 1
            inverse = certify_split(risk, proof, position, neuron, 2.0 if 0 < share < 1 else 0.5)
            gained = [a - b for a, b in zip(found.inertia, proof.inertia)]
            assert [a - b for a, b in zip(inverse.inertia, proof.inertia)] == gained[::-1]
    assert proved


def test_splits_stay_undecided_or_are_refused() -> None:
    risk, proof = narrow("shallow")
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="share"):
            certify_split(risk, proof, 0, 0, share)
    weight = abs(proof.centre[2])
    wide = json.loads(proof.document) | {"radius": (2 * weight).hex()}
    blind = replace(proof, radius=2 * weight, document=check.sealed(wide))
    silent = certify_split(risk, blind, 0, 0, 0.5)
    assert (silent.result, silent.reason) == ("undecided", "the outgoing weight may be zero")
    several, of_several = narrow("two outputs")
    with pytest.raises(ValueError, match="single neuron"):
        certify_split(several, of_several, 0, 0, 0.5)
    with pytest.raises(ValueError, match="proof"):
        certify_split(risk, replace(proof, document=""), 0, 0, 0.5)
    with pytest.raises(ValueError, match="proof"):
        certify_split(risk, certify_split(risk, proof, 0, 0, 0.5), 0, 0, 0.5)
    with pytest.raises(ValueError, match="another network or other data"):
        certify_split(several, proof, 0, 0, 0.5)


def test_a_kinked_neuron_has_no_curvature_to_split() -> None:
    risk, theta = planted(hard_tanh, seed=4, n=9)
    proof = certify(risk, theta)
    found = certify_split(risk, proof, 0, 0, 0.5)
    assert (found.result, "singular" in found.reason) == ("undecided", True)


def test_a_lift_must_be_of_this_network() -> None:
    risk, proof = narrow("shallow")
    generator = torch.Generator().manual_seed(0)
    inputs = narrow("two inputs")[0].inputs
    other = lift(point("two inputs"), inputs, [Insertion(0, 2, relu)], generator=generator)
    with pytest.raises(ValueError, match="with a layer inserted at position 0"):
        certify_lift(risk, proof, other, 0)
    deep = lift(point("shallow"), risk.inputs, [Insertion(0, 2, relu)], generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="with a layer inserted at position 1"):
        certify_lift(risk, proof, deep, 1)
    thin = lift(point("shallow"), risk.inputs, [Insertion(0, 1, relu)], generator=torch.Generator().manual_seed(0))
    smooth = Parametrised(thin.network.with_activation(0, tanh), thin.theta)
    with pytest.raises(ValueError, match="piecewise affine"):
        certify_lift(risk, proof, smooth, 0)


def test_nothing_is_proved_of_other_layers_than_those_that_were_certified() -> None:
    risk, proof = narrow("shallow")
    deep = lift(point("shallow"), risk.inputs, [Insertion(0, 2, relu)], generator=torch.Generator().manual_seed(0))
    assert certify_lift(risk, proof, deep, 0).result == "proved"
    theta = deep.theta.clone()
    theta[-2] += 100
    with pytest.raises(ValueError, match="point: its other layers are not those"):
        certify_lift(risk, proof, deep.with_theta(theta), 0)


def test_a_proof_is_of_its_network_and_not_of_another_with_as_many_parameters() -> None:
    generator = torch.Generator().manual_seed(0)
    network = Network.uniform((1, 1, 2, 1), sigmoid)
    theta = network.initial(generator, scale=1.5, bias_scale=1.0)
    x = torch.randn(20, 1, generator=generator)
    risk = plant(Parametrised(network, theta), x, generator=generator, residual=0.1)
    proof = certify(risk, theta)
    assert proof.result == "proved"
    turned = risk.on(Network.uniform((1, 2, 1, 1), sigmoid))
    assert turned.network.n_parameters == network.n_parameters
    with pytest.raises(ValueError, match="proof: is about another network"):
        certify_split(turned, proof, 0, 0, 0.5)
    with pytest.raises(ValueError, match="proof: is about another network"):
        certify_split(risk, replace(proof, centre=tuple(v + 1.0 for v in proof.centre)), 1, 0, 0.5)


@pytest.mark.parametrize("share", [1e-60, 5e-324, 1e300])
def test_shares_that_a_certificate_cannot_hold_are_refused(share: float) -> None:
    risk, proof = narrow("shallow")
    with pytest.raises(ValueError, match=r"share: .* has digits that certificates do not hold"):
        certify_split(risk, proof, 0, 0, share)
