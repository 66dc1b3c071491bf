"""The programs of stages that run the network of a training stage on images of many sizes."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from wsss_jax.accelerators.programs import DeviceProgram
from wsss_jax.inference.device_sum import add_scale, wanted
from wsss_jax.inference.multi_scale import MultiScale, sums_on_device
from wsss_jax.methods.base import Method
from wsss_jax.methods.prediction import prediction
from wsss_jax.methods.variables import variable_shapes
from wsss_jax.ops.buckets import Plan, Size
from wsss_jax.ops.sharding import data_mesh, shardable, sharded
from wsss_jax.stages.base import Needs, SplitSize
from wsss_jax.stages.network import ASSUMED_CLASSES, NetworkStage

ASSUMED_SIZE: Size = (375, 500)
"""The size of most of VOC's images, where those of the data are not at hand."""

MOST_LABELS = 3
"""The classes that most batches have at most in one of their images."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """A padded shape with the number of images that run in it together, and how often they do.

    `canvas` is the size that holds all of these images at scale 1.
    """

    size: Size
    images: int
    executions: int | None
    canvas: Size


def trained_method(needs: Needs, size: SplitSize | None) -> Method | None:
    """Returns the method of the need ``checkpoint``, or None if its stage is of another kind."""
    stage = needs["checkpoint"].stage
    classes = ASSUMED_CLASSES if size is None else size.classes
    return stage.method_for(classes) if isinstance(stage, NetworkStage) else None


def local_mesh(mesh: Mesh) -> tuple[Mesh, int]:
    """Returns the devices of one process, which shares images with the others, and their number."""
    devices = list(mesh.devices.flat)
    processes = {device.process_index for device in devices}
    first = min(processes)
    return data_mesh([one for one in devices if one.process_index == first]), len(processes)


def image_sizes(size: SplitSize | None) -> Sequence[Size]:
    """Returns the sizes of a split's images, all of them `ASSUMED_SIZE` if they are not known."""
    if size is None:
        return (ASSUMED_SIZE,)
    return size.image_sizes or (ASSUMED_SIZE,) * size.images


def padded_shapes(plan: Plan, copies: int, size: SplitSize | None, processes: int) -> list[Shape]:
    """Returns the shapes in which a process runs its share of a split, with `copies` of an image.

    How often it does is unknown if the number of images is.
    """
    canvases = plan.canvases(image_sizes(size))
    counts = Counter(
        (shape, batch.rows * copies, canvases[batch.bucket])
        for batch in plan.batches(range(0, len(plan.sizes), processes))
        for shape in batch.bucket
    )
    return [
        Shape(shape, images, None if size is None else count, canvas)
        for (shape, images, canvas), count in sorted(counts.items())
    ]


def network_programs(
    method: Method, output: str, shapes: Sequence[Shape], size: SplitSize | None, mesh: Mesh
) -> list[DeviceProgram]:
    """Returns the programs that predict `output` in `shapes`, on the devices of one process."""
    jitted = prediction(method, output, mesh)
    params, variables = variable_shapes(method)
    weights = {"params": params, **variables}
    return [
        DeviceProgram(
            name=f"{output} at {one.size[0]} x {one.size[1]}, {method.dtype}",
            lower=_lowering(jitted, weights, one.size),
            images=shardable(one.images, mesh),
            asked=one.images,
            executions=one.executions,
            devices=mesh.devices.size,
            pixels=one.size[0] * one.size[1],
            remarks=size_remarks(size),
        )
        for one in shapes
    ]


def multi_scale_programs(
    how: MultiScale,
    method: Method | None,
    output: str,
    size: SplitSize | None,
    mesh: Mesh,
    most: int | None,
) -> list[DeviceProgram]:
    """Returns the programs that predict `output` at all scales and sum it; none without a method.

    `most` is the most channels that an image of a batch needs, or None for all of a segmentation
    network.
    """
    if method is None:
        return []
    local, processes = local_mesh(mesh)
    plan = how.plan(image_sizes(size), method.backbone, local.devices.size)
    shapes = padded_shapes(plan, how.copies, size, processes)
    most = 1 + method.num_classes if most is None else most
    return [
        *network_programs(method, output, shapes, size, local),
        *sum_programs(how, method, output, shapes, size, local, most),
    ]


def sum_programs(
    how: MultiScale,
    method: Method,
    output: str,
    shapes: Sequence[Shape],
    size: SplitSize | None,
    mesh: Mesh,
    most: int,
) -> list[DeviceProgram]:
    """Returns the programs that upsample and sum maps, if devices of this kind do that.

    Args:
      how: the settings.
      method: the method of the network.
      output: the prediction that is summed.
      shapes: the padded shapes, from `padded_shapes`.
      size: the split.
      mesh: the devices of one process.
      most: the most channels that an image of a batch needs.
    """
    if not sums_on_device(how.sum_on, mesh):
        return []
    params, variables = variable_shapes(method)
    weights = {"params": params, **variables}
    predict = functools.partial(_prediction_shape, prediction(method, output, mesh), weights)
    return [
        DeviceProgram(
            name=f"sum of {output} at {one.size[0]} x {one.size[1]}",
            lower=_sum_lowering(how, predict, one, most, mesh),
            images=shardable(one.images, mesh),
            asked=one.images,
            executions=one.executions,
            devices=mesh.devices.size,
            remarks=(*size_remarks(size), f"up to {most} channels in a batch"),
        )
        for one in shapes
    ]


def _prediction_shape(
    jitted: Any, weights: Mapping[str, Any], images: int, size: Size
) -> jax.ShapeDtypeStruct:
    shape = (images, *size)
    image = jax.ShapeDtypeStruct((*shape, 3), jnp.uint8)
    return jax.eval_shape(jitted, weights, image, jax.ShapeDtypeStruct(shape, jnp.bool_))


def _sum_lowering(
    how: MultiScale,
    predict: Callable[[int, Size], jax.ShapeDtypeStruct],
    one: Shape,
    most: int,
    mesh: Mesh,
) -> Callable[[int], jax.stages.Lowered]:
    placed = sharded(mesh)

    def lower(images: int) -> jax.stages.Lowered:
        maps, rows = predict(images, one.size), images // how.copies
        ones = wanted([np.zeros(most, np.int32)], [(1, 1)], rows, maps.shape[-1])
        total = (*ones.channels.shape, *one.canvas)
        sizes = jax.ShapeDtypeStruct((rows, 2), jnp.int32)
        return add_scale.lower(
            jax.ShapeDtypeStruct(total, jnp.float32, sharding=placed),
            jax.ShapeDtypeStruct(maps.shape, maps.dtype, sharding=placed),
            sizes,
            sizes,
            jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), ones),
            copies=how.copies,
            padded=one.size,
            upsample=how.upsample,
            relu_each=how.relu_each,
        )

    return lower


def size_remarks(size: SplitSize | None) -> tuple[str, ...]:
    """Returns what is assumed about the sizes of images."""
    if size is not None and size.image_sizes:
        return ()
    return (f"images of {ASSUMED_SIZE[0]} x {ASSUMED_SIZE[1]} (assumed)",)


def _lowering(
    jitted: Any, weights: Mapping[str, Any], size: Size
) -> Callable[[int], jax.stages.Lowered]:
    def lower(images: int) -> jax.stages.Lowered:
        shape = (images, *size)
        return jitted.lower(
            weights,
            jax.ShapeDtypeStruct((*shape, 3), jnp.uint8),
            jax.ShapeDtypeStruct(shape, jnp.bool_),
        )

    return lower
