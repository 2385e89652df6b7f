"""The Hessian of the empirical risk in closed form, for any depth, without batch normalization.

Write a[l] = (f[l], 1) and V[l] = (W[l], b[l]), so that z[l] = V[l] a[l−1]. For each sample let

    δ[m] = ∂R_S/∂z[m],    G[m, l] = dδ[m]/dz[l],    T[m, l] = df[m]/dz[l].

Differentiating ∂R_S/∂V[l]_ij = Σ_samples δ[l]_i a[l−1]_j once more gives, for l ≤ m,

    ∂²R_S / ∂V[l]_ij ∂V[m]_pq = Σ_samples ( G[m, l]_pi a[l−1]_j a[m−1]_q + δ[m]_p T[m−1, l]_qi a[l−1]_j ),

the second term only for l < m and q not the constant feature. Each sum is one matrix product over the samples, so
nearly all work is done at the speed of matrix multiplication. The book's appendix on the Hessian derives it.

Arrays are laid out (S, units, …, n): a batch of S networks first, the samples last. The pair of layers is called
(low, high) and counted from 0, as in `passes`. Letters in shapes and in einsum are the indices of the formula: i and j
belong to V[low], p and q to V[high]; r is summed over, s is the network, n the sample.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from embedding_principle.arguments import checked
from embedding_principle.curvature.passes import OPERAND, Derivatives, Passes, blocks_of_passes, outer
from embedding_principle.networks import Network
from embedding_principle.risks import Risk

Tangents = dict[int, Tensor]


@checked
def closed_form_hessian(risk: Risk, theta: Tensor) -> Tensor:
    """∇²R_S(θ) for θ (S, P), exactly symmetric, of a network without batch normalization.

    It is not finite where float64 overflows.

    Raises:
        ValueError: if θ is not of that shape, or the network has batch normalization.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> closed_form_hessian(Risk(Network((1, 1)), x, x), torch.zeros(1, 2).double())
        tensor([[[2., 0.],
                 [0., 2.]]], dtype=torch.float64)
    """
    return closed_form_derivatives(risk, theta).hessian


@checked
def closed_form_derivatives(risk: Risk, theta: Tensor) -> Derivatives:
    """R_S, ∇R_S and ∇²R_S for θ (S, P), by the same passes.

    Raises:
        ValueError: as `closed_form_hessian` does.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> closed_form_derivatives(Risk(Network((1, 1)), x, x), torch.zeros(1, 2).double()).gradient
        tensor([[-2.,  0.]], dtype=torch.float64)
    """
    network = risk.network
    blocks = blocks_of_passes(risk, theta, units=max((width + 1) ** 2 for width in network.widths))
    found = Derivatives.sums(theta)
    for rows, samples in blocks:
        sums = _Sums(network)
        for passes in samples:
            found.add(rows, passes)
            sums.add(passes)
        sums.write(found.hessian[rows])
    return found


def _tangents(passes: Passes, low: int) -> tuple[Tangents, Tangents]:
    """dz[m]/dz[low], (S, m_m, m_low, n), for all m > low, and df[m]/dz[low] for hidden m > low."""
    before, after = Tangents(), Tangents()
    for m in range(low + 1, len(passes.weights)):
        if m == low + 1:
            # df[low]/dz[low] is diagonal: (S, p, i, 1) times (S, 1, i, n).
            before[m] = passes.weights[m].unsqueeze(3) * passes.slopes[low].unsqueeze(1)
        else:
            # (S, r, 1, n) times (S, r, i, n).
            after[m - 1] = passes.slopes[m - 1].unsqueeze(2) * before[m - 1]
            before[m] = torch.einsum("spr,srin->spin", passes.weights[m], after[m - 1])
    return before, after


def _preactivation_hessians(passes: Passes, low: int, tangents: Tangents) -> Iterator[tuple[int, Tensor]]:
    """(m, G[m, low]) for m from the output down to low, each (S, m_m, m_low, n)."""
    last = len(passes.weights) - 1
    if low == last:
        yield last, passes.curvature
        return
    hessian = torch.einsum("sprn,srin->spin", passes.curvature, tangents[last])
    yield last, hessian
    for m in reversed(range(low, last)):
        # (S, p, i, n) times (S, p, 1, n).
        hessian = torch.einsum("srp,srin->spin", passes.weights[m + 1], hessian).mul_(passes.slopes[m].unsqueeze(2))
        if m > low:
            hessian.addcmul_(passes.bends[m].unsqueeze(2), tangents[m])
        else:
            # dz[low]/dz[low] is the identity; the diagonal is (S, n, i).
            hessian.diagonal(dim1=1, dim2=2).add_(passes.bends[m].mT)
        yield m, hessian


@cache
def _triangle(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row and column of each entry of a lower triangle, and where the triangle holds each entry of the square."""
    rows, columns = torch.tril_indices(size, size)
    position = torch.empty(size, size, dtype=torch.long)
    position[rows, columns] = position[columns, rows] = torch.arange(len(rows))
    return rows, columns, position


