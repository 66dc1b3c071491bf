"""Arrays whose names differ in numbers share a line."""

import numpy as np

from wsss_jax.weights.grouping import grouped


def test_lists_are_short_and_complete():
    wide, narrow = np.zeros((8, 4), np.float32), np.zeros(4, np.float32)
    arrays = {"stem.weight": wide, "scale": np.float16(1)}
    for block in (0, 1, 2, 5):
        arrays |= {f"blocks.{block}.norm1.{leaf}": narrow for leaf in ("weight", "bias")}
        arrays[f"blocks.{block}.mlp.weight"] = wide
    arrays["blocks.3.mlp.weight"] = np.zeros((9, 4), np.float32)  # of another shape
    arrays["layer2_1/kernel"] = wide
    lines = grouped(arrays)
    assert [" ".join(line.split()) for line in lines] == [
        "stem.weight 1 x 8 x 4 float32",
        "scale 1 x scalar float16",
        "blocks.{0-2,5}.norm1.{weight,bias} 8 x 4 float32",
        "blocks.{0-2,5}.mlp.weight 4 x 8 x 4 float32",
        "blocks.3.mlp.weight 1 x 9 x 4 float32",
        "layer2_1/kernel 1 x 8 x 4 float32",
    ]
    assert len({line.index("float") for line in lines}) == 1  # in columns
    counts = [int(line.split(" x ")[0].split()[-1]) for line in lines]
    assert sum(counts) == len(arrays)
    assert grouped({}) == []
