"""Brings the feature maps of any backbone to a common stride."""

from jaxtyping import Array, Bool, Float

from wsss_jax.models.layers import downsample_valid
from wsss_jax.ops.resize import resize_bilinear, valid_size


def map_size(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Returns (height, width) of the maps of an image at `stride`, rounded up."""
    return -(-image_size[0] // stride), -(-image_size[1] // stride)


def to_stride(
    maps: Float[Array, "b h w c"],
    stride: int,
    new_stride: int,
    size: tuple[int, int],
    valid: Bool[Array, "b ih iw"] | None,
) -> Float[Array, "b oh ow c"]:
    """Resizes maps from `stride` to `new_stride` with aligned corners.

    Args:
      maps: the maps, or the images themselves.
      stride: the image pixels per pixel of `maps`, which is 1 for the images themselves.
      new_stride: the image pixels per pixel of the result.
      size: (height, width) of the result; see `map_size`.
      valid: the top-left rectangle of each image that is not padding. This rectangle of the result
        then equals that of the unpadded image.
    """
    if stride == new_stride:
        return maps
    mask, new_mask = downsample_valid(valid, stride), downsample_valid(valid, new_stride)
    if mask is None or new_mask is None:
        return resize_bilinear(maps, size, align_corners=True)
    return resize_bilinear(
        maps,
        size,
        align_corners=True,
        in_size=valid_size(mask),
        out_size=valid_size(new_mask),
    )
