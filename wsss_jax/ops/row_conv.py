"""Dense convolution as a sum of convolutions along rows, for TPUs with few images per device.

A TPU keeps eight values of the batch, or of another axis, side by side in its registers. With fewer
than eight images per device, XLA makes a batch of strips of each image for a convolution of height
and width. Copying the edges of the strips back and forth takes as long as the arithmetic. Here the
rows of an image are the batch of a convolution along the width. One of these for each row of the
kernel, summed in float32, is the same convolution without such copies. By the compiler's own
estimate for a v5e, three layers and their gradients take 0.80 (512 channels at 56×56), 0.47 (256 at
112×112) and 0.48 (128 at 224×224) of the time with one image, and 0.76 and 0.62 (the first two)
with two. With eight images, XLA's own form is faster.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from wsss_jax.ops.xla_conv import Padding

FEW = 2
"""Up to this many images per device, rows win; the programs grow with the number of images."""


def row_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k l c d"],
    stride: int,
    dilation: int,
    padding: Padding,
    shards: int,
) -> Float[Array, "b p q d"]:
    """Convolves features with a kernel, like `wsss_jax.ops.conv.conv`.

    Args:
      x: the features.
      kernel: the kernel; its axes are height, width, input channels, output channels.
      stride: the stride along both axes.
      dilation: the distance between the taps.
      padding: the zeros to add, ((top, bottom), (left, right)).
      shards: the number of devices over which the batch, which it divides, is sharded. The images
        of a device are convolved one after the other.
    """
    ends, sides = padding
    padded = jnp.pad(x, ((0, 0), ends, (0, 0), (0, 0)))
    height = (padded.shape[1] - (kernel.shape[0] - 1) * dilation - 1) // stride + 1
    images = padded.reshape(shards, -1, *padded.shape[1:])

    def convolved(image: Float[Array, "s hp w c"]) -> Float[Array, "s p q d"]:
        total = jnp.zeros((), jnp.float32)
        for tap in range(kernel.shape[0]):
            first = tap * dilation
            rows = image[:, first : first + (height - 1) * stride + 1 : stride]
            total += lax.conv_general_dilated(
                rows.reshape(-1, *rows.shape[2:]),
                kernel[tap],
                (stride,),
                (sides,),
                rhs_dilation=(dilation,),
                dimension_numbers=("NHC", "HIO", "NHC"),
                preferred_element_type=jnp.float32,
            )
        return total.reshape(shards, height, *total.shape[1:]).astype(x.dtype)

    results = jnp.stack([convolved(images[:, i]) for i in range(images.shape[1])], 1)
    return results.reshape(len(x), *results.shape[2:])
