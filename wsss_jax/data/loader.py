"""Makes shuffled and augmented training batches, the same for any number of processes.

The chain is positions -> shuffle -> repeat -> a seed for each -> batch -> load -> threads. Batches
of positions and seeds are cheap, so every process makes the whole batch but only loads its own
rows. Any number of processes thus has the same global batches. The state of the iterator is a
number of batches, and a resumed run continues with the same bytes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import grain
import numpy as np

from wsss_jax.data.augment import Augment, Placement, sampled
from wsss_jax.data.batch_spec import BatchSpec
from wsss_jax.data.images import decode_image
from wsss_jax.data.source import Record, Source
from wsss_jax.errors import UserError

CropTarget = Callable[[Record, Placement], np.ndarray]
"""A function that reads the targets of a record's pixels and cuts them to what the crop shows of
the image. `BatchSpec.shapes` describes the result by its key."""


def _with_seed(index: int, rng: np.random.Generator) -> dict[str, np.integer]:
    return {"index": np.int32(index), "seed": rng.integers(2**63)}


@dataclasses.dataclass(frozen=True)
class _Load(grain.transforms.Map):
    """Reads, decodes and augments `rows` of a batch of positions and seeds."""

    source: Source
    augment: Augment
    spec: BatchSpec
    targets: Mapping[str, CropTarget]
    rows: slice

    def map(self, element: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns this process's part of the batch."""
        index, seeds = element["index"][self.rows], element["seed"][self.rows]
        examples = [self._load(int(i), int(seed)) for i, seed in zip(index, seeds, strict=True)]
        return {name: np.stack([e[name] for e in examples]) for name in examples[0]}

    def _load(self, index: int, seed: int) -> dict[str, Any]:
        record = self.source[index]
        image = decode_image(record["image"], record["id"])
        rng = np.random.default_rng(seed)
        placement = self.augment.place((image.shape[0], image.shape[1]), rng)
        part, sample = placement.part(image), sampled(image)
        crop, valid = placement.paste(self.augment.recolor(part, sample, rng))
        example = {
            "image": crop,
            "valid": valid,
            "label": np.asarray(record["label"], np.float32),
            "index": np.int32(index),
        }
        for key, target in self.targets.items():
            example[key] = target(record, placement)
        # They have their own generators, so the first view is the same with and without them.
        strong_rng, local_rng = rng.spawn(2)
        if self.spec.strong is not None:
            view = self.spec.strong(part, sample, strong_rng)
            example["image_strong"], _ = placement.paste(view)
        if self.spec.local_crops is not None:
            views, views_valid, boxes = self.spec.local_crops(
                crop, placement.to_rows, placement.to_cols, local_rng
            )
            example["local_image"], example["local_valid"] = views, views_valid
            example["local_box"] = boxes.astype(np.float32)
        return example


def training_batches(
    source: Source,
    *,
    batch_size: int,
    augment: Augment,
    seed: int,
    spec: BatchSpec | None = None,
    targets: Mapping[str, CropTarget] | None = None,
    steps: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    prefetch: int = 4,
) -> grain.DatasetIterator:
    """Returns this process's part of every global batch, as an iterator that has checkpoints.

    Process p has the rows p·b to (p + 1)·b of the global batch, with b = `batch_size` /
    `process_count`, so the parts in order are the batch that a single process would have. Every
    epoch is shuffled differently, and a batch can extend over two of them.

    The state (`get_state` and `set_state`, or `grain.checkpoint.CheckpointSave` in an Orbax
    composite) fits an iterator with the same arguments, where the numbers of processes, threads and
    prefetched batches can differ.

    Args:
      source: the records.
      batch_size: the number of images of all processes together.
      augment: the changes of an image, and the size S of the crop.
      seed: the seed of shuffling and augmentation.
      spec: what the batches have besides images and labels, by default nothing.
      targets: the functions that make the arrays of `spec` that come from files, by their keys.
      steps: the number of batches; None never ends.
      process_index: the index of this process.
      process_count: the number of processes.
      num_threads: the number of threads that decode and augment; 0 uses the caller's thread.
      prefetch: the number of batches that are kept ready.

    Returns:
      An iterator of dicts of arrays; see `BatchSpec.shapes`.

    Raises:
      UserError: the source is empty or smaller than a batch, the batch size is not a multiple of
        the number of processes, or the crop does not fit `spec`.
      ValueError: `targets` are not those that `spec` needs.
    """
    spec, targets = spec or BatchSpec(), targets or {}
    spec.shapes(batch_size, augment.crop, len(source.classes))  # refuses a crop that does not fit
    if set(targets) != set(spec.targets):
        raise ValueError(f"expected the targets {spec.targets}, found {tuple(targets)}")
    _check(len(source), batch_size, process_count)
    share = batch_size // process_count
    rows = slice(process_index * share, (process_index + 1) * share)
    dataset: Any = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    if steps is not None:
        dataset = dataset[: steps * batch_size]
    # A seed belongs to a position in the stream. If seeds were drawn after the batch is sharded,
    # all processes would draw the same ones.
    dataset = dataset.random_map(_with_seed).batch(batch_size, drop_remainder=True)
    dataset = dataset.map(_Load(source, augment, spec, targets, rows))
    # The default buffer keeps 500 elements, which are whole batches here, over a gigabyte.
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads)
    )
    return dataset.to_iter_dataset(options).__iter__()


def check_batch_size(batch_size: int, images: int) -> None:
    """Raises UserError if a split with this number of images does not fill a batch."""
    if not 1 <= batch_size <= images:
        raise UserError(
            f"expected a batch size of 1 to {images} (the images of the split), found {batch_size}:"
            " lower batch_size, in every training, as the command that `wsss_jax.prepare folder`"
            " prints does"
        )


def _check(size: int, batch_size: int, process_count: int) -> None:
    if size == 0:
        raise UserError("expected images to train on, found an empty split: choose another split")
    check_batch_size(batch_size, size)
    if batch_size % process_count:
        raise UserError(
            f"expected a batch size divisible by the {process_count} processes, found"
            f" {batch_size}: change batch_size"
        )
