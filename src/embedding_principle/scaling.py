"""Scales by which quotients of sums of squares are formed without overflow or underflow."""

import torch
from torch import Tensor


def scale_of(values: Tensor, *, dim: int) -> Tensor:
    """The largest power of two up to the largest modulus along a dimension, which is kept with size one.

    Division by it changes no digit. It is zero where all values are, and not a number where one is not finite; it is a
    constant to autograd.

    Example:
        >>> scale_of(torch.tensor([[5.0, -7.0], [0.0, 0.0]]).double(), dim=1).flatten()
        tensor([4., 0.], dtype=torch.float64)
    """
    largest = values.detach().abs().amax(dim, keepdim=True)
    # Of the mantissa, in [1/2, 1), the quotient is a power of two exactly.
    return torch.where(largest == 0, 0.0, largest / (2 * torch.frexp(largest).mantissa))


def scaled(values: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    """The values over their `scale_of`, zeros staying zeros, and that scale.

    Example:
        >>> scaled(torch.tensor([6.0, -1.0]).double(), dim=0)
        (tensor([ 1.5000, -0.2500], dtype=torch.float64), tensor([4.], dtype=torch.float64))
    """
    scale = scale_of(values, dim=dim)
    return values / torch.where(scale == 0, 1.0, scale), scale
