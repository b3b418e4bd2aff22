"""The base of all scales."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_hybrid._support import checks


class Scale:
    """Base of all scales.

    One that is `estimated` has the method `estimate`; one with `needs` has
    `update` too: see `Projection`.

    Attributes:
        needs: Names of the sums of each adaptive update that it reads (of
            `triggers.SUMS`); most need none.
        estimated: Whether rho comes from the adaptive steps.
        rho: As the user gave it, else 0.
        scope: How finely, in place of the optimizer's `scale_scope`; or None.
        inside_momentum: Whether SGD's momentum averages rate * g.
    """

    needs: frozenset[str] = frozenset()
    estimated = True
    rho = 0.0
    scope: str | None = None
    inside_momentum = False

    def granularity(self, scale_scope: str) -> str:
        """Returns how finely rho is held, given the optimizer's argument."""
        return self.scope or scale_scope

    def init(self, groups: int) -> list[np.ndarray]:
        """Returns the first values of its state, for that many groups."""
        del groups
        return []

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Scale:
        """Makes the scale that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return checks.call_text(self)
