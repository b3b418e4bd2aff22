"""The state of a HybridOptimizer: every variable, its name, its first value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_hybrid.execution.layouts import Layout
from keras_hybrid.groups import Groups, grouped
from keras_hybrid.optimizer.choices import Choices
from keras_hybrid.scales import Scale
from keras_hybrid.triggers import StepTrigger
from keras_hybrid.units import units_of

Tensor = Any

# Room for the state of the epoch triggers that SwitchCallback watches: the
# number of variables may not depend on them, or checkpoints would not load.
EPOCH_STATE_SIZE = 32


class State:
    """All variables beside the weights; who reads or writes them does it here.

    Vectors have one entry a group that switches together, unless it says
    otherwise. Their order is that of the saved files.

    Attributes:
        groups: Who switches together.
        units: Who shares rho in each variable.
        scale_groups: Who shares what the scale knows.
        dtype: Of the vectors: float64 where a weight is.
        first_moments: One a weight, None where Keras keeps none.
        second_moments: Likewise.
        second_moments_max: Likewise, all None without AMSGrad.
        switch_steps: The update that SGD made first, -1 before the switch.
        weights: SGD's weight in the next update.
        adaptive_steps: Updates of the second moment.
        scales: rho, one a unit, fixed at the switch; 0 before.
        scale_state: The scale's own.
        frozen_corrections: Adam's bias corrections as the switch found them,
            None unless each weight keeps its step size.
        forgets: 1 for variables whose first moment SGD is still to forget, or
            to take its rate into.
        training_steps: Updates of the whole training, -1 if not known.
        phase_start: Updates made before the constant phase.
        epoch_trigger: Room for an epoch trigger's numbers.
        trigger_state: The step trigger's.
        skipped_steps: Updates skipped as not finite.
        scale_cut: What DivergenceGuard's tries have left of rho.
        guard_counts: Its divergences, and tries from one snapshot.
        usual_loss: The loss that it takes for usual.
    """

    def __init__(
        self,
        optimizer: Any,
        variables: Sequence[Any],
        choices: Choices,
        scope: str,
        training_steps: float | None,
    ) -> None:
        """Adds all variables.

        Args:
            optimizer: Keras' optimizer that owns them.
            variables: The weights.
            choices: What is fixed.
            scope: Who switches together.
            training_steps: The length of the training; None or infinite where
                it is not known.
        """
        self._variables = list(variables)
        self.groups = grouped(variables, scope)
        self.units = [units_of(v, choices.granularity) for v in variables]
        self.scale_groups = _scale_groups(variables, choices.granularity)
        wide = any(
            keras.backend.standardize_dtype(v.dtype) == "float64"
            for v in variables
        )
        self.dtype = "float64" if wide else "float32"
        self.first_moments, self.second_moments = (
            optimizer.add_optimizer_variables(
                variables, ["first_moment", "second_moment"]
            )
        )
        self.second_moments_max = (
            optimizer.add_optimizer_variables(variables, "second_moment_max")
            if choices.amsgrad
            else [None] * len(variables)
        )
        self._add_vectors(
            _Adder(optimizer.add_variable, self.dtype), choices, training_steps
        )

    def _add_vectors(
        self, add: _Adder, choices: Choices, training_steps: float | None
    ) -> None:
        groups = len(self.groups.names)
        starts = choices.starts_switched
        start_scale = choices.rho if starts else 0.0
        self.switch_steps = add("switch_step", groups, 0 if starts else -1, int)
        start_weight = choices.start_weight if starts else 0.0
        self.weights = add("sgd_weight", groups, start_weight)
        self.adaptive_steps = add("adaptive_steps", groups)
        units = sum(u.count for u in self.units)
        self.scales = add("sgd_scale", units, start_scale)
        self.scale_state = [
            add(f"scale_state_{i}", value.shape, value)
            for i, value in enumerate(
                choices.scale.init(len(self.scale_groups.names))
            )
        ]
        self.frozen_corrections = (
            add("frozen_correction", groups) if choices.freezes else None
        )
        # Another update may be skipped, or have no gradient for a variable.
        self.forgets = add("forgets_momentum", len(self.units))
        unknown = training_steps is None or training_steps == math.inf
        known = -1 if unknown else training_steps
        self.training_steps = add("training_steps", (), known, int)
        self.phase_start = add("phase_start", (), 0, int)
        self.epoch_trigger = add(
            "epoch_trigger_state", EPOCH_STATE_SIZE, 0, "float32"
        )
        self.trigger_state = [
            add(f"trigger_state_{i}", value.shape, value)
            for i, value in enumerate(self.new_trigger_state(choices.trigger))
        ]
        self.skipped_steps = add("skipped_steps", (), 0, int)
        self.scale_cut = add("sgd_scale_cut", (), 1)
        self.guard_counts = add("guard_counts", 2, 0, int)
        self.usual_loss = add("usual_loss", (), 0, "float32")

    # ---- What is asked of it ------------------------------------------------

    @property
    def moments(self) -> list[Any]:
        """Every slot that there is."""
        slots = [
            *self.first_moments,
            *self.second_moments,
            *self.second_moments_max,
        ]
        return [slot for slot in slots if slot is not None]

    @property
    def pairs(self) -> list[list[Any] | None]:
        """m, and v or its maximum, of each weight; None for one without."""
        pairs = zip(
            self.first_moments,
            self.second_moments,
            self.second_moments_max,
            strict=True,
        )
        return [
            None if m is None else [m, v if largest is None else largest]
            for m, v, largest in pairs
        ]

    @property
    def variable_names(self) -> list[str]:
        """The weights' paths, each told apart."""
        return grouped(self._variables, "variable").names

    def slots_of(
        self, variables: Sequence[Any], indices: Sequence[int]
    ) -> list[list[Any]]:
        """Returns each weight with its slots: m, v (and v's maximum)."""
        slots = []
        for variable, index in zip(variables, indices, strict=True):
            own = [
                variable,
                self.first_moments[index],
                self.second_moments[index],
                self.second_moments_max[index],
            ]
            slots.append(own if own[3] is not None else own[:3])
        return slots

    def switch_step(self) -> int | None:
        """Returns the last group's first SGD update, None if one waits."""
        steps = self.switch_steps.numpy()
        return int(steps.max()) if steps.min() >= 0 else None

    def has_begun_to_switch(self) -> bool:
        """Whether a group has switched."""
        return bool(self.switch_steps.numpy().max() >= 0)

    def new_trigger_state(
        self, trigger: StepTrigger | None
    ) -> list[np.ndarray]:
        """Returns a step trigger's first values."""
        groups = len(self.groups.names)
        return [] if trigger is None else trigger.init(groups)

    def revert(self, trigger: StepTrigger | None) -> None:
        """Goes back to before the switch; the moments stay."""
        for variable, value in (
            (self.switch_steps, -1),
            (self.weights, 0),
            (self.scales, 0),
            (self.forgets, 0),
        ):
            variable.assign(np.full(variable.shape, value))
        self.forget_epochs()
        self.set_trigger_state(self.new_trigger_state(trigger))

    def forget_epochs(self) -> None:
        """Lets an epoch trigger begin anew."""
        self.epoch_trigger.assign(np.zeros(self.epoch_trigger.shape))

    def set_trigger_state(self, values: Sequence[Any]) -> None:
        """Gives a step trigger's state back."""
        for variable, value in zip(self.trigger_state, values, strict=True):
            variable.assign(value)

    def restart(self, choices: Choices, updates: int) -> None:
        """Begins a training after so many updates; the moments stay."""
        scales = self.scales.numpy()
        self.revert(choices.trigger)
        self.scale_cut.assign(1)
        self.training_steps.assign(-1)
        self.phase_start.assign(updates)
        if choices.starts_switched:
            shape = self.switch_steps.shape
            self.switch_steps.assign(np.full(shape, updates))
            self.weights.assign(np.full(shape, choices.start_weight))
            # A number is put back, as after `revert`; a rate may be fixed.
            own = choices.rho
            self.scales.assign(np.full(scales.shape, own) if own else scales)
            if choices.inside_momentum:
                self.forgets.assign(np.ones(self.forgets.shape))

    # ---- What may be changed ------------------------------------------------

    def fits_trigger(self, trigger: StepTrigger | None) -> bool:
        """Whether a trigger can go on with the variables that there are."""
        return [np.shape(x) for x in self.new_trigger_state(trigger)] == [
            tuple(v.shape) for v in self.trigger_state
        ]

    def fits_scale(self, scale: Scale, scale_scope: str) -> bool:
        """Whether a scale can."""
        if not scale.estimated:
            return True
        scope = scale.granularity(scale_scope)
        groups = len(_scale_groups(self._variables, scope).names)
        return (
            [units_of(v, scope) for v in self._variables] == self.units
            and groups == len(self.scale_groups.names)
            and (scope == "weight") == (self.frozen_corrections is not None)
            and [x.shape for x in scale.init(groups)]
            == [tuple(v.shape) for v in self.scale_state]
        )


