"""The few types that cross module borders."""

import dataclasses

import flax.struct
from jaxtyping import Array, PRNGKeyArray, PyTree

Batch = dict[str, Array]
"""Arrays with a leading batch dimension.

``image`` uint8 [B, S, S, 3] RGB, ``valid`` bool [B, S, S] (False where padded), ``label`` float32
[B, C] multi-hot, ``index`` int32 [B] (position in the source), optionally ``segmentation`` uint8
[B, S, S] (255 = ignore) and ``affinity_label`` uint8 [B, s, s], the classes of blocks of pixels.
"""


@dataclasses.dataclass(frozen=True)
class ParamRule:
    """How the optimizer treats the parameters whose path matches `pattern` (first match wins).

    `lr` multiplies the learning rate, `decay` says whether weight decay applies; a frozen parameter
    gets neither gradient nor decay. Paths look like ``backbone/b4_1/conv_branch2a/kernel``.
    """

    pattern: str
    lr: float = 1.0
    decay: bool = True
    frozen: bool = False


@flax.struct.dataclass
class TrainState:
    """Everything a step changes.

    `model_state` holds the network's other variables (``batch_stats``) and `extra` what the method
    keeps beside the parameters (an EMA teacher, a queue of prototypes).
    """

    step: Array
    params: PyTree
    model_state: PyTree
    extra: PyTree
    opt_state: PyTree
    rng: PRNGKeyArray
