"""The checker against an oracle of 300 bits: what it computes, and what it accepts."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from flint import arb

from embedding_principle.certificates import check

from . import oracle
from .documents import KINDS, certificate
from .mutants import mutant

CASES = int(os.environ.get("CONTAINMENT_CASES", "150"))  # 10 000 and more by hand
# For each of seven kinds of certificate: more than 500 in all, and 5 600 by hand with 800.
MUTANTS = int(os.environ.get("CERTIFICATE_MUTANTS", "72"))
ZIGZAG = [["-0x1.9000000000000p+6", "-0x1.8000000000000p+0", "0x1.0000000000000p+0", "0x0.0p+0"]]
ZIGZAG += [["-0x1.8000000000000p+0", "0x0.0p+0", "-0x1.0000000000000p+0", "0x0.0p+0"]]
ZIGZAG += [["0x0.0p+0", "0x1.9000000000000p+6", "0x1.4000000000000p+1", "-0x1.0000000000000p-2"]]


def refusal(document: str) -> str:
    # Whatever goes wrong, nothing is proved.
    with pytest.raises(Exception) as caught:  # noqa: PT011
        check.verify(document)
    return str(caught.value)


def units(value: float) -> int:
    return check.read(value.hex())


def exact(whole: int) -> arb:
    return arb(whole) / check.ONE


def holds(ball: check.Ball, true: arb, sample: int = 0) -> bool:
    return bool(abs(true * check.ONE - ball.m[sample]) <= ball.r)


# What it computes


def test_exponentials_err_by_less_than_two_units() -> None:
    draw = random.Random(0)
    for case in range(CASES):
        x = [int(draw.gauss(0, 1) * 10 ** draw.uniform(-3, 3) * check.ONE) for _ in range(draw.randrange(1, 4))]
        if case % 3 == 0:  # far from zero together
            x = [v + units(draw.choice([-2302720.0, -1e9, 1e9, 2302720.0])) for v in x]
        top = max(x)
        logarithm = top + sum((exact(v - top).exp() for v in x), arb(0)).log() * check.ONE
        assert abs(logarithm - check.exponential(*x, top=top)) <= 2
        assert abs(exact(-abs(x[0])).exp() * check.ONE - check.exponential(-abs(x[0]))) <= 2


@pytest.mark.parametrize(
    "activation", ["tanh", "sigmoid", "softplus", ZIGZAG], ids=["tanh", "sigmoid", "softplus", "zigzag"]
)
def test_activations_hold_the_oracle(activation: str | list[list[str]]) -> None:
    draw = random.Random(1)
    true_activation = activation if isinstance(activation, str) else oracle.pieces(activation)
    found = 0
    for _ in range(CASES):
        z = int(draw.gauss(0, 1) * 10 ** draw.uniform(-3, 2) * check.ONE)
        width = int(10 ** draw.uniform(-58, 0) * check.ONE)
        inside = z + draw.choice([-width, width, int(draw.uniform(-1, 1) * width)])
        try:
            balls = check.Ball([z], width).activated(activation)
        except ValueError:
            assert activation is ZIGZAG
            continue
        true = oracle.derivatives(true_activation, exact(inside))
        assert all(holds(ball, each) for ball, each in zip(balls, true)), (z, width)
        found += 1
    assert found > CASES / 3


@pytest.mark.parametrize("loss", ["squared error", "cross-entropy"])
def test_derivatives_over_boxes_hold_the_oracle_at_points_of_them(loss: str) -> None:
    """Risk, gradient and Hessian of up to two hidden layers; boxes of many sizes; points inside, at corners too."""
    draw, found = random.Random(loss), 0
    for _ in range(CASES):
        widths = draw.choice([(1, 1), (2, 2), (1, 1, 1), (1, 2, 2), (2, 1, 1, 1), (1, 1, 2, 2)])
        if loss == "cross-entropy":
            widths = (*widths[:-1], widths[-1] + 1)
        activations = [draw.choice(["tanh", "sigmoid", "softplus", ZIGZAG]) for _ in widths[2:]]
        width = int(10 ** draw.uniform(-58, -1) * check.ONE)
        shapes = [(fan + 1, out) for fan, out in zip(widths, widths[1:])]
        layers = [[[units(draw.gauss(0, 1)) for _ in range(fan)] for _ in range(out)] for fan, out in shapes]
        inputs, targets = (
            [[units(draw.gauss(0, 1)) for _ in range(m)] for _ in range(2)] for m in (widths[0], widths[-1])
        )
        if loss == "cross-entropy":
            targets = [[*row[:-1], check.ONE - sum(row[:-1])] for row in targets]
        place = draw.choice([1.0, 1.0, draw.random()])
        moved = [[[v + int(draw.choice([-1, 1]) * place * width) for v in row] for row in rows] for rows in layers]
        columns = ([check.Ball([*column]) for column in zip(*table)] for table in (inputs, targets))
        try:
            box = check.Network(loss, activations, *columns, layers, width)
        except ValueError:
            assert ZIGZAG in activations
            continue
        sigmas = [a if isinstance(a, str) else oracle.pieces(a) for a in activations]
        data = [[list(map(exact, row)) for row in table] for table in (inputs, targets)]
        jet = oracle.Problem(loss, sigmas, *data).risk([[list(map(exact, row)) for row in rows] for rows in moved])
        H, found = box.hessian(), found + 1
        assert holds(box.risk, jet.value)
        assert all(holds(ball, jet.slope[i, 0]) for i, ball in enumerate(box.gradient))
        assert all(holds(ball, jet.bend[i, j]) for i, row in enumerate(H) for j, ball in enumerate(row))
    print(loss, found)
    assert found > 0.7 * CASES


def test_solving_is_rigorous_and_counts_negative_directions() -> None:
    """Random symmetric matrices, among them nearly singular ones and some without an elimination: a zero pivot."""
    draw = random.Random(3)
    accepted = 0
    for _ in range(CASES):
        n, small = draw.randrange(1, 6), 10 ** draw.uniform(-60, 0)
        M = [[int(draw.gauss(0, 1) * check.ONE) for _ in range(n)] for _ in range(n)]
        M = [[M[max(i, j)][min(i, j)] * (draw.random() < 0.7 or i != j) for j in range(n)] for i in range(n)]
        M[-1] = [int(v * small) for v in M[-1]]
        for i in range(n):
            M[i][-1] = M[-1][i]
        side, width = (
            [int(draw.gauss(0, 1) * check.ONE) for _ in range(n)],
            int(10 ** draw.uniform(-70, -2) * check.ONE),
        )
        balls = [[check.Ball([v], width) for v in row] for row in M]
        try:
            negative, most = check.solved(balls, [[check.Ball([v]) for v in side]])
        except ValueError:
            continue
        accepted += 1
        turned = [[v + (width if (i + j) % 2 else -width) for j, v in enumerate(row)] for i, row in enumerate(M)]
        matrix = oracle.arb_mat(n, n, [exact(v) for row in turned for v in row])
        solution = matrix.solve(oracle.arb_mat(n, 1, [exact(v) for v in side]))
        assert negative == oracle.inertia(matrix)[0]
        assert oracle.largest(solution.entries()) <= exact(most)
    assert accepted > CASES / 3


def test_signs_are_counted_of_symmetric_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elimination counts signs by Sylvester's law: midpoints that rounding made asymmetric would be outside of it."""
    matrices, solved = [], check.solved
    monkeypatch.setattr(check, "solved", lambda matrix, sides: (matrices.append(matrix), solved(matrix, sides))[1])
    check.verify(certificate("split").document)
    assert len(matrices) == 2
    for matrix in matrices:
        entries = [[(ball.m[0], ball.r) for ball in row] for row in matrix]
        assert entries == [[*column] for column in zip(*entries)]


