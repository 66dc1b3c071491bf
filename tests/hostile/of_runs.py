"""What runs leave behind: records, stages, checkpoints, weights, figures and prepared records."""

import functools
import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from tests.hostile.kind import Files, Kind, collected, single
from tests.hostile.of_sources import mask, photograph
from tests.hostile.of_weights import ARCHIVES
from tests.test_records import CASES, Case
from tests.toys.records import FINISHED
from wsss_jax import digests
from wsss_jax.accelerators import programs
from wsss_jax.data.columns import sorted_positions
from wsss_jax.data.prepared import RecordBuilder, prepare
from wsss_jax.data.source import Record
from wsss_jax.errors import UserError
from wsss_jax.files import DONE, START, dump_json, write_json
from wsss_jax.pipeline.record import is_done
from wsss_jax.scoring.image_scores import read_image_scores
from wsss_jax.training.checkpoints import Checkpoints
from wsss_jax.training.metrics import log_digest, lost_rows, read_metrics
from wsss_jax.types import TrainState
from wsss_jax.weights.export_weights import read_trained
from wsss_jax.weights.npz import load_weights, save_weights

# Records.

_READ_WHOLE = ("start", "start's time", "done", "threshold", "memory", "prepared", "preparing")
_READ_WHOLE += ("reported", "results", "class names", "best weights")


def _record(name: str) -> Kind:
    case: Case = CASES[name]

    def read(path: Path) -> object:
        """Reads the record in a folder as its tests lay it out."""
        root = path.parents[case.path.count("/")]
        return case.read(root)

    return Kind(
        f"record: {name}",
        lambda: [{case.path: dump_json(case.whole).encode()}],
        read,
        share=0.2,
    )


# Lists of files, whose digests tell every change.


def _stage(folder: Path) -> None:
    (folder / "masks").mkdir()
    write_json(folder / START, {"parts": {}})
    with digests.FileList(folder) as noted:
        for name in ("a", "b"):
            (folder / "masks" / f"{name}.png").write_bytes(mask(1))
            noted.add([digests.found(folder, f"masks/{name}.png")])
    write_json(folder / "metrics.json", {"miou": 0.5, "classes": ["a", "b"]})
    np.savez(folder / "weights.npz", a=np.ones(3, np.float32))
    write_json(folder / DONE, {**FINISHED, "files": digests.seal(folder)})


def _network(folder: Path) -> None:
    """A training stage with its settings and weights."""
    write_json(folder / "config.json", {"method": {"name": "cam", "backbone": {"name": "tiny"}}})
    write_json(folder / START, {"parts": {}})
    save_weights(folder / "weights.npz", _PARAMS, _STATS)
    write_json(folder / DONE, {**FINISHED, "files": digests.seal(folder)})


def _read_network(path: Path) -> object:
    if not is_done(path.parent):
        raise UserError("expected a finished training, found none")
    backbone, arrays = read_trained(path.parent)
    return backbone, {name: one.tolist() for name, one in arrays.items()}


def _files_of(write: Callable[[Path], Any], first: str) -> Sequence[Files]:
    with tempfile.TemporaryDirectory() as folder:
        files = collected(write, Path(folder))
    return [{first: files[first], **files}]


def _check_stage(path: Path) -> object:
    """Returns the results of a stage, which are not what `_DONE.json` itself says."""
    folder = path.parent
    if not is_done(folder):
        raise UserError("expected a finished stage, found none")
    digests.check(folder)
    names = sorted(
        one.relative_to(folder).as_posix()
        for one in folder.rglob("*")
        if one.is_file() and one.name not in (DONE, START) and not one.name.startswith("_FILES")
    )
    return [(name, (folder / name).read_bytes()) for name in names]


# Checkpoints.


def _state(step: int) -> TrainState:
    params = {"a": {"kernel": jnp.full((8, 4), step, jnp.float32), "bias": jnp.zeros(4)}}
    return TrainState(
        step=jnp.int32(step),
        params=params,
        model_state={"batch_stats": {"mean": jnp.ones(4)}},
        extra={},
        opt_state=(jnp.float32(step), {"trace": params["a"]["kernel"]}),
        rng=jax.random.key(step),
    )


