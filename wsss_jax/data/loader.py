"""Batches for training: shuffled, augmented, the same for any number of processes.

The chain is positions -> shuffle -> repeat -> a seed for each -> batch -> load -> threads. Batches
of positions and seeds are cheap, so every process makes the whole one and loads only its own rows:
1, 2 and 4 processes see the same global batches. The iterator's state is a number of batches, and a
resumed run goes on with the same bytes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import grain
import numpy as np
from jaxtyping import UInt8

from wsss_jax.data.augment import Augment, Placement
from wsss_jax.data.images import decode_image, decode_mask
from wsss_jax.data.source import Record, Source
from wsss_jax.errors import UserError

CropLabels = Callable[[str, tuple[int, int], Placement], dict[str, np.ndarray]]
"""What else a batch has, given an image's id, its size and what of it the crop shows."""


def _with_seed(index: int, rng: np.random.Generator) -> dict[str, np.integer]:
    return {"index": np.int32(index), "seed": rng.integers(2**63)}


@dataclasses.dataclass(frozen=True)
class _Load(grain.transforms.Map):
    """Reads, decodes and augments `rows` of a batch of positions and seeds."""

    source: Source
    augment: Augment
    segmentation: bool
    labels: CropLabels | None
    rows: slice

    def map(self, element: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns this process's part of the batch."""
        index, seeds = element["index"][self.rows], element["seed"][self.rows]
        examples = [self._load(int(i), int(seed)) for i, seed in zip(index, seeds, strict=True)]
        batch = {name: np.stack([e[name] for e in examples]) for name in examples[0]}
        return {**batch, "index": index}

    def _load(self, index: int, seed: int) -> dict[str, np.ndarray]:
        record = self.source[index]
        image = decode_image(record["image"], record["id"])
        size, rng = (image.shape[0], image.shape[1]), np.random.default_rng(seed)
        placement = self.augment.place(size, rng)
        crop, valid = self.augment.picture(image, placement, rng)
        label = np.asarray(record["label"], np.float32)
        example = {"image": crop, "valid": valid, "label": label}
        if self.segmentation:
            example["segmentation"] = placement.mask(self._mask(record, size))
        if self.labels is not None:
            example |= self.labels(record["id"], size, placement)
        return example

    def _mask(self, record: Record, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
        if record["segmentation"] is None:
            raise UserError(
                f"expected a mask for every image, found none for {record['id']}: add it, or leave"
                " the image out of the split"
            )
        mask = decode_mask(record["segmentation"], record["id"], len(self.source.classes))
        if mask.shape != size:
            raise UserError(
                f"expected the mask of {record['id']} in the image's height and width, {size},"
                f" found {mask.shape}: make the mask anew"
            )
        return mask


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
    labels: CropLabels | None = None,
    num_threads: int = 2,
    prefetch: int = 4,
    workers: int = 0,
) -> grain.DatasetIterator:
    """This process's part of every global batch, as an iterator that can be checkpointed.

    Process p has rows p·b to (p + 1)·b of the global batch, b = `batch_size` / `process_count`: the
    parts in order are the batch that a single process would have. Every epoch is shuffled anew;
    batches run across the border of two epochs, and only a last, incomplete one is dropped. With
    neither `epochs` nor `steps` the stream never ends.

    The state (`get_state` and `set_state`, or `grain.checkpoint.CheckpointSave` in an Orbax
    composite) fits an iterator made with the same arguments; the numbers of processes, threads and
    prefetched batches may differ, `workers` may not.

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
      labels: called for every image; what it returns is in the batch, stacked.
      num_threads: threads that decode and augment; 0 works in the caller's thread.
      prefetch: batches kept ready.
      workers: processes that load instead of this one, each with `num_threads`; absl flags must
        be parsed. Threads were faster wherever measured.

    Returns:
      An iterator of dicts: image uint8 [b, S, S, 3], valid bool [b, S, S], label float32 [b, C],
      index int32 [b], and segmentation uint8 [b, S, S] and `labels` where asked for.

    Raises:
      UserError: the source is empty or smaller than a batch, or the batch does not divide among
        the processes.
    """
    _check(len(source), batch_size, process_count, epochs, steps)
    share = batch_size // process_count
    rows = slice(process_index * share, (process_index + 1) * share)
    dataset: Any = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(epochs)
    if steps is not None:
        dataset = dataset[: steps * batch_size]
    # A seed belongs to a position in the stream; drawn after the batch is divided among processes,
    # all of them would draw the same.
    dataset = dataset.random_map(_with_seed).batch(batch_size, drop_remainder=True)
    dataset = dataset.map(_Load(source, augment, segmentation, labels, rows))
    # The default buffer keeps 500 elements, here whole batches: over a gigabyte.
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads)
    )
    dataset = dataset.to_iter_dataset(options)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return dataset.__iter__()


def check_batch_size(batch_size: int, images: int) -> None:
    """Raises UserError where a split of so many images has no whole batch."""
    if not 1 <= batch_size <= images:
        raise UserError(
            f"expected a batch size of 1 to {images} (the images of the split), found {batch_size}:"
            " change batch_size"
        )


def _check(
    size: int, batch_size: int, process_count: int, epochs: int | None, steps: int | None
) -> None:
    if epochs is not None and steps is not None:
        raise ValueError("give epochs or steps, not both")
    if size == 0:
        raise UserError("expected images to train on, found an empty split: choose another split")
    check_batch_size(batch_size, size)
    if batch_size % process_count:
        raise UserError(
            f"expected a batch size divisible by the {process_count} processes, found"
            f" {batch_size}: change batch_size"
        )
