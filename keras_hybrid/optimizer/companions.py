"""State of a callback that goes into the files with the optimizer's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

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


def give_back(companion: Companion | None, stored: Mapping[str, Any]) -> None:
    """Gives a companion, if there is one, what a file has of it."""
    if companion is not None:
        companion.set_state(
            {
                name.removeprefix(_PREFIX): np.array(array)
                for name, array in stored.items()
                if is_entry(name)
            }
        )
