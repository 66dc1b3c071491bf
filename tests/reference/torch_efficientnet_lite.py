"""Logits of EfficientNet-Lite by the PyTorch program that its published weights belong to.

    python tests/reference/torch_efficientnet_lite.py IN.npz OUT.npz

The Python needs torch and efficientnet-lite-pytorch. `IN.npz` has normalized images ``0``, ``1``
and ``2`` [b, h, w, 3] by variant, and the files ``file_0`` to ``file_2``; `OUT.npz` gets logits.
"""

import sys

import numpy as np


def main() -> None:
    import torch  # pyright: ignore[reportMissingImports]
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    with np.load(sys.argv[1]) as file:
        given = dict(file)
    logits = {}
    for variant in (name for name in given if name.isdigit()):
        network = EfficientNet.from_pretrained(
            f"efficientnet-lite{variant}", weights_path=str(given[f"file_{variant}"])
        )
        images = torch.from_numpy(given[variant].transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            logits[variant] = network.eval()(images).numpy()
    np.savez(sys.argv[2], **logits)


if __name__ == "__main__":
    main()
