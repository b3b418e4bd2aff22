"""The phases of an update as branches of TensorFlow's graph."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_hybrid.execution import dispatch, functions
from keras_hybrid.execution.layouts import Layout
from keras_hybrid.optimizer import estimates
from keras_hybrid.optimizer.choices import Choices
from keras_hybrid.optimizer.state import State
from keras_hybrid.scales import Slots

Tensor = Any


class Branches:
    """One branch a phase that an update can be in.

    Args:
        choices: What is fixed.
        state: Its shapes are read.
        every_layout: Of all variables of the optimizer.
        layouts: Of those that are updated.
    """

    def __init__(
        self,
        choices: Choices,
        state: State,
        every_layout: Sequence[Layout],
        layouts: Sequence[Layout],
    ) -> None:
        self._choices = choices
        self._state = state
        self._every_layout = every_layout
        self._layouts = layouts
        self._phases = choices.phases(len(state.groups.names))

    def run(
        self, phase: Tensor, fires: Tensor, arguments: dict[str, Any]
    ) -> Any:
        """Runs one phase; returns the estimate of rho if its branch made it.

        Args:
            phase: The number of the phase.
            fires: Which groups switch after the update.
            arguments: Of `dispatch.update`.
        """
        phases = self._phases
        if not self._estimate_in_branch():
            functions.case(
                phase,
                [functools.partial(self._one, p) for p in phases],
                arguments,
            )
            return None
        # A branch that fires beside each that does not: to pass the slots on
        # to one more branch would cost as much as updates.
        number = phase + len(phases) * ops.cast(ops.any(fires), "int32")
        return functions.case(
            number,
            [
                functools.partial(self._one, p, fires=fired)
                for fired in (False, True)
                for p in phases
            ],
            arguments,
        )

    def _estimate_in_branch(self) -> bool:
        """Whether the branch that updates can read all slots for rho."""
        choices, moments = self._choices, self._state.first_moments
        return (
            isinstance(choices.scale, Slots)
            and choices.trigger is not None
            and not choices.needs
            and sorted(x.index for x in self._layouts)
            == list(range(len(moments)))
            and all(slot is not None for slot in moments)
        )

    def _one(
        self,
        phase: str,
        arguments: dict[str, Any],
        fires: bool | None = None,
    ) -> list[Tensor]:
        """One phase; with `fires` rho and whether it exists, if it is True."""
        dispatch.update(
            self._choices.formula,
            phase,
            self._layouts,
            self._state.units,
            arguments,
            self._choices.jit,
        )
        if fires is None:
            return []
        if not fires:
            return list(estimates.none(self._state))
        slots: list[Any] = [None] * len(self._layouts)
        for layout, handles in zip(
            self._layouts, arguments["handles"], strict=True
        ):
            slots[layout.index] = [
                functions.value(handles[i], layout.dtype, layout.units.shape)
                for i in (1, -1)
            ]
        return list(
            estimates.estimate(
                self._choices,
                self._state,
                arguments["plan"],
                self._every_layout,
                slots,
            )
        )
