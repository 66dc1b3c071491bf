"""Collects everything that is wrong with a source, so that one message names it all."""

from wsss_jax.errors import UserError, first


class Problems:
    """Mistakes by kind, and remarks that stop nothing."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, list[str]]] = {}
        self.remarks: list[str] = []

    def __len__(self) -> int:
        return sum(len(names) for _, names in self._kinds.values())

    def add(self, kind: str, name: str, advice: str) -> None:
        """Adds a mistake.

        Args:
          kind: what is wrong, in the plural: ``photographs without a label``.
          name: the file or row in question.
          advice: what to do about all mistakes of this kind.
        """
        names = self._kinds.setdefault(kind, (advice, []))[1]
        if name not in names[-1:]:
            names.append(name)

    def lines(self) -> list[str]:
        """Returns a line for each kind, with its number, five names and what to do."""
        return [
            f"{kind}: {len(names):,} ({first(names)}): {advice}"
            for kind, (advice, names) in self._kinds.items()
        ]

    def check(self, expected: str) -> None:
        """Refuses the source if anything is wrong with it.

        Args:
          expected: what was expected, such as ``photographs that can be read``.

        Raises:
          UserError: there are mistakes, all of which it counts.
        """
        if self._kinds:
            raise UserError(
                f"expected {expected}, found {'; '.join(self.lines())}; nothing was written"
            )
