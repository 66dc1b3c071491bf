"""Batches for training: shuffled, augmented, the same for any number of processes.

The chain is source -> shuffle -> repeat -> augment -> this process's share -> batch -> threads.
Every example draws its augmentation from its position in the stream, before the stream is divided,
so 1, 2 and 4 processes see the same global batches; the iterator's state is a position, so a
resumed run goes on with the same bytes.
"""

import dataclasses
from typing import Any

import grain
import numpy as np

from wsss_jax.data.augment import Augment
from wsss_jax.data.images import decode_image, decode_mask
from wsss_jax.data.source import Source
from wsss_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Example(grain.transforms.RandomMap):
    """Reads, decodes and augments one record."""

    source: Source
    augment: Augment
    segmentation: bool

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        record = self.source[element]
        image = decode_image(record["image"], record["id"])
        mask = None
        if self.segmentation:
            if record["segmentation"] is None:
                raise UserError(
                    f"expected a mask for every image, found none for {record['id']}: add it, or"
                    " leave the image out of the split"
                )
            classes = len(self.source.classes)
            mask = decode_mask(record["segmentation"], record["id"], classes)
            if mask.shape != image.shape[:2]:
                raise UserError(
                    f"expected the mask of {record['id']} in the image's size"
                    f" {image.shape[:2]} (height, width), found {mask.shape}: make it anew"
                )
        crop, valid, mask_crop = self.augment(image, mask, rng)
        example = {
            "image": crop,
            "valid": valid,
            "label": np.asarray(record["label"], np.float32),
            "index": np.int32(element),
        }
        if mask_crop is not None:
            example["segmentation"] = mask_crop
        return example  # pyright: ignore


def training_batches(
    source: Source,
    *,
    batch_size: int,
    augment: Augment,
    seed: int,
    epochs: int | None = None,
    steps: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    segmentation: bool = False,
    num_threads: int = 2,
    prefetch: int = 4,
    workers: int = 0,
) -> grain.DatasetIterator:
    """This process's part of every global batch, as an iterator that can be checkpointed.

    Row r of a global batch is on process r % `process_count`. Every epoch is shuffled anew; batches
    run across the border of two epochs and only the last, incomplete one is dropped. With neither
    `epochs` nor `steps` the stream never ends. State: `get_state`, `set_state`, or
    `grain.checkpoint.CheckpointSave` in an Orbax composite; it fits the same arguments only, and
    `workers` must be the same too.

    Args:
      source: the records.
      batch_size: images of all processes together.
      augment: what happens to an image, and the crop's size S.
      seed: of shuffling and augmentation.
      epochs: passes over the source.
      steps: batches; exclusive with `epochs`.
      process_index: this process.
      process_count: all processes.
      segmentation: yield masks too.
      num_threads: threads that decode and augment; 0 works in the caller's thread.
      prefetch: batches kept ready.
      workers: processes of their own instead of threads of this one. They need parsed absl flags.

    Returns:
      An iterator of dicts: image uint8 [b, S, S, 3], valid bool [b, S, S], label float32 [b, C],
      index int32 [b], and segmentation uint8 [b, S, S] where asked for; b = `batch_size` /
      `process_count`.

    Raises:
      UserError: the source is empty or smaller than a batch, or the batch does not divide among
        the processes.
    """
    _check(len(source), batch_size, process_count, epochs, steps)
    dataset: Any = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(epochs)
    if steps is not None:
        dataset = dataset[: steps * batch_size]
    dataset = dataset.random_map(_Example(source, augment, segmentation))
    dataset = dataset[process_index::process_count]
    dataset = dataset.batch(batch_size // process_count, drop_remainder=True)
    # The default buffer keeps 500 elements, here whole batches: over a gigabyte.
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads)
    )
    dataset = dataset.to_iter_dataset(options)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return dataset.__iter__()


def _check(
    size: int, batch_size: int, process_count: int, epochs: int | None, steps: int | None
) -> None:
    if epochs is not None and steps is not None:
        raise ValueError("give epochs or steps, not both")
    if size == 0:
        raise UserError("expected images to train on, found an empty split: choose another split")
    if not 1 <= batch_size <= size:
        raise UserError(
            f"expected a batch size of 1 to {size} (the images of the split), found {batch_size}:"
            " change batch_size"
        )
    if batch_size % process_count:
        raise UserError(
            f"expected a batch size divisible by the {process_count} processes, found"
            f" {batch_size}: change batch_size"
        )
