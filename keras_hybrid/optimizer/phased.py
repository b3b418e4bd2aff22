"""An optimizer with two phases: its state, and what is asked of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_hybrid._support import checks
from keras_hybrid.execution import backends
from keras_hybrid.optimizer import estimates, plans, queries
from keras_hybrid.optimizer.choices import Choices
from keras_hybrid.optimizer.state import State, layouts_of
from keras_hybrid.optimizer.switching import switch_where, take_rate_out
from keras_hybrid.optimizer.update import Update
from keras_hybrid.optimizer.whole import WholeUpdateOptimizer

Tensor = Any


class NoEstimate(ValueError):
    """No update has given the switch its rho, or its cool-down a length."""


class PhasedOptimizer(WholeUpdateOptimizer):
    """Base of an optimizer that is adaptive before its switch and SGD after.

    A subclass says what is fixed (`choices`, and `scope`: who switches
    together); here are the variables that change, the two phases on request,
    and what can be read of them.
    """

    scope = "model"
    sgd_scale: Any = None  # As it was given, for messages.

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._state: State | None = None
        self._told_training_steps: float | None = None
        self._built_in_graph = False

    @property
    def choices(self) -> Choices:
        """What is fixed while an update is traced."""
        raise NotImplementedError

    # ---- The update ---------------------------------------------------------

    def build(self, variables: Sequence[Any]) -> None:
        """Creates all state for the model's trainable variables.

        Args:
            variables: The variables to train, in a fixed order.

        Raises:
            ValueError: If `jit_compile=True` under a tf.distribute strategy,
                or the optimizer was created outside its scope.
        """
        if self.built:
            return
        super().build(variables)
        # Then its variables have no values yet, let alone restored ones.
        self._built_in_graph = backends.inside_a_graph()
        self._state = State(
            self, variables, self.choices, self.scope, self._told_training_steps
        )

    @property
    def state(self) -> State:
        """All its variables.

        Raises:
            ValueError: If it is not built.
        """
        if self._state is None:
            raise ValueError(
                "The optimizer's state is made by its first update, or by "
                "`optimizer.build(model.trainable_variables)`. Received: "
                f"built={self.built}"
            )
        return self._state

    @property
    def rate_dtype(self) -> str:
        """Of the learning rate that an update is given."""
        return self.state.dtype

    def update_of(
        self, variables: Sequence[Any], indices: Sequence[int]
    ) -> Update:
        """Returns the update of some variables."""
        choices = self.choices
        every = layouts_of(self, choices, self.state)
        return Update(choices, self.state, variables, every, indices, self)

    def check_update(self) -> None:
        """Raises where the cool-down does not know when to end."""
        if self.choices.waits_for_end and not self._length_is_known():
            raise ValueError(
                "`Cooldown()` lasts until the end of the training, whose "
                "length is not known: give `fit` a `SwitchCallback`, set "
                "`optimizer.training_steps`, or pass `Cooldown(steps=...)` or "
                "`Cooldown(share=...)`. Received: steps=None, share=None"
            )

    def _length_is_known(self) -> bool:
        if self._told_training_steps is not None:
            return True
        if self._built_in_graph or not backends.is_readable(self._iterations):
            return False
        # A restored optimizer has it in its variable alone.
        with backends.outside_the_graph():
            return self.training_steps is not None

    # ---- Its phases, on request ---------------------------------------------

    def switch(self) -> None:
        """Starts the transition with the next update, for every group.

        Groups that have switched already stay as they are. Works between the
        batches of `fit` and causes no retrace.

        Raises:
            ValueError: If the optimizer is not built, or rho is to be
                estimated and no update has given a positive estimate yet, or
                a cool-down is a share of no updates.
        """
        _check_built(self, "switch()")
        _check_share(self)
        choices, state = self.choices, self.state
        waiting = state.switch_steps.numpy() < 0
        plan = plans.last_plan(choices, state, self.iterations)
        found = estimates.from_state(self, plan)
        exists = ops.convert_to_numpy(found[1])
        if not exists[waiting[state.groups.of]].all():
            raise NoEstimate(
                "`switch()` needs a positive, finite estimate of the SGD "
                "learning rate, and the updates so far have given none: switch "
                "after some adaptive updates, choose another `sgd_scale`, or "
                "give `sgd_learning_rate`. Received: iterations="
                f"{self.updates_made}, sgd_scale={self.sgd_scale!r}"
            )
        fires = ops.convert_to_tensor(waiting)
        switch_where(choices, state, fires, plan, found, self.assign)

    def revert(self) -> None:
        """Goes back to the adaptive phase with the next update.

        The second moment and the moving averages of rho continue from where
        the switch left them; triggers start anew (an `AtStep` that has passed
        switches after one update). With `carry_momentum=False` the first
        moment is young, but its bias correction is not: Adam's first steps are
        then too short, as beta_1^k with the k updates since the switch.

        Raises:
            ValueError: If the optimizer is not built.
        """
        _check_built(self, "revert()")
        take_rate_out(self.choices, self.state, self.updates_made)
        self.state.revert(self.choices.trigger)

    def restart(self) -> None:
        """Begins a training anew from the weights that there are.

        The slots go on; the cool-down, `DivergenceGuard`'s cut and the length
        of the training are forgotten; triggers and a cool-down's share count
        from here. What starts switched (`AtStep(0)`) starts switched again.

        Raises:
            ValueError: If the optimizer is not built.
        """
        _check_built(self, "restart()")
        take_rate_out(self.choices, self.state, self.updates_made)
        self.state.restart(self.choices, self.updates_made)
        self._told_training_steps = None

    # ---- What is read of them -----------------------------------------------

    @property
    def batches_seen(self) -> int:
        """Gradients taken so far; updates, where none are accumulated."""
        return int(self._iterations.numpy())

    @property
    def updates_made(self) -> int:
        """Updates so far."""
        return self.batches_seen // (self.gradient_accumulation_steps or 1)

    @property
    def has_switched(self) -> bool:
        """Whether every group has switched (read-only)."""
        return self.switch_step is not None

    @property
    def switch_step(self) -> int | None:
        """The first update that SGD makes, of the last group to switch.

        None until every group has switched. Updates count from 0.
        """
        return self.state.switch_step() if self.has_state() else None

    @property
    def switch_steps(self) -> dict[str, int | None]:
        """`switch_step` of each group by its name, None where it waits."""
        if not self.has_state():
            return {}
        steps = self.state.switch_steps.numpy().tolist()
        return {
            name: None if step < 0 else step
            for name, step in zip(self.state.groups.names, steps, strict=True)
        }

    @property
    def sgd_fraction(self) -> float:
        """SGD's weight in the next update, averaged over the groups."""
        if not self.has_state():
            return 0.0
        return queries.sgd_fraction(self.choices, self.state, self.updates_made)

    @property
    def sgd_learning_rates(self) -> dict[str, float | None]:
        """The SGD phase's learning rate of each variable by its path.

        learning_rate * cool-down * (1 - momentum) * rho: as
        keras.optimizers.SGD(momentum=...) counts it, in the mean over the
        variable's units. Before the switch with the estimate so far, None
        where there is none yet.
        """
        if not self.has_state() or not self._trainable_variables:
            return {}
        return queries.sgd_learning_rates(self)

    @property
    def sgd_learning_rate_equivalent(self) -> float | None:
        """`sgd_learning_rates` as one number, averaged over all weights.

        None where there is no estimate yet.
        """
        rates = self.sgd_learning_rates
        return queries.mean_learning_rate(rates, self.state) if rates else None

    # ---- The length of the training -----------------------------------------

    @property
    def cooldown_factor(self) -> float:
        """The cool-down's factor in the next update, over the groups' mean."""
        if not self.has_state():
            return 1.0
        return queries.cooldown_factor(
            self.choices, self.state, self.updates_made
        )

    @property
    def cooldown_end(self) -> int | None:
        """The number of updates after which the cool-down is over.

        Of the last group to switch. None before the switch, without a
        cool-down, and where the length of the training is not known and needed.
        """
        if not self.has_switched or self.choices.cooldown is None:
            return None
        return queries.cooldown_end(self.choices.cooldown, self.state)

    @property
    def phase_start(self) -> int:
        """Updates before the training began: at 0, or the last `restart()`."""
        return int(self.state.phase_start.numpy()) if self.has_state() else 0

    @property
    def skipped_steps(self) -> int:
        """Updates that `skip_nonfinite` has skipped so far."""
        return int(self.state.skipped_steps.numpy()) if self.built else 0

    @property
    def training_steps(self) -> float | None:
        """The number of updates of the whole training, None if not known.

        A cool-down ends there at the latest. `SwitchCallback` sets it in
        `fit`; set it yourself in a loop of your own. `math.inf` says that it
        will be known later: until then a cool-down does not fall.
        """
        if not self.has_state():
            return self._told_training_steps
        steps = int(self.state.training_steps.numpy())
        return None if steps < 0 else steps

    @training_steps.setter
    def training_steps(self, steps: float) -> None:
        if steps != math.inf:
            steps = checks.integer("training_steps", steps, low=1)
        if self.has_state():
            self.state.training_steps.assign(-1 if steps == math.inf else steps)
        self._told_training_steps = steps

    def __setattr__(self, name: str, value: Any) -> None:
        """Always reaches the setter of `training_steps`.

        Keras' own drops an assignment whose value the property returns
        already, as after a restore.
        """
        if name == "training_steps":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def load_own_variables(self, store: Any) -> None:
        """Sets the state; a length that comes with it is known from then on.

        JAX cannot look for it while it traces the update.
        """
        super().load_own_variables(store)
        if self.built:
            self._told_training_steps = self.training_steps

    def beside_config(self) -> dict[str, Any]:
        """Returns what a copy is told beside its config."""
        steps = self.training_steps or self._told_training_steps
        return {} if steps is None else {"training_steps": steps}


def _check_built(optimizer: PhasedOptimizer, what: str) -> None:
    if not optimizer.has_state():
        raise ValueError(
            f"`{what}` needs a built optimizer: call it after the first "
            "update, or call `optimizer.build(model.trainable_variables)`. "
            f"Received: built={optimizer.built}"
        )


def _check_share(optimizer: PhasedOptimizer) -> None:
    """Raises where a switch now has a cool-down of no length."""
    cooldown, start = optimizer.choices.cooldown, optimizer.phase_start
    if optimizer.updates_made == start and cooldown and cooldown.share:
        raise NoEstimate(
            "`switch()` with `Cooldown(share=...)`, a share of the updates "
            "before it, needs some: switch after an update, or give "
            f"`Cooldown(steps=...)`. Received: cooldown={cooldown!r}, no "
            "updates since the training began"
        )
