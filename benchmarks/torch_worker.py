"""Training steps of a recipe in PyTorch: the other side of `train_step`.

``python torch_worker.py FOLDER`` is run by an interpreter that has PyTorch, after `jax_worker` has
left ``twin.json``, ``weights.npz`` and ``batch.npz`` in the folder.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from benchmarks import worker
from benchmarks.torch_methods import METHODS
from benchmarks.torch_networks import BACKBONES
from wsss_jax.host.host_memory import keep_freed_memory


def parameter_groups(
    network: torch.nn.Module, rules: dict[str, dict[str, Any]], sgd: dict[str, float]
) -> list[dict[str, Any]]:
    """Groups as the recipe's method has them; frozen parameters lose their gradient."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        rule = rules[name.removeprefix("backbone.")]
        if rule["frozen"]:
            parameter.requires_grad_(False)
            continue
        decay = sgd["weight_decay"] if rule["decay"] else 0.0
        groups.setdefault((sgd["lr"] * rule["lr"], decay), []).append(parameter)
    return [
        {"params": params, "lr": lr, "weight_decay": decay}
        for (lr, decay), params in groups.items()
    ]


def build(twin: dict[str, Any]) -> Any:
    """The network that ``twin.json`` describes; exits where it is not written here."""
    parts = {"method": METHODS, "backbone": BACKBONES}
    for part, known in parts.items():
        if twin[part]["name"] not in known:
            names = ", ".join(known)
            sys.exit(f"expected a {part} among {names}, found {twin[part]['name']}")
    backbone, method = BACKBONES[twin["backbone"]["name"]], METHODS[twin["method"]["name"]]
    try:
        # Autocasting and the parameters' rules stand for what is named here.
        taps = backbone(**worker.twin_arguments(backbone, twin["backbone"], ("dtype",)))
        fields = worker.twin_arguments(method, twin["method"], ("dtype", "head_lr"))
    except ValueError as error:
        sys.exit(str(error))
    return method(twin["num_classes"], taps, **fields)


def load(folder: Path, twin: dict[str, Any]) -> Any:
    """The network with the weights of ``weights.npz``."""
    network = build(twin)
    with np.load(folder / "weights.npz") as file:
        weights = {name: torch.from_numpy(file[name]) for name in file.files}
    state = network.state_dict()
    for name in state:
        if not name.endswith("num_batches_tracked"):
            state[name] = weights.pop(name.removeprefix("backbone."))
    if weights:
        raise ValueError(f"weights without a place: {sorted(weights)}")
    network.load_state_dict(state)
    return network


def main() -> None:
    folder = Path(sys.argv[1])
    spec, twin = (json.loads((folder / f"{name}.json").read_text()) for name in ("spec", "twin"))
    torch.set_num_threads(spec["threads"])
    if spec["keep_memory"]:
        keep_freed_memory()
    network = load(folder, twin)
    network.train().to(memory_format=torch.channels_last)
    sgd = twin["optimizer"]
    if sgd["name"] != "sgd":
        sys.exit(f"expected a recipe with SGD, found {sgd['name']}: compare another recipe")
    optimizer = torch.optim.SGD(
        parameter_groups(network, twin["rules"], sgd), lr=sgd["lr"], momentum=sgd["momentum"]
    )
    with np.load(folder / "batch.npz") as file:
        batch = {name: torch.from_numpy(file[name]) for name in file.files}
    # A transposed view of [b, h, w, c] is channels-last as it is.
    images = batch["image"].permute(0, 3, 1, 2)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=twin["half"]):
            loss = network.loss(images, batch["valid"], batch["label"])
        loss.backward()
        optimizer.step()
        return loss.item()

    worker.serve_steps(step)


if __name__ == "__main__":
    main()