def _batches(position: int) -> Any:
    """An iterator of numbers, at a position."""
    batches = iter(grain.MapDataset.range(10).to_iter_dataset(grain.ReadOptions(num_threads=0)))
    for _ in range(position):
        next(batches)
    return batches


def _save(folder: Path) -> None:
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        for step in (2, 4):
            checkpoints.save(_state(step), _batches(step), {"rows": step, "digest": "0"})
            checkpoints.wait()


@functools.cache
def _checkpoints() -> Sequence[Files]:
    with tempfile.TemporaryDirectory() as folder:
        files = collected(_save, Path(folder))
    newest = {name: data for name, data in files.items() if name.startswith("checkpoints/4/")}
    return [{**newest, **files}]


def _restore(path: Path) -> object:
    """Returns one of the two states that were saved, whichever is whole."""
    folder = path.parents[len(path.parts) - 1 - path.parts.index("checkpoints") - 1]
    batches = _batches(0)
    said: list[str] = []
    with closing(Checkpoints(folder)) as checkpoints:
        found = checkpoints.restore(_state(0), batches, said.append)
        if found is None:
            raise UserError("there is no checkpoint")
        step = int(found.step)
        log = checkpoints.log_of(step)
    plain = found.replace(rng=jax.random.key_data(found.rng))  # pyright: ignore
    expected = _state(step).replace(rng=jax.random.key_data(jax.random.key(step)))  # pyright: ignore
    pairs = zip(jax.tree.leaves(plain), jax.tree.leaves(expected), strict=True)
    same = all(np.array_equal(a, b) for a, b in pairs)
    whole = same and next(batches) == step and log == {"rows": step, "digest": "0"}
    if step == 2 and not said:
        return "the older checkpoint is taken in silence"
    return "one of the two" if whole and step in (2, 4) else f"another state of {step}"


# Weights of runs.

_PARAMS = {"a": {"kernel": np.ones((3, 2), np.float32), "bias": np.zeros(2, np.float32)}}
_STATS = {"batch_stats": {"mean": np.ones(2, np.float32)}}


@functools.cache
def _weights() -> Sequence[Files]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        save_weights(path, _PARAMS, _STATS)
        return single("weights.npz", path.read_bytes())


def _load(path: Path) -> object:
    params, variables = load_weights(path, _PARAMS, _STATS)
    return jax.tree.map(lambda one: one.tolist(), (params, variables))


