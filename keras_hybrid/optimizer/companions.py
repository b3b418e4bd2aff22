"""State of a callback that goes into the files with the optimizer's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

# How it is called in a file.
_PREFIX = "beside_"


class Companion(Protocol):
    """What has such state."""

    def get_state(self) -> dict[str, np.ndarray]:
        """Returns arrays by name."""

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes them back; empty where the file has none."""


def entries_of(companion: Companion | None) -> dict[str, np.ndarray]:
    """Returns the arrays by their names in a file; none without a companion."""
    if companion is None:
        return {}
    state = companion.get_state()
    return {_PREFIX + name: array for name, array in state.items()}


def is_entry(name: str) -> bool:
    """Whether a name in a file is one of `entries_of`'s."""
    return name.startswith(_PREFIX)


def give_back(
    companion: Companion | None, entries: Mapping[str, np.ndarray]
) -> None:
    """Gives a companion, if there is one, what a file has of it."""
    if companion is not None:
        companion.set_state(
            {name.removeprefix(_PREFIX): x for name, x in entries.items()}
        )


class Unclaimed:
    """What a file had of a companion, read before there was one.

    Args:
        entries: By their names in the file.
        batches: That the optimizer had seen: after another they are outdated.
    """

    def __init__(self, entries: dict[str, np.ndarray], batches: int) -> None:
        self._entries = entries
        self._batches = batches

    def entries(self, batches: int) -> dict[str, np.ndarray]:
        """Returns them; none if the optimizer has seen batches since."""
        return self._entries if batches == self._batches else {}
