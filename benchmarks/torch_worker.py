"""Training steps of a recipe in PyTorch, on command: the other side of `train_step`.

Started as ``python torch_worker.py FOLDER`` by an interpreter that has PyTorch; see `jax_worker`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch_methods import Cam, Seam  # pyright: ignore[reportMissingImports]
from worker import Step, keep_memory, serve  # pyright: ignore[reportMissingImports]


def parameter_groups(
    network: torch.nn.Module, rules: dict[str, dict[str, Any]], optimizer: dict[str, Any]
) -> list[dict[str, Any]]:
    """Groups as the recipe's method has them; frozen parameters lose their gradient."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        rule = rules[name.removeprefix("backbone.")]
        if rule["frozen"]:
            parameter.requires_grad_(False)
            continue
        decay = optimizer["weight_decay"] if rule["decay"] else 0.0
        groups.setdefault((optimizer["lr"] * rule["lr"], decay), []).append(parameter)
    return [
        {"params": params, "lr": lr, "weight_decay": decay}
        for (lr, decay), params in groups.items()
    ]


PLAIN: dict[str, Any] = {
    "use_pcm": True,
    "transform": "rescale",
    "max_rotation": 20.0,
    "max_translation": 15,
    "map_stride": 0,
    "dims": [64, 128, 192],
    "head_lr": 10.0,
}


def prepare(folder: Path, spec: dict[str, Any]) -> Step:
    """A function that does one step and returns its loss; weights and batch come from `folder`."""
    torch.set_num_threads(spec["threads"])
    if spec["keep_memory"]:
        keep_memory()
    method = dict(spec["method"])
    half = method.pop("dtype") == "bfloat16"
    # Written here for these values alone.
    for name, value in PLAIN.items():
        if name in method and method.pop(name) != value:
            raise ValueError(f"expected the method's {name} to be {value} beside PyTorch")
    network = {"cam": Cam, "seam": Seam}[method.pop("name")](spec["num_classes"], **method)
    with np.load(folder / "weights.npz") as file:
        weights = {name: torch.from_numpy(file[name]) for name in file.files}
    state = network.state_dict()
    for name in state:
        if not name.endswith("num_batches_tracked"):
            state[name] = weights.pop(name.removeprefix("backbone."))
    if weights:
        raise ValueError(f"weights without a place: {sorted(weights)}")
    network.load_state_dict(state)
    network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        parameter_groups(network, spec["rules"], spec["optimizer"]),
        lr=spec["optimizer"]["lr"],
        momentum=spec["optimizer"]["momentum"],
    )
    with np.load(folder / "batch.npz") as file:
        batch = {name: torch.from_numpy(file[name]) for name in file.files}
    # A transposed view of [b, h, w, c] is channels-last as it is.
    images = batch["image"].permute(0, 3, 1, 2)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = network.loss(images, batch["valid"], batch["label"])
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    serve(Path(sys.argv[1]), prepare, {"torch": torch.__version__})
