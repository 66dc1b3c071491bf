"""Maps of photographs by the infer_cam stage of a recipe: one side of `cam_inference`.

``python cam_worker.py FOLDER`` reads ``spec.json``, which `cam_inference` writes. Before the first
image it leaves what the other side needs: ``weights.npz`` under PyTorch's names, ``twin.json`` and
``images.json``. Each line says how many of the next images to do.
"""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import jax_worker, training, worker
from wsss_jax.data.source import Record
from wsss_jax.files import write_json
from wsss_jax.host.host_memory import share_one_heap
from wsss_jax.inference.network import load_network
from wsss_jax.methods.variables import init_variables
from wsss_jax.pipeline.config import load_config
from wsss_jax.progress import Progress
from wsss_jax.stages.base import Stage
from wsss_jax.stages.infer_cam import InferCam
from wsss_jax.stages.per_image import run_on_images
from wsss_jax.weights.npz import save_weights


class Photographs:
    """The photographs of a folder, with one class or two each, which are drawn by chance."""

    classes = tuple(f"class_{i}" for i in range(training.NUM_CLASSES))
    digest = "photographs"

    def __init__(self, folder: Path, count: int):
        paths = sorted(folder.glob("*.jpg"))
        # Those of a list lie anywhere in the folder, so that their sizes are mixed.
        drawn = np.random.default_rng(0).permutation(len(paths))[:count]
        self.paths = [paths[i] for i in sorted(drawn)]
        self.ids = [path.stem for path in self.paths]
        self.sizes = [cv2.imread(str(path)).shape[:2] for path in self.paths]  # pyright: ignore[reportOptionalMemberAccess]
        rng = np.random.default_rng(1)
        self.labels = np.zeros((len(self.ids), len(self.classes)), np.float32)
        for row, number in zip(self.labels, rng.integers(1, 3, len(self.ids)), strict=True):
            row[rng.choice(len(row), number, replace=False)] = 1

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        return Record(
            id=self.ids[index],
            image=self.paths[index].read_bytes(),
            size=self.sizes[index],
            label=self.labels[index],
            segmentation=None,
        )


def stage_of(recipe: str) -> InferCam:
    """The first stage of a recipe that makes maps."""
    config: Any = load_config(recipe)
    name = next(name for name in config.stages if config[name].type == "infer_cam")
    stage = Stage.from_config(config[name], name)
    assert isinstance(stage, InferCam)
    return stage


def main() -> None:
    share_one_heap()  # as `wsss_jax.main` does, before JAX starts its threads
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "spec.json").read_text())
    source, stage = Photographs(Path(spec["images"]), spec["count"]), stage_of(spec["recipe"])
    method = training.method_of(spec["recipe"], training.Options())
    params, variables = init_variables(method, 0)
    jax_worker.export_weights(folder, method, {"params": params, **variables})
    checkpoint = folder / "checkpoint"
    save_weights(checkpoint / "weights.npz", params, variables)
    described = training.described(method)
    sections = {part: {"name": one["name"], **one["fields"]} for part, one in described.items()}
    sections["method"].pop("num_classes", None)
    sections["backbone"].pop("dtype", None)
    section = {**sections["method"], "backbone": sections["backbone"]}
    write_json(checkpoint / "config.json", {"method": section})
    settings = {name: getattr(stage, name) for name in ("scales", "flip", "upsample", "relu_each")}
    twin = {**described, "num_classes": training.NUM_CLASSES, **settings}
    (folder / "twin.json").write_text(json.dumps({**twin, "normalize": stage.normalize}))
    images = [
        {"path": str(path), "keys": np.flatnonzero(label).tolist()}
        for path, label in zip(source.paths, source.labels, strict=True)
    ]
    (folder / "images.json").write_text(json.dumps(images))
    network = load_network(checkpoint, len(source.classes), stage.output)
    maps = stage.maps(source, network)
    work = stage.work(source, maps)

    def do(positions: range, out: Path) -> None:
        progress = {"label": "maps", "enabled": False}
        run_on_images(source.ids, out, positions, work, lambda **a: Progress(**a, **progress))

    worker.serve_images(do, folder / "ours", {"padding": maps.plan.padding()})


if __name__ == "__main__":
    main()
