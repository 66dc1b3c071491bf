"""Writes the checkpoints that the readers are tested with, in an environment that has PyTorch.

    python write_checkpoints.py FOLDER

Beside every checkpoint is the same as an ``.npz`` of NumPy: bfloat16 as ``name:bf16``, its bits as
uint16.
"""

import argparse
import collections
import pathlib
import sys
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]


def state_dict() -> dict[str, Any]:
    """Tensors of every type, shape and kind of view that checkpoints have."""
    torch.manual_seed(0)
    base = torch.randn(6, 5)
    tied = torch.randn(3, 4)
    return collections.OrderedDict(
        {
            "conv.weight": torch.randn(4, 3, 3, 3),
            "conv.bias": torch.nn.Parameter(torch.randn(4)),
            "bn.num_batches_tracked": torch.tensor(7),
            "part": base[1:4, 2:],
            "transposed": base.T,
            "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "tied.a": tied,
            "tied.b": tied,
            "empty": torch.zeros(0, 3),
            "scalar": torch.tensor(2.5),
            "row": torch.arange(5).expand(1, -1),
            "half": torch.randn(7).half(),
            "bfloat": torch.randn(7).bfloat16(),
            "double": torch.randn(3).double(),
            "bytes": torch.arange(5, dtype=torch.uint8),
            "chars": torch.arange(-2, 3, dtype=torch.int8),
            "shorts": torch.arange(5, dtype=torch.int16),
            "ints": torch.arange(5, dtype=torch.int32),
            "flags": torch.tensor([True, False, True]),
            "complex": torch.randn(3, dtype=torch.complex64),
            "unsigned": torch.arange(5).to(torch.uint16),
        }
    )


def training() -> dict[str, Any]:
    """A checkpoint of training: wrapped, with an optimizer, options and random states."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    return {
        "epoch": 3,
        "arch": "toy",
        "best_acc1": torch.tensor(76.1),
        "best": np.float64(76.1),
        "state_dict": {f"module.{name}": value for name, value in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "rng": torch.get_rng_state(),
        "numpy_rng": np.random.get_state(),
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), device=torch.device("cpu")),
        "dtype": torch.float32,
        "size": torch.Size([2, 3]),
        "sizes": collections.defaultdict(list, {"a": [1]}),
    }


def with_views() -> dict[str, Any]:
    """The older form writes parts of a storage as views of it."""
    base = torch.arange(20.0)
    return {"all": base, "part": base[3:9], "last": base[15:].reshape(5, 1)}


def saved_arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same tensors as NumPy's."""
    arrays = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        if tensor.dtype == torch.bfloat16:
            arrays[f"{name}:bf16"] = tensor.view(torch.int16).numpy().view(np.uint16)
        else:
            arrays[name] = tensor.numpy()
    return arrays


def main(folder: pathlib.Path) -> None:
    """Writes all checkpoints."""
    states, run, views = state_dict(), training(), with_views()
    unwrapped = {name.removeprefix("module."): v for name, v in run["state_dict"].items()}
    for name, value, tensors in (
        ("state", states, states),
        ("training", run, unwrapped),
        ("views", views, views),
    ):
        np.savez(folder / f"{name}.npz", allow_pickle=False, **saved_arrays(tensors))
        torch.save(value, folder / f"{name}_zip.pth")
        old = value
        if name == "state":  # the older form has no storage for these
            old = {key: tensor for key, tensor in states.items() if key != "unsigned"}
        torch.save(old, folder / f"{name}_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(states, folder / "state_protocol_4.pth", pickle_protocol=4)
    torch.save(torch.nn.Linear(2, 2), folder / "module.pth")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    network.add_module("last", torch.nn.Linear(2, 2).half())
    np.savez(folder / "script.npz", allow_pickle=False, **saved_arrays(network.state_dict()))
    torch.jit.save(torch.jit.script(network), folder / "script.pt")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
