"""One update of all variables: planned, made, watched, and the switch after it.

It runs where `execution` says: as branches of TensorFlow's graph, in one plain
pass (inside XLA, on other backends), or on the replicas of a strategy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_hybrid import rules
from keras_hybrid.execution import (
    backends,
    clipping,
    functions,
    packs,
    replicas,
    sums,
)
from keras_hybrid.execution.layouts import Layout, settings_of
from keras_hybrid.optimizer import estimates, switching
from keras_hybrid.optimizer.assignments import Assignments
from keras_hybrid.optimizer.branches import Branches
from keras_hybrid.optimizer.choices import Choices
from keras_hybrid.optimizer.plans import (
    Plan,
    next_weights,
    plan_of,
    scales_of,
)
from keras_hybrid.optimizer.state import State

Tensor = Any
Estimate = tuple[Tensor, Tensor]


class Update:
    """An update of some of an optimizer's variables, as a trace makes it.

    Args:
        choices: What is fixed.
        state: The optimizer's variables.
        variables: The weights to update.
        layouts: Of all variables of the optimizer.
        indices: Where `variables` are among these.
        writer: Keras' optimizer, which gives variables their values.
    """

    def __init__(
        self,
        choices: Choices,
        state: State,
        variables: Sequence[Any],
        layouts: Sequence[Layout],
        indices: Sequence[int],
        writer: Any,
    ) -> None:
        self._choices = choices
        self._state = state
        self._slots = state.slots_of(variables, indices)
        self._every_layout = list(layouts)
        self._layouts = [layouts[i] for i in indices]
        self._indices = list(indices)
        self._branches = Branches(choices, state, layouts, self._layouts)
        self._assignments = Assignments(writer)
        self._assign = self._assignments.assign

    # ---- Where it runs ------------------------------------------------------

    def dispatched(
        self, grads: Sequence[Tensor], rate: Tensor, step: Tensor
    ) -> None:
        """Runs the phase that applies, as a branch of TensorFlow's graph."""
        self._dispatch([replicas.Replica(grads, self._slots)], rate, step)

    def _dispatch(
        self, every: Sequence[replicas.Replica], rate: Tensor, step: Tensor
    ) -> None:
        """Plans once and updates on each device."""

        def update() -> None:
            plan, fires = self._prepare(rate, step)
            scales = scales_of(self._choices, self._state, plan)
            found = None
            for replica in every:
                with replica.scope():
                    estimate = self._branches.run(
                        plan["phase"],
                        fires,
                        {
                            "plan": {**plan, "scales": scales},
                            "grads": list(replica.grads),
                            "clips": self._clips(replica.grads),
                            "handles": replica.handles,
                        },
                    )
                # What the first finds, all would.
                found = found or estimate
            if self._choices.needs:
                fires = self._observe(every[0], plan)
            if self._choices.trigger is not None:
                functions.run_if(
                    ops.any(fires),
                    lambda: self._switch_where(
                        fires, plan, found or self._estimate(plan)
                    ),
                )

        if self._choices.skips:
            functions.run_if(self._count_if_skipped(every[0].grads), update)
        else:
            update()

    def plain(
        self, grads: Sequence[Tensor], rate: Tensor, step: Tensor
    ) -> None:
        """Runs the phases in one pass: inside XLA, on other backends."""
        with self._unless_skipped(grads):
            plan, fires = self._prepare(rate, step)
            phase = self._phase_of(plan)
            every = self._settings(plan, self._clips(grads), phase)
            packs.update(
                self._choices.formula,
                phase,
                self._layouts,
                every,
                grads,
                self._slots,
                self._assign,
                self._assignments.condition,
            )
            if self._choices.needs:
                replica = replicas.Replica(grads, self._slots)
                fires = self._observe(replica, plan)
            if self._choices.trigger is not None:
                self._switch_if_any(fires, plan)

    def on_replicas(
        self,
        strategy: Any,
        pairs: Sequence[tuple[Tensor, Any]],
        rate: Tensor,
        step: Tensor,
    ) -> None:
        """Runs under a tf.distribute strategy: dispatched, or any phase.

        Args:
            strategy: The strategy.
            pairs: Gradients, summed over the replicas, and variables.
            rate: The learning rate.
            step: The number of the update.
        """
        grads = [grad for grad, _ in pairs]
        if replicas.can_compile(strategy):
            replicas.on_each(
                strategy,
                grads,
                self._slots,
                lambda every: self._dispatch(every, rate, step),
            )
            return
        clips = self._clips(grads)

        def plan() -> tuple[Plan, list[rules.Settings]]:
            whole, fires = self._prepare(rate, step)
            settings = self._settings(whole, clips, "mixed")
            return {**whole, "fires": fires}, settings

        def one(
            i: int, variable: Any, grad: Tensor, settings: rules.Settings
        ) -> dict[str, Tensor]:
            own = [variable, *self._slots[i][1:]]
            formula = self._choices.formula
            packs.update_one(
                formula, "mixed", settings, grad, own, self._assign
            )
            if not self._choices.needs:
                return {}
            return sums.of_variable(
                formula,
                sorted(self._choices.needs),
                settings,
                grad,
                own[1:],
                self._state.dtype,
            )

        def finish(whole: Plan, found: list[dict[str, Tensor]]) -> None:
            fires = whole["fires"]
            if self._choices.needs:
                fires = self._take(found, whole)
            if self._choices.trigger is not None:
                self._switch_if_any(fires, whole)

        with self._unless_skipped(grads):
            replicas.update(strategy, pairs, plan, one, finish)

    # ---- Its steps ----------------------------------------------------------

    def _prepare(self, rate: Tensor, step: Tensor) -> tuple[Plan, Tensor]:
        """Plans the update, and advances what does not depend on it.

        Returns the plan, and which groups the trigger fires for, if that is
        known without the update's statistics.
        """
        plan = plan_of(self._choices, self._state, rate, step)
        self._advance(plan)
        if self._choices.trigger is None or self._choices.needs:
            return plan, ops.zeros(plan["switch_steps"].shape, "bool")
        return plan, switching.ask_trigger(
            self._choices, self._state, plan, {}, self._assign
        )

    def _advance(self, plan: Plan) -> None:
        """Sets what the next update reads, but for what a trigger decides."""
        state = self._state
        if "fixed_scales" in plan:
            self._assign(state.scales, plan["fixed_scales"])
        if not self._choices.takes_over:
            # What is updated has changed its momentum.
            waits = ~np.isin(np.arange(len(state.groups.of)), self._indices)
            forgets = plan["forgets"] * ops.cast(waits, state.dtype)
            self._assign(state.forgets, forgets)
        if state.frozen_corrections is not None:
            self._assign(state.frozen_corrections, plan["frozen_corrections"])
        adaptive = ops.cast(plan["weights"] < 1, state.dtype)
        self._assign(state.adaptive_steps, state.adaptive_steps + adaptive)
        self._assign(
            state.weights,
            next_weights(
                self._choices, state, plan["switch_steps"], plan["step"]
            ),
        )

    def _phase_of(self, plan: Plan) -> str:
        """Returns the phase where it is known, else that of any."""
        number = backends.number_now(plan["phase"])
        if number is None:
            return "mixed"
        return self._choices.phases(len(self._state.groups.names))[number]

    def _settings(
        self, plan: Plan, clips: Sequence[Tensor | None], phase: str
    ) -> list[rules.Settings]:
        """Returns each variable's settings."""
        scales = scales_of(self._choices, self._state, plan)
        return settings_of(
            {**plan, "scales": scales},
            self._layouts,
            self._state.units,
            clips,
            phase,
        )

    def _count_if_skipped(self, grads: Sequence[Tensor]) -> Tensor:
        """Returns whether the update is to be made; counts it if not."""
        finite = clipping.are_finite(
            grads, self._choices.global_clipnorm, self._state.dtype
        )
        self._assignments.count(
            self._state.skipped_steps, ops.logical_not(finite)
        )
        return finite

    def _unless_skipped(
        self, grads: Sequence[Tensor]
    ) -> contextlib.AbstractContextManager[None]:
        if not self._choices.skips:
            return contextlib.nullcontext()
        return self._assignments.only_if(self._count_if_skipped(grads))

    def _clips(self, grads: Sequence[Tensor]) -> list[Tensor | None]:
        return clipping.clip_scales(
            grads,
            self._choices.clipnorm,
            self._choices.global_clipnorm,
            self._state.dtype,
        )

    # ---- What it leaves -----------------------------------------------------

    def _observe(self, replica: replicas.Replica, plan: Plan) -> Tensor:
        """Sums the update's statistics; returns where the trigger fires."""
        found = sums.of_update(
            self._choices.formula,
            sorted(self._choices.needs),
            self._layouts,
            self._state.units,
            plan,
            replica.grads,
            self._clips(replica.grads),
            [own[1:] for own in replica.slots],
            self._state.dtype,
            self._choices.jit,
        )
        return self._take(found, plan)

    def _take(self, found: list[dict[str, Tensor]], plan: Plan) -> Tensor:
        """Averages the variables' sums; returns where the trigger fires."""
        return switching.take(
            self._choices,
            self._state,
            plan,
            self._indices,
            found,
            self._assign,
        )

    def _estimate(
        self, plan: Plan, slots: Sequence[Any] | None = None
    ) -> Estimate:
        if slots is None:
            slots = self._state.pairs
        return estimates.estimate(
            self._choices, self._state, plan, self._every_layout, slots
        )

    def _switch_if_any(self, fires: Tensor, plan: Plan) -> None:
        """The switch where an update cannot hold a branch that assigns."""
        any_fires = ops.any(fires)
        if backends.number_now(any_fires) == 0:
            return
        found = ops.cond(
            any_fires,
            lambda: self._estimate(plan),
            lambda: estimates.none(self._state),
        )
        self._switch_where(fires, plan, found)

    def _switch_where(self, fires: Tensor, plan: Plan, found: Estimate) -> None:
        switching.switch_where(
            self._choices, self._state, fires, plan, found, self._assign
        )