class _Sums:
    """The sums over samples for each pair of layers, and their way into the Hessian.

    A diagonal block is symmetric in (p, i) and in (j, q): its sum holds a triangle of each, a quarter of the work.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.products: dict[tuple[int, int, str], Tensor] = {}

    def add(self, passes: Passes) -> None:
        """Add the share of some of the samples."""
        for low in range(len(passes.weights)):
            before, after = _tangents(passes, low)
            for high, hessian in _preactivation_hessians(passes, low, before):
                if low == high:
                    self._add_diagonal(passes, low, hessian)
                else:
                    self._add_cross(passes, low, high, hessian, after.get(high - 1))

    def _add_diagonal(self, passes: Passes, layer: int, hessian: Tensor) -> None:
        features, width = passes.features[layer], hessian.shape[1]
        (p, i, _), (j, q, _) = _triangle(width), _triangle(features.shape[1])
        # (S, p ≥ i, n) and (S, j ≥ q, n).
        lower = hessian.flatten(1, 2).index_select(1, p * width + i)
        products = features.index_select(1, j).mul_(features.index_select(1, q))
        self._add_product((layer, layer, "G"), lower, products)

    def _add_cross(self, passes: Passes, low: int, high: int, hessian: Tensor, tangent: Tensor | None) -> None:
        below, above, delta = passes.features[low], passes.features[high], passes.deltas[high]
        # (S, p · i, n) and (S, j · q, n).
        self._add_product((low, high, "G"), hessian.flatten(1, 2), outer(below, above))
        if tangent is None:
            # T[low, low] is diagonal, of slopes, so that q = i: (S, p · i, n) and (S, j, n).
            self._add_product((low, high, "T"), outer(delta, passes.slopes[low]), below)
        else:
            # (S, q · i, n) and (S, p · j, n).
            self._add_product((low, high, "T"), tangent.flatten(1, 2), outer(delta, below))

    def _add_product(self, key: tuple[int, int, str], left: Tensor, right: Tensor) -> None:
        """Add the sum over samples of all products of a row of `left` with a row of `right`, (S, rows, rows)."""
        if key in self.products:
            self.products[key].baddbmm_(left, right.mT.expand(len(left), -1, -1))
        else:
            self.products[key] = left @ right.mT

    def write(self, matrix: Tensor) -> None:
        """Copy the sums into the Hessian (S, P, P), in the order of θ."""
        views = _blocks(self.network, matrix)
        for low, (fan_in, width) in enumerate(zip(self.network.widths, self.network.widths[1:])):
            # Strips of rows keep the copies in the cache and their memory small.
            strip = max(1, OPERAND // (len(matrix) * width * (fan_in + 1) ** 2))
            for first in range(0, width, strip):
                units = slice(first, min(first + strip, width))
                _copy(self._diagonal(low, units), [[part[:, units] for part in row] for row in views[low, low]])
            for high in range(low + 1, self.network.depth):
                block = self._cross(low, high)
                _copy(block, views[low, high])
                # (S, p, q, i, j).
                _copy(block.permute(0, 3, 4, 1, 2), views[high, low])

    def _diagonal(self, layer: int, units: slice) -> Tensor:
        """Rows i of a diagonal block, (S, i, j, p, q)."""
        width, inputs = self.network.widths[layer + 1], self.network.widths[layer] + 1
        # (S, p ≥ i, j ≥ q), then (S, i · p, j ≥ q), then (S, i · p, j · q).
        triangles = self.products[layer, layer, "G"]
        rows = triangles.index_select(1, _triangle(width)[2][units].flatten())
        square = rows.gather(2, _triangle(inputs)[2].flatten().expand(*rows.shape[:2], -1))
        return square.view(len(square), -1, width, inputs, inputs).transpose(2, 3)

    def _cross(self, low: int, high: int) -> Tensor:
        """The block of layers low < high, (S, i, j, p, q)."""
        widths = self.network.widths
        i, j, p, q = widths[low + 1], widths[low] + 1, widths[high + 1], widths[high] + 1
        total = self.products[low, high, "G"].view(-1, p, i, j, q)
        through = self.products[low, high, "T"]
        if high == low + 1:
            # The diagonal q = i is (S, p, j, i).
            total.diagonal(dim1=2, dim2=4).add_(through.view(-1, p, i, j).transpose(2, 3))
        else:
            # (S, q, i, p, j) to (S, p, i, j, q).
            total[..., :-1].add_(through.view(-1, q - 1, i, p, j).permute(0, 3, 2, 4, 1))
        return total.permute(0, 2, 3, 1, 4)


def _blocks(network: Network, matrix: Tensor) -> dict[tuple[int, int], list[list[Tensor]]]:
    """The Hessian (S, P, P) by pairs of layers: [[∂²/∂W∂W, ∂²/∂W∂b], [∂²/∂b∂W, ∂²/∂b∂b]], views (S, i[, j], p[, q])."""
    # Rows (S, P, i[, j]) to (S, i[, j], P).
    rows = [[network.layers(part.movedim(1, -1)) for part in layer] for layer in network.layers(matrix.mT)]
    pairs = [(low, high) for low in range(network.depth) for high in range(network.depth)]
    return {(low, high): [[row[high].weight, row[high].bias] for row in rows[low]] for low, high in pairs}


def _copy(block: Tensor, views: list[list[Tensor]]) -> None:
    """Copy a block (S, i, j, p, q) to its four views: biases are the last j and the last q."""
    for (weights, biases), part in zip(views, (block[:, :, :-1], block[:, :, -1])):
        weights.copy_(part[..., :-1])
        biases.copy_(part[..., -1])