def layouts_of(optimizer: Any, choices: Choices, state: State) -> list[Layout]:
    """Returns what is fixed about each variable that an optimizer trains."""
    decay = optimizer.weight_decay
    return [
        Layout(
            index=index,
            group=state.groups.of[index],
            units=state.units[index],
            dtype=str(keras.backend.standardize_dtype(variable.dtype)),
            decay=decay if optimizer._use_weight_decay(variable) else None,
            clip_value=choices.clipvalue,
            carries=choices.takes_over,
            freezes=choices.freezes,
        )
        for index, variable in enumerate(optimizer._trainable_variables)
    ]


def _scale_groups(variables: Sequence[Any], scope: str) -> Groups:
    """Returns the variables that share what the scale knows of them."""
    shared = "variable" if scope in ("unit", "weight") else scope
    return grouped(variables, shared)


class _Adder:
    """Adds variables of one dtype, each with its first value."""

    def __init__(self, add_variable: Callable[..., Any], dtype: str) -> None:
        self._add_variable = add_variable
        self._dtype = dtype

    def __call__(
        self,
        name: str,
        shape: int | tuple[int, ...],
        value: Any = 0,
        dtype: Any = None,
    ) -> Any:
        def full(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
            # keras.initializers.Constant would go through float32, and a
            # broadcast is a view of one number on torch.
            return ops.convert_to_tensor(np.full(shape, value), dtype)

        return self._add_variable(
            shape=(shape,) if isinstance(shape, int) else shape,
            initializer=full,
            dtype="int" if dtype is int else dtype or self._dtype,
            aggregation="only_first_replica",
            name=name,
        )
