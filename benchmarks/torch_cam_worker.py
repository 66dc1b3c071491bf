"""Maps of photographs in PyTorch: the other side of `cam_inference`.

``python torch_cam_worker.py FOLDER`` is run by an interpreter that has PyTorch and Pillow, after
`cam_worker` has left ``twin.json``, ``weights.npz`` and ``images.json`` in the folder. Each image
is run alone with its flipped copy, at its exact size. Threads decode and resize the next images
and write the maps before.
"""

import json
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from PIL import Image

from benchmarks import torch_worker, worker
from wsss_jax.host.host_memory import keep_freed_memory

_EPSILON = 1e-5


def prepare(path: str, scales: list[float]) -> tuple[tuple[int, int], list[Any]]:
    """The size of an image, and the image at every scale as uint8 [1, 3, h, w]."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    found = []
    for scale in scales:
        size = round(width * scale), round(height * scale)
        scaled = image if scale == 1 else image.resize(size, Image.Resampling.BICUBIC)
        # A transposed view of [1, h, w, 3] is channels-last as it is.
        found.append(torch.from_numpy(np.array(scaled)[None]).permute(0, 3, 1, 2))
    return (height, width), found


def finish(maps: list[Any], scaled: list[tuple[int, int]], size: Any, twin: Any, path: Path, keys):
    """Upsamples, sums, normalizes and writes the maps of one image."""
    total: Any = 0
    for one, middle in zip(maps, scaled, strict=True):
        if twin["upsample"] == "corners":
            one = F.interpolate(one, middle, mode="bilinear", align_corners=True)
        full = F.interpolate(one, size, mode="bilinear", align_corners=False)
        if twin["relu_each"]:
            full = F.relu(full, inplace=True)
        total = total + full[0]
        if twin["flip"]:
            total = total + full[1].flip(-1)
    cam = F.relu(total)
    high = cam.amax((1, 2), keepdim=True)
    if twin["normalize"] == "max":
        cam = cam / (high + _EPSILON)
    else:
        low = cam.amin((1, 2), keepdim=True)
        cam = F.relu(cam - low - _EPSILON) / (high - low + _EPSILON)
    with open(path, "wb") as file:
        keys = np.array(keys, np.int32)
        np.savez_compressed(file, keys=keys, cam=cam.numpy().astype(np.float16))


def main() -> None:
    folder = Path(sys.argv[1])
    spec, twin, images = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("spec", "twin", "images")
    )
    torch.set_num_threads(spec["threads"])
    keep_freed_memory()
    network = torch_worker.load(folder, twin).eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(scaled: list[Any], keys: list[int]) -> list[Any]:
        found = []
        for image in scaled:
            x = (image.float() - network.pixel_mean) / network.pixel_std
            x = torch.cat([x, x.flip(-1)]) if twin["flip"] else x
            x = x.contiguous(memory_format=torch.channels_last)
            found.append(network.fc8(network.backbone(x)[-1])[:, keys])
        return found

    @torch.inference_mode()
    def written(*arguments: Any) -> None:
        finish(*arguments)

    def do(positions: range, out: Path) -> None:
        (out / "cams").mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(spec["threads"]) as readers, ThreadPoolExecutor(1) as writers:
            ahead: deque[Future[Any]] = deque()
            waiting: deque[Future[Any]] = deque()
            following = iter(positions)
            for position in positions:
                while len(ahead) <= spec["threads"] and (new := next(following, None)) is not None:
                    ahead.append(readers.submit(prepare, images[new]["path"], twin["scales"]))
                size, scaled = ahead.popleft().result()
                keys = images[position]["keys"]
                maps = run(scaled, keys)
                sizes = [tuple(one.shape[2:]) for one in scaled]
                path = out / "cams" / f"{Path(images[position]['path']).stem}.npz"
                waiting.append(writers.submit(written, maps, sizes, size, twin, path, keys))
                while len(waiting) > 2:
                    waiting.popleft().result()
            for one in waiting:
                one.result()

    worker.serve_images(do, folder / "theirs")


if __name__ == "__main__":
    main()
