"""Prove that a critical point lies near given floats, with its inertia and a risk interval.

The proof is Krawczyk's test in integer interval arithmetic, by the functions of `certificates.check`: this module only
proposes the centre, which Newton's method with gradients of 192 bits improves, and the box. So nothing here can make a
false proof; a centre or a box that is bad makes the test fail. Krawczyk, Computing 4 (1969) 187–201.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from embedding_principle.arguments import checked, variable
from embedding_principle.certificates import check
from embedding_principle.risks import Risk, squared_error

_ACTIVATIONS = ("tanh", "sigmoid", "softplus")
_FACTORS = (2.0, 16.0, 1024.0)  # of the box over Newton's last step


@dataclass(frozen=True, eq=False)
class Certificate:
    """What was found out about the critical points in a box.

    Attributes:
        result: "proved" (exactly one in the box), "refuted" (none in the box) or "undecided".
        reason: why it is not proved; empty if it is.
        inertia: (n−, n0, n+) of the Hessian at the critical point; None unless proved.
        risk: floats between which its risk lies; None unless proved.
        radius: the largest half side of the box; the critical point is no farther from `centre` in any coordinate.
        centre: the floats in the middle of the box.
        document: the certificate as text, which `check.py` proves again; empty unless proved.
    """

    result: Literal["proved", "refuted", "undecided"]
    reason: str
    inertia: tuple[int, int, int] | None
    risk: tuple[float, float] | None
    radius: float
    centre: tuple[float, ...]
    document: str


@checked
def certify(risk: Risk, theta: Tensor, *, radius: float | None = None) -> Certificate:
    """Prove that exactly one critical point lies in a box about θ.

    Without a radius Newton's method improves θ first, and boxes of growing size are tried. A degenerate critical point,
    such as that of a network with two equal neurons, is never proved: Krawczyk's test needs a regular Hessian.

    Args:
        risk: of squared error, without batch normalization; the activations are tanh, sigmoid or softplus.
        theta: (P,), near a critical point.
        radius: half the side of the box about θ itself, rounded down to 30 significant bits; None proposes one.

    Raises:
        ValueError: for another loss, network or shape, a θ that is not finite, or a radius that is not positive.

    Example:
        >>> import torch
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
        >>> line = Risk(Network((1, 1)), x, torch.tensor([[0.0], [1.0], [1.0]], dtype=torch.float64))
        >>> proof = certify(line, torch.tensor([0.5, 0.2], dtype=torch.float64))
        >>> proof.result, proof.inertia
        ('proved', (0, 0, 2))
    """
    network = risk.network
    if risk.loss is not squared_error:
        raise ValueError(f"risk: can be certified for squared error, got {risk.loss.name}; take risks.squared_error")
    names = [activation.name for activation in network.activations]
    if network.batch_norm_epsilon is not None or not set(names) <= set(_ACTIVATIONS):
        raise ValueError(f"risk: certified are {', '.join(_ACTIVATIONS)} without batch normalization, got {network}")
    theta = variable("theta", theta, (network.n_parameters,))
    if not bool(theta.isfinite().all()):
        raise ValueError("theta: is not finite; give a point near a critical one")
    if radius is not None and not (math.isfinite(radius) and radius > 2.0**-150):
        raise ValueError(f"radius: must be finite and above 2^-150, got {radius}; None proposes one")
    data = [_columns(risk.inputs), _columns(risk.targets)]
    problem = (network.widths, names, data[0], data[1])
    centre = given = [float(v) for v in theta]
    reason = "undecided: the Hessian is singular"
    best = [radius] * len(centre) if radius is not None else [math.nan] * len(centre)
    for centre, sides in _proposals(problem, given) if radius is None else [(given, best)]:
        best = [_short(side) for side in sides]
        try:
            inertia, (low, high) = check.prove(
                *problem, [check.read(v.hex()) for v in centre], [check.exact(v.hex()) for v in best]
            )
        except check.Refused as refusal:
            reason = str(refusal)
            continue
        except (ValueError, OverflowError):  # an inverse that is not finite
            continue
        ends = (_float(low, -math.inf), _float(high, math.inf))
        text = check.sealed(
            {
                "statement": check.STATEMENT,
                "loss": "squared error",
                "widths": list(network.widths),
                "activations": names,
                "inputs": [[float(v).hex() for v in row] for row in risk.inputs],
                "targets": [[float(v).hex() for v in row] for row in risk.targets],
                "centre": [v.hex() for v in centre],
                "radius": [v.hex() for v in best],
                "inertia": inertia,
                "risk": [v.hex() for v in ends],
            }
        )
        return Certificate("proved", "", (inertia[0], inertia[1], inertia[2]), ends, max(best), tuple(centre), text)
    result: Literal["refuted", "undecided"] = "refuted" if reason.startswith("refuted") else "undecided"
    return Certificate(result, reason.split(": ", 1)[-1], None, None, max(best), tuple(centre), "")


def _columns(table: Tensor) -> list[Any]:
    return [check.Ball([check.read(float(v).hex())[0] for v in column], 1) for column in table.T]


def _proposals(problem: tuple[Any, Any, Any, Any], centre: list[float]) -> Iterator[tuple[list[float], list[float]]]:
    """Newton's method from the centre, then boxes of several sizes over the size of its last step."""
    for last in (False, False, False, True):
        _, gradient, hessian = check.derivatives(*problem, [check.read(v.hex()) for v in centre])
        slope = np.array([m / check.ONE for m, _ in gradient])
        try:
            step = np.linalg.solve(np.array([[m / check.ONE for m, _ in row] for row in hessian]), slope)
        except np.linalg.LinAlgError:
            return
        if not np.isfinite(step).all() or np.abs(step).max() > 1.0:
            return
        if not last:
            centre = [v - float(s) for v, s in zip(centre, step)]
    size = np.abs(step)
    for factor in _FACTORS:
        yield centre, [float(v) for v in factor * size + 0.01 * factor * size.max() + 2.0**-100]


def _short(side: float) -> float:
    """Rounded down to 30 significant bits, so that no digit is below the checker's last unit."""
    fraction, exponent = math.frexp(side)
    return math.ldexp(math.floor(math.ldexp(fraction, 30)), exponent - 30)


def _float(units: int, towards: float) -> float:
    """A float on this side of a number in the checker's units, with few enough digits for the checker."""
    value = units / check.ONE
    value = math.nextafter(value, towards)
    return math.ldexp(math.floor(math.ldexp(value, 120)) + (towards > 0), -120) if abs(value) < 2.0**-60 else value
