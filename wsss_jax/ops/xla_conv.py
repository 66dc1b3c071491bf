"""XLA's own convolution, from which the other convolutions of this package depart."""

from jax import lax
from jaxtyping import Array

Padding = tuple[tuple[int, int], tuple[int, int]]
"""The zeros to add, ((top, bottom), (left, right))."""


def xla_conv(
    x: Array, kernel: Array, stride: int, dilation: int, padding: Padding, groups: int = 1
) -> Array:
    """Convolves features [b, h, w, c] with a kernel [k, l, c / groups, d] as XLA does it.

    Its gradients are XLA's, too. With as many groups as channels, it is a depthwise convolution.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
