"""The few types that several rooms share."""

import dataclasses

import flax.struct
from jaxtyping import Array, PRNGKeyArray, PyTree

Batch = dict[str, Array]
"""The arrays of a batch by name; `wsss_jax.data.batch_spec.BatchSpec.shapes` describes them."""


@dataclasses.dataclass(frozen=True)
class ParamRule:
    """How the optimizer treats parameters; the first rule that matches a parameter counts.

    Attributes:
      pattern: a regular expression that is searched in paths such as
        ``backbone/b4_1/conv_branch2a/kernel``.
      lr: the factor of the learning rate.
      decay: whether weight decay applies.
      frozen: whether the parameters are not trained, so that they get neither gradient nor decay.
    """

    pattern: str
    lr: float = 1.0
    decay: bool = True
    frozen: bool = False


@flax.struct.dataclass
class TrainState:
    """Everything that a training step changes.

    Attributes:
      step: the number of steps so far, int32 [].
      params: all parameters of the network.
      model_state: the network's other variables by collection (``batch_stats``).
      extra: what the method keeps besides the parameters, such as an EMA teacher.
      opt_state: the state of the optimizer.
      rng: the random key of the run.
    """

    step: Array
    params: PyTree
    model_state: PyTree
    extra: PyTree
    opt_state: PyTree
    rng: PRNGKeyArray
