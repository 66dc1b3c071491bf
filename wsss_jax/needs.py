"""What stages say of each other before any of them runs.

A stage's module may export `MAKES`, the names of what its folder will hold for others, and
``check(config, needs)``, which refuses settings that its `run` would refuse hours later.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from wsss_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Need:
    """A stage that another one needs.

    Attributes:
      stage: its name.
      type: its type.
      settings: its section of the config.
      makes: what its folder will hold for others; None: its module does not say.
    """

    stage: str
    type: str
    settings: Mapping[str, Any]
    makes: tuple[str, ...] | None


Needs = Mapping[str, Need]


def expect(needs: Needs, name: str, *any_of: str) -> None:
    """Refuses needs without `name`, or where that stage makes none of `any_of`.

    Raises:
      UserError: see above.
    """
    wanted = " or ".join(any_of)
    if name not in needs:
        raise UserError(f"expected needs.{name}, a stage that makes {wanted}, found none: name one")
    need = needs[name]
    if need.makes is not None and not set(any_of) & set(need.makes):
        raise UserError(
            f"expected needs.{name} to name a stage that makes {wanted}, found {need.stage}, which"
            f" makes {', '.join(need.makes) or 'nothing for others'}: name another one"
        )


def expect_alpha(needs: Needs, name: str, alpha: float) -> None:
    """Refuses an α that the crf stage of the need `name` has no result for.

    Raises:
      UserError: see above.
    """
    made = needs[name].settings.get("alphas")
    if made is not None and float(alpha) not in [float(one) for one in made]:
        raise UserError(
            f"expected one of the alphas of {needs[name].stage},"
            f" {', '.join(f'{one:g}' for one in made)}, found {alpha:g}: change one of them"
        )
