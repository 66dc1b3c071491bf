"""Divides labeled images into splits that have each class in the same share.

The images are assigned by iterative stratification (Sechidis et al., ECML PKDD 2011): always for
the class with the fewest images left, to the split that lacks most of that class.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, UInt8


def stratified(
    labels: UInt8[np.ndarray, "n c"],
    share: float,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> Bool[np.ndarray, " n"]:
    """Chooses the images of the smaller split.

    Args:
      labels: zeros and ones for N images and C classes.
      share: the share of the images that are chosen, 0 to 1.
      seed: the seed of the order in which images are assigned.
      groups: images of equal values stay together, such as those of equal files.

    Returns:
      Which images are chosen.
    """
    names = list(range(len(labels))) if groups is None else list(groups)
    members: dict[Hashable, list[int]] = {}
    for position, name in enumerate(names):
        members.setdefault(name, []).append(position)
    units = list(members.values())
    present = np.array([labels[unit].any(axis=0) for unit in units], bool).reshape(len(units), -1)
    sizes = np.array([len(unit) for unit in units], np.float64)
    order = np.random.default_rng(seed).permutation(len(units))
    shares = np.array([1 - share, share])
    wanted = shares[:, None] * (present * sizes[:, None]).sum(axis=0)  # [2, C]
    wanted_all = shares * sizes.sum()
    side = np.full(len(units), -1)
    while (side < 0).any():
        left = (side < 0) & present.any(axis=1)
        if left.any():
            counts = present[left].sum(axis=0)
            rarest = int(np.argmin(np.where(counts > 0, counts, len(units) + 1)))
            chosen = [unit for unit in order if side[unit] < 0 and present[unit, rarest]]
            lack = wanted[:, rarest]
        else:
            chosen, lack = [unit for unit in order if side[unit] < 0], wanted_all
        for unit in chosen:
            # A split of no images gets none, not even to round up.
            keys = [(lack[s], wanted_all[s], -s) if shares[s] > 0 else (-np.inf,) for s in (0, 1)]
            side[unit] = s = 0 if keys[0] >= keys[1] else 1
            wanted[s] -= present[unit] * sizes[unit]
            wanted_all[s] -= sizes[unit]
    result = np.zeros(len(labels), bool)
    for unit, s in zip(units, side, strict=True):
        result[unit] = s == 1
    return result
