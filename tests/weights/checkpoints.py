"""What tests of checkpoints share: arrays, and their comparison."""

import ml_dtypes
import numpy as np

RNG = np.random.default_rng(0)


ARRAYS = {
    "conv.weight": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "conv.bias": RNG.standard_normal(4).astype(np.float16),
    "fc.weight": RNG.standard_normal((2, 4)).astype(ml_dtypes.bfloat16),
    "count": np.array(7),
}


def assert_equal_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same names, types, shapes and bits."""
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name
