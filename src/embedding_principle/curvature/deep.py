"""The Hessian of the empirical risk in closed form, for any depth, without batch normalization.

Write a[l] = (f[l], 1) and V[l] = (W[l], b[l]), so that z[l] = V[l] a[l−1]. For each sample let

    δ[m] = ∂R/∂z[m],    G[m, l] = dδ[m]/dz[l],    T[m, l] = df[m]/dz[l].

Differentiating ∂R/∂V[l]_ij = Σ_samples δ[l]_i a[l−1]_j once more gives, for l ≤ m,

    ∂²R / ∂V[l]_ij ∂V[m]_pq = Σ_samples ( G[m, l]_pi a[l−1]_j a[m−1]_q + δ[m]_p T[m−1, l]_qi a[l−1]_j ),

the second term only for l < m and q not the constant feature. Each sum is one matrix product over the samples, so
nearly all work is done at the speed of matrix multiplication. The book's appendix on the Hessian derives it.

Arrays are laid out (S, units, …, n): a batch of S networks first, the samples last. The pair of layers is called
(low, high) and counted from 0, as in `passes`.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from embedding_principle.curvature.passes import OPERAND, Passes, blocks_of_passes, outer
from embedding_principle.risks import Risk

Tangents = dict[int, Tensor]


def closed_form_hessian(risk: Risk, theta: Tensor) -> Tensor:
    """∇²R_S(θ) for θ (S, P), exactly symmetric, of a network without batch normalization.

    Example:
        >>> from embedding_principle.networks import Network
        >>> x = torch.tensor([[-1.0], [1.0]]).double()
        >>> closed_form_hessian(Risk(Network((1, 1)), x, x), torch.zeros(1, 2).double())
        tensor([[[2., 0.],
                 [0., 2.]]], dtype=torch.float64)
    """
    widths = risk.network.widths
    matrix = theta.new_empty(*theta.shape, theta.shape[-1])
    for rows, parts in blocks_of_passes(risk, theta, units=max((width + 1) ** 2 for width in widths)):
        sums = _Sums(widths)
        for part in parts:
            sums.add(part)
        sums.write(matrix[rows])
    return matrix


def _tangents(part: Passes, low: int) -> tuple[Tangents, Tangents]:
    """dz[m]/dz[low], (S, m_m, m_low, n), for all m > low, and df[m]/dz[low] for hidden m > low."""
    before, after = Tangents(), Tangents()
    for m in range(low + 1, len(part.weights)):
        if m == low + 1:  # df[low]/dz[low] is diagonal
            before[m] = part.weights[m].unsqueeze(3) * part.slopes[low].unsqueeze(1)
        else:
            after[m - 1] = part.slopes[m - 1].unsqueeze(2) * before[m - 1]
            before[m] = _apply(part.weights[m], after[m - 1])
    return before, after


def _preactivation_hessians(part: Passes, low: int, tangents: Tangents) -> Iterator[tuple[int, Tensor]]:
    """(m, G[m, low]) for m from the output down to low, each (S, m_m, m_low, n)."""
    last = len(part.weights) - 1
    if low == last:
        yield last, part.curvature
        return
    hessian = torch.einsum("scdn,sdin->scin", part.curvature, tangents[last])
    yield last, hessian
    for m in reversed(range(low, last)):
        hessian = _apply(part.weights[m + 1].mT, hessian).mul_(part.slopes[m].unsqueeze(2))
        if m > low:
            hessian.addcmul_(part.bends[m].unsqueeze(2), tangents[m])
        else:
            hessian.diagonal(dim1=1, dim2=2).add_(part.bends[m].mT)
        yield m, hessian


def _apply(matrix: Tensor, columns: Tensor) -> Tensor:
    """Matrix (S, a, b) times columns (S, b, i, n)."""
    return (matrix @ columns.flatten(2)).view(len(matrix), -1, *columns.shape[2:])


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

    def __init__(self, widths: tuple[int, ...]) -> None:
        self.widths = widths
        self.products: dict[tuple[int, int, str], Tensor] = {}

    def add(self, part: Passes) -> None:
        """Add the share of some of the samples."""
        for low in range(len(part.weights)):
            before, after = _tangents(part, low)
            for high, hessian in _preactivation_hessians(part, low, before):
                if low == high:
                    self._add_diagonal(part, low, hessian)
                else:
                    self._add_cross(part, low, high, hessian, after.get(high - 1))

    def _add_diagonal(self, part: Passes, layer: int, hessian: Tensor) -> None:
        features, width = part.features[layer], hessian.shape[1]
        (p, i, _), (j, q, _) = _triangle(width), _triangle(features.shape[1])
        products = features.index_select(1, j).mul_(features.index_select(1, q))
        self._add_product((layer, layer, "G"), hessian.flatten(1, 2).index_select(1, p * width + i), products)

    def _add_cross(self, part: Passes, low: int, high: int, hessian: Tensor, tangent: Tensor | None) -> None:
        below, delta = part.features[low], part.deltas[high]
        self._add_product((low, high, "G"), hessian.flatten(1, 2), outer(below, part.features[high]))
        if tangent is None:  # T[low, low] is diagonal, of slopes: only q = i
            self._add_product((low, high, "T"), outer(delta, part.slopes[low]), below)
        else:
            self._add_product((low, high, "T"), tangent.flatten(1, 2), outer(delta, below))

    def _add_product(self, key: tuple[int, int, str], left: Tensor, right: Tensor) -> None:
        if key in self.products:
            self.products[key].baddbmm_(left, right.mT.expand(len(left), -1, -1))
        else:
            self.products[key] = left @ right.mT

    def write(self, matrix: Tensor) -> None:
        """Copy the sums into the Hessian (S, P, P), in the order of θ."""
        for low, width in enumerate(self.widths[1:]):
            # Strips of rows keep the copies in the cache and their memory small.
            strip = max(1, OPERAND // (len(matrix) * width * (self.widths[low] + 1) ** 2))
            for first in range(0, width, strip):
                units = range(first, min(first + strip, width))
                self._copy(matrix, self._diagonal(low, units), (low, units), (low, range(width)))
            for high in range(low + 1, len(self.widths) - 1):
                rows, columns = (low, range(width)), (high, range(self.widths[high + 1]))
                block = self._cross(low, high)
                self._copy(matrix, block, rows, columns)
                self._copy(matrix, block.permute(0, 3, 4, 1, 2), columns, rows)

    def _diagonal(self, layer: int, units: range) -> Tensor:
        """Rows i of a diagonal block, (S, i, j, p, q)."""
        width, inputs, triangle = self.widths[layer + 1], self.widths[layer] + 1, self.products[layer, layer, "G"]
        rows = triangle.index_select(1, _triangle(width)[2][units.start : units.stop].flatten())
        square = rows.gather(2, _triangle(inputs)[2].flatten().expand(*rows.shape[:2], -1))
        return square.view(-1, len(units), width, inputs, inputs).transpose(2, 3)

    def _cross(self, low: int, high: int) -> Tensor:
        """The block of layers low < high, (S, i, j, p, q)."""
        i, below, p, above = self.widths[low + 1], self.widths[low] + 1, self.widths[high + 1], self.widths[high] + 1
        total = self.products[low, high, "G"].view(-1, p, i, below, above)
        through = self.products[low, high, "T"]
        if high == low + 1:
            total.diagonal(dim1=2, dim2=4).add_(through.view(-1, p, i, below).transpose(2, 3))
        else:
            total[..., :-1].add_(through.view(-1, above - 1, i, p, below).permute(0, 3, 2, 4, 1))
        return total.permute(0, 2, 3, 1, 4)

    def _copy(self, matrix: Tensor, block: Tensor, rows: tuple[int, range], columns: tuple[int, range]) -> None:
        for row_place, j in self._places(*rows):
            for column_place, q in self._places(*columns):
                part = block[:, :, j, :, q]
                matrix[:, row_place, column_place].view(part.shape).copy_(part)

    def _places(self, layer: int, units: range) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where θ holds the weights and the biases of these units, and which columns of V those are."""
        start = sum(m * (k + 1) for k, m in zip(self.widths[:layer], self.widths[1:]))
        inputs, middle = self.widths[layer], start + self.widths[layer] * self.widths[layer + 1]
        weights = slice(start + units.start * inputs, start + units.stop * inputs)
        return (weights, slice(inputs)), (slice(middle + units.start, middle + units.stop), slice(inputs, inputs + 1))