# What it accepts


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_proved_is_accepted_and_true(kind: str) -> None:
    found = certificate(kind)
    assert check.verify(found.document) == list(found.inertia or ())
    assert oracle.judge(found.document) == "true"


@pytest.mark.parametrize("kind", KINDS)
def test_every_changed_byte_is_refused(kind: str) -> None:
    document, draw = certificate(kind).document, random.Random(kind)
    for _ in range(100):
        place, letter = draw.randrange(len(document)), draw.choice('0123456789abcdefpx-+ .,[]{}"\n')
        if letter != document[place]:
            refusal(document[:place] + letter + document[place + 1 :])
        refusal(document[:place] + document[place + 1 :])
        refusal(document[:place] + letter + document[place:])


@pytest.mark.parametrize("kind", KINDS)
def test_sealed_false_statements_are_refused(kind: str) -> None:
    """Truth is decided by the oracle. Where it cannot tell, nothing may be accepted either: it knows more digits."""
    document, draw, counts = certificate(kind).document, random.Random(kind), Counter[tuple[str, bool]]()
    while counts.total() < MUTANTS:
        changed = mutant(document, draw)
        if changed == document:
            continue
        try:
            check.verify(changed)
            accepted = True
        except Exception:
            accepted = False
        verdict = oracle.judge(changed)
        counts[verdict, accepted] += 1
        assert not accepted or verdict == "true", (verdict, changed)
    print(kind, dict(counts))
    assert counts["false", False] > MUTANTS / 5
    assert counts["malformed", False] > MUTANTS / 5
    assert counts["unclear", False] < MUTANTS / 10


def changed(kind: str, **more: object) -> str:
    return check.sealed(json.loads(certificate(kind).document) | more)


