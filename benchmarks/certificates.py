"""Critical points proved and checked again, against the same test of Krawczyk's by python-flint's arb_mat.

Two points made to order: 1-2-1 on 20 samples, P = 7, and 4-8-6-1 on the 150 flowers of Iris, P = 101. All contestants
get the centre and the side of the box. Beside that the table says what `certify` takes alone, Newton's method included.
Aimed at were 10 ms and 0.2 s to prove and to check P = 7, 1 s and 2 s for P = 101. python-flint is in the extra `test`.
"""

from collections.abc import Callable

import numpy as np
import torch
from benchmarks.arb import krawczyk
from benchmarks.timing import Comparison, compare, one_thread, report, seconds
from torch import Tensor

from embedding_principle.activations import tanh
from embedding_principle.certificates import check
from embedding_principle.certificates.certify import certify
from embedding_principle.datasets import iris
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import Risk

AIMS = {7: (0.01, 0.2), 101: (1.0, 2.0)}


def problems() -> list[tuple[Risk, Tensor]]:
    """Points made to order with residuals that do not vanish."""
    generator, made = torch.Generator().manual_seed(0), []
    for widths, x in (((1, 2, 1), torch.linspace(-2, 2, 20).double()[:, None]), ((4, 8, 6, 1), iris().inputs)):
        network = Network.uniform(widths, tanh)
        point = Parametrised(network, network.initial(generator, scale=1.5, bias_scale=1.0))
        made.append((plant(point, x, generator=generator, residual=0.3), point.theta))
    return made


def afresh(run: Callable[[], object]) -> Callable[[], object]:
    """Without the exponentials that an earlier run has left in the checker."""

    def cleared() -> object:
        check.exponential.cache_clear()
        return run()

    return cleared


def rows(risk: Risk, theta: Tensor) -> list[Comparison]:
    """One critical point proved, and its certificate checked."""
    proof = certify(risk, theta)
    centre, side = np.array(proof.centre), proof.radius
    peers = {
        f"arb_mat, {bits} bit": lambda bits=bits: krawczyk(risk, centre, side, bits=bits, gradient_bits=128)
        for bits in (53, 128)
    }
    exact = {"arb_mat, 192 bit": lambda: krawczyk(risk, centre, side, bits=192, gradient_bits=192)}
    again = certify(risk, torch.from_numpy(centre), radius=side)
    negatives = [proof.inertia[0], again.inertia[0], check.verify(proof.document)[0]]
    negatives += [peer() for peer in (*peers.values(), *exact.values())]
    if len(set(negatives)) > 1:
        raise AssertionError(f"P = {len(theta)}: the numbers of negative eigenvalues differ: {negatives}")
    alone = afresh(lambda: certify(risk, theta))
    facts = {"n": len(risk.inputs), "P": len(theta), "n−": negatives[0]}
    newton = {"with Newton, s": float(np.median([seconds(alone) for _ in range(5)]))}
    case = "-".join(map(str, risk.network.widths))
    to_prove, to_check = AIMS[len(theta)]
    return [
        compare(
            f"proved, {case}",
            afresh(lambda: certify(risk, torch.from_numpy(centre), radius=side)),
            peers,
            facts=facts | newton | {"aim, s": to_prove},
        ),
        compare(
            f"checked, {case}", afresh(lambda: check.verify(proof.document)), exact, facts=facts | {"aim, s": to_check}
        ),
    ]


if __name__ == "__main__":
    one_thread()
    report(
        "certificates", "Critical points proved and checked", [row for problem in problems() for row in rows(*problem)]
    )