def same_names(rng: np.random.Generator) -> bytes:
    """The right names, with arrays of other shapes and types, or of zeros that were compressed."""
    odd = (
        *(np.ones((3, 2), np.float64), np.ones((3, 2), np.complex64), np.ones((3, 2), np.int8)),
        *(np.full((3, 2), np.nan, np.float32), np.ones((3, 2), "U4"), np.zeros((0, 2), np.float32)),
        *(np.ones((3, 2), bool), np.zeros((), np.float32), np.ones((3, 2), "S4")),
    )
    arrays: dict[str, Any] = {
        "params/a/kernel": odd[int(rng.integers(len(odd)))],
        "params/a/bias": np.zeros(2, np.float32),
        "batch_stats/mean": np.ones(2, np.float32),
    }
    if rng.random() < 0.3:
        return _compressed_zeros(int(rng.choice([10**6, 10**7, 2 * 10**8], p=[0.6, 0.38, 0.02])))
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@functools.cache
def _compressed_zeros(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        info = zipfile.ZipInfo("params/a/kernel.npy")
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as entry:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(entry, header)
            for _ in range(4 * count // 10**6):
                entry.write(bytes(10**6))
    return file.getvalue()


# Figures.


@functools.cache
def _figures() -> Sequence[Files]:
    rows = [{"step": i, "loss": 1 / (i + 1), "val/miou": None} for i in range(8)]
    return single("metrics.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))


@functools.cache
def _log_of_figures() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "metrics.jsonl").write_bytes(_figures()[0]["metrics.jsonl"])
        return log_digest(folder, 7)


def _read_figures(path: Path) -> object:
    """Returns the figures, or tells that they have changed."""
    found = read_metrics(path.parent, 7)
    if lost := lost_rows(path.parent, 7, _log_of_figures()):
        raise UserError(" ".join(lost))
    return found


def odd_rows(rng: np.random.Generator) -> bytes:
    """Rows of other types, and numbers that are too large."""
    rows = (
        *(b'{"step": 1e3}', b'{"step": 1, "loss": 1e999}', b'{"step": 1, "loss": NaN}', b"[1]"),
        *(b'{"step": true}', b'{"step": -1}', b'{"step": 1' + b"0" * 5000 + b"}", b'{"a": 1}'),
        *(b'{"step": 3, "a": {"b": 1}}', b"[" * 50_000, b'{"step": 9' + b"9" * 300 + b"}", b"\xff"),
    )
    return b"\n".join(rows[int(i)] for i in rng.integers(len(rows), size=5)) + b"\n"


@functools.cache
def _image_scores() -> Sequence[Files]:
    by_line = b'{\n  "a": 0.5,\n  "b": 0.25,\n  "c": 1.0\n}\n'
    return single("per_image.json", by_line, json.dumps({"a": 0.5, "c": 1.0}).encode())


def odd_scores(rng: np.random.Generator) -> bytes:
    """Values of other types, and numbers that are too large."""
    values = ("1" + "0" * 400, "NaN", "Infinity", '"1"', "[1]", "null", "true", "-5", "1e999", "{}")
    value = str(rng.choice([*values, "[" * 50_000, "9" * 5000]))
    between = str(rng.choice(["{\n", "{"]))
    return f'{between}"a": {value},\n"b": 0.5\n}}\n'.encode()


def _read_scores(path: Path) -> object:
    ids = ["c", "a", "b"]
    return read_image_scores(path.parent, ids, sorted_positions(ids)).tolist()


def _read_cost(path: Path) -> object:
    return programs._kept(path)


def _costs() -> Sequence[Files]:
    return single("cost.json", b'{"needed": 5}', b'{"needed": null}')


# Prepared records.


class Few(RecordBuilder, skip_registration=True):
    """Three photographs with masks."""

    def records(self, positions: range) -> Iterator[Record]:
        for position in positions:
            yield Record(
                id=self.ids[position],
                image=photograph(position),
                size=(12, 20),
                label=np.array([1, position % 2], np.float32),
                segmentation=mask(1),
            )


def _prepare(folder: Path) -> object:
    builder = Few(
        folder=folder,
        split="train",
        fingerprint="ab" * 20,
        ids=("a", "b", "c"),
        classes=("cat", "dog"),
        masks=True,
    )
    source = prepare(builder)
    records: list[Mapping[str, Any]] = [source[i] for i in range(3)]
    parts = [(*record.values(), record["label"].tolist()) for record in records]
    return hashlib.sha256(repr((parts, source.digest, source.classes)).encode()).hexdigest()


@functools.cache
def _prepared() -> Sequence[Files]:
    with tempfile.TemporaryDirectory() as folder:
        files = collected(_prepare, Path(folder) / "prepared")
    return [{name: data for name, data in files.items() if not name.endswith(".lock")}]


def _open_prepared(path: Path) -> object:
    folder = path
    while folder.name != "few":
        folder = folder.parent
    return _prepare(folder.parent)


KINDS = (
    *map(_record, _READ_WHOLE),
    Kind(
        "network of a run", lambda: _files_of(_network, "config.json"), _read_network, sealed=True
    ),
    Kind("files of a stage", lambda: _files_of(_stage, DONE), _check_stage, sealed=True),
    Kind("checkpoints", _checkpoints, _restore, sealed=True, share=0.1),
    Kind("weights of a run", _weights, _load, (*ARCHIVES, same_names, same_names), sealed=True),
    Kind("figures (metrics.jsonl)", _figures, _read_figures, (odd_rows,), sealed=True, share=0.5),
    Kind("scores of images", _image_scores, _read_scores, (odd_scores,), share=0.5),
    Kind("costs of programs", _costs, _read_cost, share=0.2),
    Kind("prepared records", _prepared, _open_prepared, sealed=True, share=0.1),
)