def test_numbers_have_one_way_to_be_written() -> None:
    low, high = json.loads(certificate("point").document)["risk"]
    # Python's own reader would round these to the bounds that are true.
    for text in (high.replace("p", "00000001p"), high.upper(), f" {high}", f"+{high}", str(float.fromhex(high))):
        assert "no hexadecimal float" in refusal(changed("point", risk=[low, text]))
    counts = json.loads(certificate("point").document)["inertia"]
    for other in ([float(count) for count in counts], [False, False, counts[2]]):
        assert "altered" in refusal(changed("point", inertia=other))


def test_only_lists_stand_where_lists_stand() -> None:
    document = json.loads(certificate("point").document)
    refusal(changed("point", activations={"tanh": "is best"}))
    refusal(changed("point", inputs=[dict.fromkeys(row, "?") for row in document["inputs"]]))
    refusal(changed("point", layers=["12", "34"]))
    lift = json.loads(certificate("lift").document)["lift"]
    lift["pieces"][0][3] = []  # no sample is there
    refusal(changed("lift", lift=lift))


def test_a_wider_network_says_no_more_than_is_proved() -> None:
    lift, split = json.loads(certificate("spare").document)["lift"], json.loads(certificate("split").document)["split"]
    for spare in ({}, [], lift["spare"] | {"minimum": "global"}):
        refusal(changed("spare", lift=lift | {"spare": spare}))
    for place in (-1, 1, "0", 0.0, False):
        refusal(
            changed("spare", lift=lift | {"position": place})
            if place != 1
            else changed("split", split=split | {"neuron": 1})
        )
        refusal(changed("split", split=split | {"level": place}))
    refusal(changed("lift", split=split))
    piece = lift["pieces"][0]
    for pieces in (
        [*lift["pieces"], piece],
        [[*each, each[0]] for each in lift["pieces"]],
        [each[:3] for each in lift["pieces"]],
    ):
        refusal(changed("spare", lift=lift | {"pieces": pieces}))


def test_pieces_of_one_slope_and_two_intercepts_are_not_one_affine_piece() -> None:
    lift = json.loads(certificate("lift").document)["lift"]
    (low, high, slope, shift), half = lift["pieces"][1], (0.0).hex()
    other = (float.fromhex(shift) + 1.0).hex()
    broken = [[low, half, slope, shift], [half, high, slope, other]]
    pieces = [lift["pieces"][0], *broken, lift["pieces"][2]]
    assert "piece" in refusal(changed("lift", lift=lift | {"pieces": pieces})) or "kink" in refusal(
        changed("lift", lift=lift | {"pieces": pieces})
    )


def test_a_single_logit_has_no_isolated_critical_point() -> None:
    """Its cross-entropy vanishes everywhere: the logarithm of one exponential is its exponent."""
    inputs = [check.Ball([units(x) for x in (-2.0, -1.0, 1.0, 2.0)])]
    layers = [[[units(0.3), units(0.1)]], [[units(0.5), units(0.2)]]]
    there = check.Network("cross-entropy", ["tanh"], inputs, [check.Ball([check.ONE] * 4)], layers)
    assert abs(there.risk.m[0]) < check.ONE >> 150
    assert all(abs(ball.m[0]) < check.ONE >> 150 for ball in there.gradient)


def test_logits_far_from_zero_give_the_same_risk() -> None:
    """The sum of all e^z has no digits left where every z is near −2 302 720, the end of Python's decimal numbers."""
    inputs = [check.Ball([units(x) for x in (-2.0, -1.0, 1.0, 2.0)])]
    targets = [check.Ball([0, 0, check.ONE, 0]), check.Ball([check.ONE, check.ONE, 0, check.ONE])]

    def risk(shift: float) -> int:
        layers = [[[units(0.3), units(shift)], [units(-0.1), units(shift + 0.25)]]]
        return check.Network("cross-entropy", [], inputs, targets, layers).risk.m[0]

    for shift in (-2302720.0, -1e9, 2302720.0, 1e12):
        assert abs(risk(shift) - risk(0.0)) < 100


def test_the_program_runs_without_the_project(tmp_path: Path) -> None:
    good, bad, other = (tmp_path / f"{name}.json" for name in ("good", "bad", "other"))
    good.write_text(certificate("point").document)
    bad.write_text(certificate("point").document.replace("tanh", "sigmoid"))
    other.write_bytes(b"\xff")
    for files, code in [([good], 0), ([good, good], 0), ([good, bad], 1), ([bad, good], 1), ([other], 1), ([], 1)]:
        run = subprocess.run(
            [sys.executable, "-S", "-I", check.__file__, *map(str, files)], capture_output=True, text=True
        )
        assert run.returncode == code, run.stdout + run.stderr
        assert not run.stderr
        assert run.stdout.count("proved") == files.count(good)


def test_the_program_is_short_and_needs_the_standard_library_alone() -> None:
    lines = Path(check.__file__).read_text().splitlines()
    assert len(lines) <= 250
    assert max(map(len, lines)) <= 120
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported <= sys.stdlib_module_names
