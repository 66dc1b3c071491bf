"""Writes a trained network as one file that runs with JAX, NumPy and flatbuffers alone.

The file is a zip archive that `numpy.load` reads: the weights as arrays ``weights/…``, the program
of `jax.export` in ``program.jaxexport``, the classes and their colors in ``about.json``, and how to
use them in ``README.txt``. Nothing in it is a pickle.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Bool, Float32, Int, UInt8

from wsss_jax.data.class_names import check_mask_classes
from wsss_jax.data.masks import IGNORE, VOC_PALETTE
from wsss_jax.errors import UserError
from wsss_jax.files import atomic_write, dump_json
from wsss_jax.host.normalization import normalized
from wsss_jax.host.provenance import git_revision, versions
from wsss_jax.inference.any_size import SumOfViews, sum_of_views
from wsss_jax.inference.network import read_network
from wsss_jax.pipeline.finished_run import Trained
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.predict import Predict

_WEIGHTS = "weights/"
_DATE = (1980, 1, 1, 0, 0, 0)  # Equal networks give equal files.

Weights = dict[str, Array]


def write_program(
    network: Trained[Predict] | Trained[InferCam],
    out: Path,
    platforms: tuple[str, ...],
    log: Callable[[str], None] = lambda _: None,
) -> None:
    """Writes the network, its pre-processing and its post-processing to a file.

    Args:
      network: the network; its settings state scales, flips and, of maps, their normalization.
      out: the file.
      platforms: the platforms on which the program shall run, in the words of JAX.
      log: a function that is told what the program leaves out.

    Raises:
      UserError: the network is missing or cannot become such a program.
    """
    how = network.settings
    masks = isinstance(how, Predict)
    output = "logits" if masks else how.output
    check_mask_classes(len(network.classes))
    method, weights = read_network(network.checkpoint, len(network.classes), output)
    summed = sum_of_views(method, output, how)
    flat: dict[str, Any] = traverse_util.flatten_dict(weights, sep="/")
    arrays = {_WEIGHTS + name: np.asarray(array) for name, array in sorted(flat.items())}
    inputs = _inputs(arrays, len(network.classes), masks)
    program = _segmentation(summed, len(how.scales) * how.copies) if masks else _maps(summed, how)
    try:
        exported = jax.export.export(jax.jit(program), platforms=platforms)(*inputs)
    except jax.errors.InconclusiveDimensionOperation as error:
        raise UserError(
            f"expected a network for images of any size in {network.checkpoint}, found one that"
            " asks for the number of pixels while it is compiled: use python -m wsss_jax.predict"
        ) from error
    if masks and how.crf:
        log("the dense CRF of the stage is left out; masks are those of --no-crf")
    about = {
        "classes": ["background", *network.classes],
        "palette": VOC_PALETTE[: len(network.classes) + 1].tolist(),
        "ignore": IGNORE,
        "scores": "probabilities" if masks else f"maps, normalized by {how.normalize}",
        "scales": list(how.scales),
        "flip": how.flip,
        "platforms": list(platforms),
        "parameters": sum(array.size for array in arrays.values()),
        "versions": versions(),
        "revision": git_revision(),
    }
    members = {
        "README.txt": _readme(masks, how.max_pixels).encode(),
        "about.json": dump_json(about).encode(),
        "program.jaxexport": bytes(exported.serialize()),
    }
    with atomic_write(out) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as one:
                np.lib.format.write_array(one, array, allow_pickle=False)


def _inputs(arrays: dict[str, np.ndarray], classes: int, masks: bool) -> tuple[Any, ...]:
    """Returns the shapes of a program's arguments, where those of the image are symbolic."""
    height, width = jax.export.symbolic_shape("height, width")
    weights = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in arrays.items()}
    image = jax.ShapeDtypeStruct((height, width, 3), jnp.uint8)
    size = jax.ShapeDtypeStruct((2,), jnp.int32)
    if masks:
        return weights, image, size
    labels = jax.ShapeDtypeStruct((classes,), jnp.bool_)
    return weights, image, size, labels, jax.ShapeDtypeStruct((), jnp.float32)


def _tree(weights: Weights) -> Any:
    named = {name.removeprefix(_WEIGHTS): array for name, array in weights.items()}
    return traverse_util.unflatten_dict(named, sep="/")


def _segmentation(summed: SumOfViews, views: int) -> Callable[..., tuple[Array, Array]]:
    """Returns the program of a segmentation network: a mask and probabilities."""

    def segment(
        weights: Weights, image: UInt8[Array, "h w 3"], size: Int[Array, "2"]
    ) -> tuple[UInt8[Array, "h w"], Float32[Array, "c1 h w"]]:
        total, inside = summed(_tree(weights), image, size)
        scores = jnp.where(inside, jax.nn.softmax(total / views, 0), 0)
        return _mask(total, inside), scores

    return segment


def _maps(summed: SumOfViews, how: InferCam) -> Callable[..., tuple[Array, Array]]:
    """Returns the program of activation maps: a mask and the maps of the classes of `labels`."""

    def maps(
        weights: Weights,
        image: UInt8[Array, "h w 3"],
        size: Int[Array, "2"],
        labels: Bool[Array, " c"],
        background: Float32[Array, ""],
    ) -> tuple[UInt8[Array, "h w"], Float32[Array, "c h w"]]:
        total, inside = summed(_tree(weights), image, size)
        shown = labels[:, None, None]
        scores = normalized(total, how.normalize, inside, jnp)
        scores = jnp.where(shown & inside, scores, 0)
        ground = jnp.broadcast_to(background, (1, *inside.shape))
        return _mask(jnp.concatenate([ground, jnp.where(shown, scores, -1)]), inside), scores

    return maps


def _mask(scores: Array, inside: Array) -> Array:
    return jnp.where(inside, scores.argmax(0), IGNORE).astype(jnp.uint8)


def _readme(masks: bool, max_pixels: int) -> str:
    """Returns the text that explains the file to those who get it."""
    more = "" if masks else ", labels, background"
    what = (
        "scores float32 [classes, height, width], the probabilities of all classes"
        if masks
        else "scores float32 [classes - 1, height, width], the activation maps, 0 to 1"
    )
    inputs = (
        ""
        if masks
        else """
  labels      bool [classes - 1], which classes the image shows
  background  float32, the score of the background, such as 0.25"""
    )
    return f"""A trained network, written by wsss_jax. It runs with

    pip install jax numpy flatbuffers

    import json, numpy, jax
    file = numpy.load("THIS FILE")
    about = json.loads(file["about.json"])  # classes, palette, settings
    program = jax.export.deserialize(bytearray(file["program.jaxexport"]))
    weights = {{name: file[name] for name in file.files if name.startswith("weights/")}}
    run = jax.jit(program.call)
    mask, scores = run(weights, image, numpy.int32(image.shape[:2]){more})

(with `import jax.export` before). Its arguments are

  image       uint8 [height, width, 3], RGB, of any size
  size        int32 [2], the height and width of the top left part of it that counts{inputs}

and its results, at the size of the image,

  mask        uint8 [height, width], numbers of classes; 0 is the background, 255 is beyond `size`
  {what}

Every new shape of an image is compiled, which takes seconds. Images of many sizes need few
programs if they are padded, at the bottom and on the right, to multiples of 128, for example;
`size` says what counts, and results do not depend on the padding. Memory grows with the image:
make photographs of more than {max_pixels:,} pixels smaller first.

JAX reads such a program for at least six months after the version that wrote it (about.json).
"""
