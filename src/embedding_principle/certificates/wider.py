"""Proved critical points of wider and deeper networks, over a proved one of a narrow network.

They are degenerate, so that no test of Krawczyk's can see them. What proves them is the structure: lifting (Bai et al.,
arXiv:2205.13283), the spare neuron (this book) and splitting (Zhang et al., arXiv:2105.14573) keep criticality for the
*true* narrow point θ*, and each has a law of inertia. What is left to prove are inequalities over the box of θ*: that
samples are in affine pieces, and that small matrices are regular. None of this says that the floats themselves are
critical: it is said that a critical point lies within a distance of them.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Generator, Tensor, cat, equal, float64, tensor

from embedding_principle.arguments import checked, number, whole
from embedding_principle.certificates import check
from embedding_principle.certificates.certify import Certificate, Counts, Problem, certify
from embedding_principle.certificates.enclosures import Enclosure, affine_pieces, enclosure
from embedding_principle.certificates.intervals import Ball, Floats, Piece
from embedding_principle.depth.lifting import Insertion, lift
from embedding_principle.depth.spare_neurons import NoSpareNeuronError, find_spare_neuron, with_spare_neuron
from embedding_principle.networks import Parametrised
from embedding_principle.risks import Risk
from embedding_principle.width.splitting import split

# The checker has one radius for all samples. Its bound on a spare neuron was up to 2^6 times that of one radius each.
_SAMPLES = 2.0**8


class _UndecidedError(Exception):
    """Why a statement is not proved."""


@checked
def certify_lift(
    risk: Risk, proof: Certificate, point: Parametrised, position: int, *, spare: bool = False
) -> Certificate:
    r"""Prove that near a lifted point, in floats, lies a lifted point of the true critical point, with its inertia.

    An inserted layer with incoming (A, c) and outgoing (B, b′) belongs to T_S(θ*) if every neuron stays in one affine
    piece (λ, μ), λ ≠ 0, and BΛA = W, B(Λc + μ) + b′ = b. With A and c as they are and m_q rows of ΛA that form a
    regular matrix, one B near the given one differs from it in the columns of these rows only. There φ: (A, c, B, b′) ↦
    (W, b) has an onto derivative, so the inertia is (n−, n0 + P′ − P, n+) (book, chapter on degeneracy).

    A spare neuron has outgoing weights zero and incoming u with Σ_i δ_i σ(u·F_i) = 0. On its pieces this is an affine
    equation Vu + h = 0; where m_{q+1} columns of V form a regular matrix, a solution lies near u, and the inertia gains
    (r, m_q + 1 − r, r), r = m_{q+1}.

    Args:
        risk: of the narrow network, as for `certify`.
        proof: what `certify` proved there.
        point: the deeper network, such as `lifting.lift` or `spare_neurons.with_spare_neuron` makes it from the floats
            in the middle of the box.
        position: q: the inserted layer reads f[q].
        spare: whether the last neuron of the inserted layer is a spare one.

    Returns:
        A certificate whose `radius` is the distance to the true lifted point; "undecided" with a reason if a sample may
        be at a kink, a slope vanishes, or a rank is not proved (k < m_q, say, or r < m_{q+1}).

    Raises:
        ValueError: if the proof has no document, or the deeper network is not this network with one more layer.

    Example:
        >>> import torch
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.certificates.certify import certify
        >>> from embedding_principle.depth.lifting import Insertion, lift
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> line = Risk(Network((1, 1)), x, x**3)
        >>> proof = certify(line, torch.tensor([0.85, 0.0]).double())
        >>> g = torch.Generator().manual_seed(0)
        >>> deep = lift(line.at(torch.tensor(proof.centre)), x, [Insertion(0, 2, relu)], generator=g)
        >>> certify_lift(line, proof, deep, 0).inertia
        (0, 5, 2)
    """
    document, over = _over(risk, proof)
    position = whole("position", position, 0)
    narrow, deep = risk.network, point.network
    if position >= narrow.depth or deep.depth != narrow.depth + 1 or deep.without(position) != narrow:
        raise ValueError(
            f"point: {deep} is not {narrow} with a layer inserted at position {position}; see lifting.lift"
        )
    layers = point.single("point").layers()
    inserted, following = layers[position : position + 2]
    kept_layers = risk.at(tensor(proof.centre, dtype=float64)).layers()
    others = zip(layers[:position] + layers[position + 2 :], kept_layers[:position] + kept_layers[position + 1 :])
    if not all(equal(mine.incoming, given.incoming) for mine, given in others):
        raise ValueError("point: its other layers are not those of `proof.centre`; lift the point at proof.centre")
    A, B = inserted.incoming, following.incoming
    kept = len(A) - spare
    pieces = affine_pieces(deep.activations[position])
    said: dict[str, object] = {"position": position, "pieces": Problem.described(deep.activations[position])}
    try:
        with np.errstate(all="ignore"):
            outgoing = cat([B[:, :kept], B[:, -1:]], dim=1)
            rows, distance, added = _lifted(over, position, pieces, A[:kept].numpy(), outgoing.numpy())
            if spare:
                _require(not B[:, kept].any(), "the outgoing weights of the spare neuron are not zero")
                free, distance, more = _spare(over, position, pieces, A[kept].numpy(), distance)
                said["spare"] = {"u": Problem.texts(A[kept:], "point")[0], "free": free}
                added = _sum(added, more)
    except _UndecidedError as reason:
        return _undecided(proof, str(reason))
    said |= {
        "A": Problem.texts(A[:kept], "point"),
        "B": Problem.texts(outgoing, "point"),
        "rows": rows,
        "distance": distance.hex(),
    }
    return _extended(document, proof, {"lift": said}, added, point.theta, max(distance, proof.radius))


@checked
def certified_lifts(
    risk: Risk, theta: Tensor, insertions: Sequence[Insertion], *, generator: Generator, spare: bool = False
) -> list[Certificate]:
    """Certify the critical point near θ, lift the floats in the middle of its box, and certify each lift.

    Args:
        risk: of the narrow network, as for `certify`.
        theta: (P,), near a critical point that is not degenerate; see `irreducible`.
        insertions: where and how to insert a layer, one lift each; at least m_q wide (one more with a spare neuron).
        generator: of the lifts.
        spare: whether the last neuron of each inserted layer is a spare one.

    Returns:
        A certificate for each insertion; "undecided" with a reason if the critical point or its lift is not proved, or
        no spare neuron is found.

    Raises:
        ValueError: as `certify`, `lifting.lift` and `find_spare_neuron` do.

    Example:
        >>> import torch
        >>> from embedding_principle.activations import relu
        >>> from embedding_principle.networks import Network
        >>> x = torch.linspace(-2, 2, 10, dtype=torch.float64)[:, None]
        >>> line, places = Risk(Network((1, 1)), x, x**3), [Insertion(0, 2, relu)]
        >>> theta = torch.tensor([float((x**4).sum() / (x**2).sum()), 0.0]).double()
        >>> g = torch.Generator().manual_seed(0)
        >>> [one.inertia for one in certified_lifts(line, theta, places, generator=g)]
        [(0, 5, 2)]
        >>> [one.inertia for one in certified_lifts(line, theta, places, generator=g, spare=True)]
        [(1, 3, 3)]
    """
    proof = certify(risk, theta)
    if proof.result != "proved":
        return [proof] * len(insertions)
    narrow, lifts = risk.at(tensor(proof.centre, dtype=float64)), []
    for each in insertions:
        position, sigma = each.position, each.activation
        point = lift(narrow, risk.inputs, [replace(each, width=each.width - spare)], generator=generator)
        if spare:
            try:
                neuron = find_spare_neuron(risk, narrow.theta, position, sigma, generator=generator)
            except NoSpareNeuronError as error:
                lifts.append(_undecided(proof, str(error)))
                continue
            point = with_spare_neuron(point, position, neuron.incoming)
        lifts.append(certify_lift(risk, proof, point, position, spare=spare))
    return lifts


@checked
def certify_split(risk: Risk, proof: Certificate, position: int, neuron: int, share: float) -> Certificate:
    """Prove the inertia of a critical point after a neuron before a single next one is split.

    The copies have the shares α and 1 − α of the outgoing weight a ≠ 0. The Hessian is then congruent to H ⊕ 0 ⊕
    α(1 − α)M with M = Σ_i a δ_i σ″(z_i) f_i f_iᵀ, f_i the features with a one appended (Fukumizu and Amari, Neural
    Networks 13 (2000) 317–327; book, chapter on splitting). It is proved that M is regular, and its signs.

    Args:
        risk: of the narrow network, as for `certify`.
        proof: what `certify` proved there.
        position: q, of the hidden layer q + 1.
        neuron: of it, from 0.
        share: α, neither 0 nor 1.

    Returns:
        A certificate about the split point; "undecided" with a reason if a may vanish or M be singular.

    Raises:
        ValueError: if the proof has no document, the share is 0 or 1, there is no such neuron, or the next layer has
            several.

    Example:
        >>> import torch
        >>> from embedding_principle.activations import tanh
        >>> from embedding_principle.certificates.certify import certify
        >>> from embedding_principle.networks import Network
        >>> from embedding_principle.planting import plant
        >>> g = torch.Generator().manual_seed(0)
        >>> point = Parametrised(Network.uniform((1, 1, 1), tanh), torch.tensor([1.0, 0.3, 1.0, 0.0]))
        >>> risk = plant(point, torch.linspace(-2, 2, 9)[:, None], generator=g, residual=0.1)
        >>> certify_split(risk, certify(risk, point.theta), 0, 0, 0.5).inertia
        (1, 1, 5)
    """
    document, over = _over(risk, proof)
    position, neuron, share = whole("position", position, 0), whole("neuron", neuron, 0), number("share", share)
    if share in (0.0, 1.0):
        raise ValueError(f"share: {share} leaves a copy without outgoing weight; take another number than 0 and 1")
    if not 2.0**-120 < abs(share) < 2.0**60:
        raise ValueError(f"share: {share} has digits that certificates do not hold; take one nearer to 1")
    wide = split(risk.at(tensor(proof.centre, dtype=float64)), position, neuron, [share, 1 - share])
    if risk.network.widths[position + 2] != 1:
        raise ValueError("position: the next layer must have a single neuron; see width.splitting for the general law")
    features = _with_one(over.features[position])
    try:
        with np.errstate(all="ignore"):
            weight = over.weights[position + 1][0][0, neuron]
            _require(bool(weight.least() > 0), "the outgoing weight may be zero")
            M = (features * over.bends[position][:, neuron].reshape(-1, 1)).T @ features
            M = Ball((M.middle + M.middle.T) / 2, np.maximum(M.radius, M.radius.T) + abs(M.middle) * 2.0**-50)
            _solved(M, [])
            negative = M.negative_directions()
            if negative is None:
                raise _UndecidedError("the signs of M are not clear in floats")
    except _UndecidedError as reason:
        return _undecided(proof, str(reason))
    size = features.shape[1]
    negative = negative if 0 < share < 1 else size - negative
    # Copies are exact; shares of the outgoing weight are rounded.
    grown = max(1.0, abs(share), abs(1 - share))
    radius = proof.radius * grown + 2.0**-51 * grown * float(wide.theta.abs().max())
    statement = {"level": position, "neuron": neuron, "share": share.hex()}
    return _extended(document, proof, {"split": statement}, (negative, 1, size - negative), wide.theta, radius)


def _undecided(proof: Certificate, reason: str) -> Certificate:
    return replace(proof, result="undecided", reason=reason, inertia=None, risk=None, document="")


def _over(risk: Risk, proof: Certificate) -> tuple[dict[str, Any], Enclosure]:
    """The document of a proof, and the narrow network over its box."""
    document = json.loads(proof.document) if proof.document else {}
    if not document or {"lift", "split"} & document.keys():
        raise ValueError("proof: is of no critical point of the narrow network; give what certify proved")
    problem, centre = Problem(risk), np.array(proof.centre)
    said = problem.document | {"radius": proof.radius.hex(), "inertia": list(proof.inertia or ())}
    if len(centre) == risk.network.n_parameters:
        said["layers"] = problem.layer_texts(centre)
    if "layers" not in said or any(document[key] != value for key, value in said.items()):
        raise ValueError("proof: is about another network or other data than `risk`; give the risk that was certified")
    return document, enclosure(risk, Ball(centre, proof.radius))


def _extended(
    document: dict[str, Any], proof: Certificate, more: dict[str, Any], added: Counts, theta: Tensor, radius: float
) -> Certificate:
    """The certificate of the wider network: that of the narrow one, and what stands over it."""
    inertia = _sum(proof.inertia or (0, 0, 0), added)
    text = check.sealed(document | more | {"inertia": list(inertia)})
    return Certificate("proved", "", inertia, proof.risk, radius, tuple(theta.tolist()), text)


def _lifted(
    over: Enclosure, position: int, pieces: list[Piece], A: Floats, B: Floats
) -> tuple[list[int], float, Counts]:
    """Rows of ΛA that are regular, the distance to the lifted point, and what its inertia gains."""
    features = _with_one(over.features[position])
    (outputs, m), k = over.weights[position][0].shape, len(A)
    _require(k >= m, f"the inserted layer is narrower than the {m} features it reads, so ΛA has no full column rank")
    slopes, shifts = _one_piece(pieces, features @ A.T)
    maps = Ball(slopes[:, None]) * A + Ball(np.eye(m + 1)[m] * shifts[:, None])
    weight, bias = over.weights[position]
    composed = B[:, :k] @ maps + np.eye(m + 1)[m] * B[:, k:]
    missed_weights, missed_bias = weight - composed[:, :m], bias - composed[:, m]
    rows = _pivots(maps.middle[:, :m].T)
    moved = _solved(maps[rows, :m].T, [missed_weights[j] for j in range(outputs)])
    reach = float(missed_bias.magnitude().max()) + moved * float(maps[rows, m].magnitude().sum())
    return rows, _room(max(moved, reach)), (0, k * (m + 1 + outputs) - outputs * m, 0)


def _spare(
    over: Enclosure, position: int, pieces: list[Piece], u: Floats, distance: float
) -> tuple[list[int], float, Counts]:
    """Columns of V that are regular, the distance to the spare neuron, and what the inertia gains."""
    features, errors = _with_one(over.features[position]), over.deltas[position]
    slopes, shifts = _pieces(pieces, features @ Ball(u, distance))
    V = (errors * slopes[:, None]).T @ features
    free = _pivots(V.middle)
    rest = V @ u + (errors * shifts[:, None]).sum(0)
    distance = max(distance, _room(_SAMPLES * _solved(V[:, free], [rest])))
    _pieces(pieces, features @ Ball(u, distance))
    rank = errors.shape[1]
    return free, distance, (rank, features.shape[1] - rank, rank)


def _one_piece(pieces: list[Piece], z: Ball) -> tuple[Floats, Floats]:
    """Slope, never zero, and intercept of the piece in which all samples of each neuron are."""
    slopes, shifts = _pieces(pieces, z)
    same = bool((slopes == slopes[0]).all() and (shifts == shifts[0]).all() and slopes[0].all())
    _require(same, "an inserted neuron is not in one affine piece of slope other than zero")
    return slopes[0], shifts[0]


def _pieces(pieces: list[Piece], z: Ball) -> tuple[Floats, Floats]:
    """Slope and intercept of the piece in which each pre-activation is."""
    slopes, shifts = z.placed(pieces)
    _require(not np.isnan(slopes).any(), "a sample may be at a kink")
    return slopes, shifts


def _solved(matrix: Ball, sides: Sequence[Ball]) -> float:
    """The most that an entry of M⁻¹s can be, for all M of a ball, which are regular, and all sides s."""
    inverse = matrix.near_inverse()
    if inverse is None:
        raise _UndecidedError("a matrix is singular")
    spread = (np.eye(len(inverse)) - Ball(inverse) @ matrix).norm()
    _require(spread < 0.5, "a matrix may be singular")
    tops = [float((Ball(inverse) @ side).magnitude().max()) for side in sides]
    return max(tops, default=0.0) / (1 - spread) * (1 + 2.0**-40)


def _pivots(matrix: Floats) -> list[int]:
    """A column for each row, in the order in which elimination without exchanges of rows finds its largest pivots."""
    left, chosen = matrix.copy(), list[int]()
    for row in range(len(left)):
        sizes = abs(left[row])
        sizes[chosen] = -1.0
        best = int(sizes.argmax())
        chosen.append(best)
        left[row + 1 :] -= np.outer(left[row + 1 :, best] / left[row, best], left[row])
    return chosen


def _room(distance: float) -> float:
    """A distance that leaves room for the checker's bounds, with few digits."""
    _require(distance < 1.0, "the floats are not near a point of the set")
    return Problem.short(1.5 * distance + 2.0**-100)


def _with_one(features: Ball) -> Ball:
    return Ball(
        *(
            np.column_stack([part, np.full(len(part), one)])
            for part, one in ((features.middle, 1.0), (features.radius, 0.0))
        )
    )


def _sum(first: Counts, second: Counts) -> Counts:
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _UndecidedError(otherwise)
