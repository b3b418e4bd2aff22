"""HybridOptimizer: Adam until the switch, SGD with momentum after it."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_hybrid import recipes, rules
from keras_hybrid._support import checks
from keras_hybrid.execution import (
    backends,
    blocks,
    clusters,
    functions,
    kernels,
    replicas,
    sums,
)
from keras_hybrid.execution.layouts import PLANNED, Layout, settings_of
from keras_hybrid.groups import SCOPES, Groups, grouped
from keras_hybrid.optimizer import companions
from keras_hybrid.optimizer.companions import Companion
from keras_hybrid.scales import (
    LearningRate,
    Scale,
    Slots,
    rate_or_schedule,
    scale_argument,
    scale_of,
    slot_sums,
)
from keras_hybrid.transitions import Cooldown, Hard, Transition
from keras_hybrid.triggers import SUMS, Signals, StepTrigger
from keras_hybrid.units import SCALE_SCOPES, spread, units_of

Tensor = Any

# Room for the state of the epoch triggers that SwitchCallback watches: the
# number of variables may not depend on them, or checkpoints would not load.
EPOCH_STATE_SIZE = 32


class NoEstimate(ValueError):
    """There is no positive estimate of rho to switch to."""


@checks.registered
class HybridOptimizer(keras.optimizers.Optimizer):
    """Adam's fast start, SGD's finish, one compiled trace.

    Both phases share one momentum slot m and one learning rate; a transition
    changes only what m is multiplied with::

        m <- beta m + (1 - beta) g
        w <- w - learning_rate P m
        P = sqrt(1 - beta_2^k) / (1 - beta_1^k) / (sqrt(v) + epsilon)   before
        P = rho                                                         after

    rho is estimated from Adam's own steps, so the SGD phase has nothing to
    tune: its learning rate is learning_rate * rho, and learning rate schedules,
    stock callbacks and weight decay go on through the switch.

    Args:
        learning_rate: Positive float (0 allowed), LearningRateSchedule or
            callable, for both phases. Default 1e-3.
        beta_1: Float in [0, 1): momentum of the adaptive phase. Default 0.9.
        beta_2: Float in [0, 1): of the second moment and of the moving average
            of rho. Default 0.999.
        epsilon: Positive float, added outside the root. Default 1e-7.
        amsgrad: Boolean: use the largest second moment so far. Default False.
        momentum: Float in [0, 1), of the SGD phase; None (default): beta_1.
        nesterov: Boolean: Nesterov momentum in the SGD phase. Default False.
        sgd_scale: What rho is: a scale (`keras_hybrid.scales`), the name of
            one, or rho itself as a positive float. With p the adaptive step
            at unit learning rate: `"slots"` (default): sum(p.p) / sum(p.m) of
            Adam's slots as the switch finds them, which costs nothing before
            it. Averaged over the updates before the switch, which costs a pass
            over the slots in each: `"projection"`, `"momentum"`, `"swats"`
            (the paper's) and `"norm"`. Weights without an estimate of their
            own (their gradient was always zero, say) take their variable's, or
            the whole model's.
        sgd_learning_rate: None (default), or the SGD learning rate in the
            convention of keras.optimizers.SGD(momentum=...), a float or a
            LearningRateSchedule counted from the switch, in place of
            `sgd_scale`: the short form of `scales.LearningRate`.
        carry_momentum: Boolean: the SGD phase goes on with m (default), or
            starts it from zero (False).
        trigger: None (default) or a step trigger (`keras_hybrid.triggers`)
            that runs inside the compiled update. Epoch triggers go to
            `SwitchCallback`.
        transition: A transition (`keras_hybrid.transitions`); None (default)
            is `Hard()`.
        scope: Who switches together: `"model"` (default), `"layer"` (variables
            whose paths share all but the last name) or `"variable"`.
        scale_scope: Who shares one rho: `"unit"` (default): an output unit,
            which is the last axis; a channel of a depthwise kernel, a row of
            an embedding table, each weight of a bias or of a normalization's
            scale. `"variable"`, `"layer"` or `"model"`; `"weight"`: each
            weight keeps Adam's step size as the switch found it, read from the
            second moment. What is averaged before the switch knows nothing
            finer than a variable.
        cooldown: None (default) or a `transitions.Cooldown`: a factor on the
            learning rate that falls from the switch on.
        jit_compile: `"auto"` (default): on the TensorFlow backend the update
            is compiled by XLA, on a CPU large variables in blocks that pass
            over memory once, but for what TensorFlow has a kernel of its own;
            and not where XLA surrounds it already or a tf.distribute strategy
            is active. False: never. True: as "auto", but an error under a
            strategy or on another backend.
        scale_multiplier: Positive float, default 1.0: a factor on the
            estimated rho, for searches around the estimate.
        skip_nonfinite: Boolean, default False: an update in which any
            gradient is not finite changes no weight, slot or statistic, and
            is counted in `skipped_steps`. `iterations` and the average of
            `use_ema` go on, as Keras has them. Under gradient accumulation the
            accumulated gradient counts.
        **kwargs: Keras' base arguments: `name`, `weight_decay` (decoupled, as
            in AdamW: learning_rate * weight_decay * w in both phases),
            `clipnorm`, `clipvalue`, `global_clipnorm`, `use_ema`,
            `ema_momentum`, `ema_overwrite_frequency`, `loss_scale_factor`,
            `gradient_accumulation_steps`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside its range or choices, or two
            arguments exclude each other.

    Slots: two a weight, as Adam has (three with `amsgrad`). After the switch
    the second moment is neither read nor written.

    Example:
    >>> import keras, keras_hybrid
    >>> optimizer = keras_hybrid.HybridOptimizer(
    ...     learning_rate=1e-3, trigger=keras_hybrid.triggers.AtStep(2)
    ... )
    >>> w = keras.Variable([1.0, -2.0])
    >>> for _ in range(3):
    ...     optimizer.apply([2 * w], [w])
    >>> optimizer.has_switched, optimizer.switch_step
    (True, 2)

    References: Adam (Kingma & Ba 2014, arXiv:1412.6980, algorithm 1; epsilon
    as in section 2's last line), AMSGrad (Reddi et al. 2018), SWATS (Keskar &
    Socher 2017, arXiv:1712.07628, algorithm 1), grafting (Agarwal et al. 2020,
    arXiv:2002.11803). The learning rate is outside the momentum.
    """

    # Adam's 1 / P as Keras has it; presets with another form override it.
    _root = staticmethod(rules.adaptive_root)

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        momentum: float | None = None,
        nesterov: bool = False,
        sgd_scale: str | float | Scale = "slots",
        sgd_learning_rate: Any = None,
        carry_momentum: bool = True,
        trigger: StepTrigger | None = None,
        transition: Transition | None = None,
        scope: str = "model",
        scale_scope: str = "unit",
        cooldown: Cooldown | None = None,
        jit_compile: bool | str = "auto",
        scale_multiplier: float = 1.0,
        skip_nonfinite: bool = False,
        **kwargs: Any,
    ) -> None:
        if not callable(learning_rate):
            learning_rate = checks.number("learning_rate", learning_rate, low=0)
        checks.base_arguments(kwargs)
        super().__init__(learning_rate=learning_rate, **kwargs)
        # `__setattr__` checks them, here and whenever they are assigned.
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = amsgrad
        self.momentum = momentum
        self.nesterov = nesterov
        self.sgd_scale = sgd_scale
        self.sgd_learning_rate = sgd_learning_rate
        if sgd_learning_rate is not None and sgd_scale != "slots":
            raise ValueError(
                "Only one of `sgd_scale` and `sgd_learning_rate` can be set. "
                f"Received: sgd_scale={sgd_scale!r}, "
                f"sgd_learning_rate={sgd_learning_rate!r}"
            )
        self.carry_momentum = carry_momentum
        self.trigger: Any = trigger
        self.transition: Any = transition
        self.scope = scope
        self.scale_scope = scale_scope
        self.cooldown: Any = cooldown
        self.jit_compile = jit_compile
        self.scale_multiplier = scale_multiplier
        if self.scale_multiplier != 1 and not self._estimated:
            raise ValueError(
                "`scale_multiplier` is a factor on the estimated rho: with a "
                "number as `sgd_scale`, or with `sgd_learning_rate`, change "
                "that number. Received: "
                f"scale_multiplier={scale_multiplier!r}"
            )
        if self._freezes and self._root is not rules.adaptive_root:
            raise ValueError(
                "`scale_scope` 'weight' keeps the step sizes of Adam as Keras "
                f"has it, which {type(self).__name__} has not. Received: "
                f"scale_scope={scale_scope!r}, sgd_scale={sgd_scale!r}"
            )
        if self._starts_switched and self._estimated:
            raise ValueError(
                "`trigger` fires before the first update, so there is no "
                "adaptive step to estimate the SGD learning rate from: give "
                "`sgd_learning_rate` or a number as `sgd_scale`. Received: "
                f"trigger={trigger!r}, sgd_scale={sgd_scale!r}"
            )
        self.skip_nonfinite = skip_nonfinite
        self._told_training_steps: float | None = None
        self._rebindable = False
        self._clips_in_update = False
        self._keep_unless: Tensor | None = None
        self._functions = functions.Functions()
        # Those of the callback that runs: see `accompany`.
        self._before_saving: Callable[[], None] | None = None
        self._companion: Companion | None = None

    # ---- Construction -------------------------------------------------------

    @property
    def _starts_switched(self) -> bool:
        return self.trigger is not None and self.trigger.fires_at_start

    @property
    def _scale(self) -> Any:
        """How fast, as an object."""
        if self.sgd_learning_rate is not None:
            return LearningRate(self.sgd_learning_rate)
        return scale_of(self.sgd_scale)

    @property
    def _estimated(self) -> bool:
        """Whether rho comes from the adaptive steps."""
        return bool(self._scale.estimated)

    @property
    def _freezes(self) -> bool:
        """Whether SGD keeps Adam's step size of each weight."""
        return self._scale.granularity(self.scale_scope) == "weight"

    @property
    def _sgd_rate(self) -> Any:
        """The SGD learning rate that was given, None where rho is."""
        scale = self._scale
        return scale.learning_rate if isinstance(scale, LearningRate) else None

    @property
    def _sgd_schedule(self) -> Any:
        rate = self._sgd_rate
        return None if isinstance(rate, float) else rate

    @property
    def _ever_mixed(self) -> bool:
        """Whether an update can lie between the two phases."""
        at_once = isinstance(self.transition, Hard) and self.transition.end == 1
        return not at_once or len(self._groups.names) > 1

    @property
    def _sgd_momentum(self) -> float:
        return self.beta_1 if self.momentum is None else self.momentum

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
        replicas.check_strategy(self)
        if self.jit_compile is True and backends.strategy_is_active():
            raise ValueError(
                "`jit_compile` must be 'auto' or False under a tf.distribute "
                "strategy, which cannot run inside XLA. Received: "
                "jit_compile=True"
            )
        super().build(variables)
        # Then its variables have no values yet, let alone restored ones.
        self._built_in_graph = backends.inside_a_graph()
        self._build_groups(variables)
        self._first_moments, self._second_moments = (
            self.add_optimizer_variables(
                variables, ["first_moment", "second_moment"]
            )
        )
        self._second_moments_max = (
            self.add_optimizer_variables(variables, "second_moment_max")
            if self.amsgrad
            else [None] * len(variables)
        )
        wide = any(
            keras.backend.standardize_dtype(v.dtype) == "float64"
            for v in variables
        )
        self._state_dtype = "float64" if wide else "float32"
        self._add_state(len(variables))

    def _build_groups(self, variables: Sequence[Any]) -> None:
        """Assigns each variable its decision group and its scale group."""
        self._groups = grouped(variables, self.scope)
        scope = self._scale.granularity(self.scale_scope)
        self._units = [units_of(v, scope) for v in variables]
        self._scale_groups = _scale_groups(variables, scope)

    def _add_state(self, variable_count: int) -> None:
        """Adds the small vectors, in a fixed order."""
        groups = len(self._groups.names)
        starts = self._starts_switched
        start_weight = self._start_weight if starts else 0.0
        start_scale = 0.0
        if starts and self._sgd_rate is None:
            start_scale = self._scale.rho
        # The update that SGD made first, -1 before the switch.
        self._switch_steps = self._vector(
            "switch_step", groups, 0 if starts else -1, dtype="int"
        )
        # SGD's weight in the next update.
        self._weights = self._vector("sgd_weight", groups, start_weight)
        # Updates of the second moment, for its bias correction.
        self._adaptive_steps = self._vector("adaptive_steps", groups, 0)
        # rho, one a unit, fixed at the switch; 0 before.
        units = sum(u.count for u in self._units)
        self._scales = self._vector("sgd_scale", units, start_scale)
        self._scale_state = [
            self._state_array(f"scale_state_{i}", value.shape, value)
            for i, value in enumerate(
                self._scale.init(len(self._scale_groups.names))
            )
        ]
        if self._freezes:
            # Adam's bias corrections as the switch found them.
            self._frozen_corrections = self._vector(
                "frozen_correction", groups, 0
            )
        # 1 where the first update of SGD is still to forget the first moment;
        # another update may be skipped, or have no gradient for a variable.
        self._forgets = self._vector("forgets_momentum", variable_count, 0)
        told = self._told_training_steps
        known = -1 if told is None or told == math.inf else told
        self._training_steps = self._vector(
            "training_steps", None, known, dtype="int"
        )
        # Where the constant phase began: updates made before it.
        self._phase_start = self._vector("phase_start", None, 0, dtype="int")
        self._epoch_state = self._vector(
            "epoch_trigger_state", EPOCH_STATE_SIZE, 0, dtype="float32"
        )
        initial = [] if self.trigger is None else self.trigger.init(groups)
        self._trigger_state = [
            self._state_array(f"trigger_state_{i}", value.shape, value)
            for i, value in enumerate(initial)
        ]
        self._skipped_steps = self._vector("skipped_steps", None, 0, "int")
        # DivergenceGuard's: the factor that its tries have left of rho, how
        # many divergences and tries there were, the loss that is usual.
        self._scale_cut = self._vector("sgd_scale_cut", None, 1)
        self._guard_counts = self._vector("guard_counts", 2, 0, "int")
        self._usual_loss = self._vector("usual_loss", None, 0, "float32")

    def _vector(
        self, name: str, size: int | None, value: float, dtype: str = ""
    ) -> Any:
        shape = () if size is None else (size,)
        return self._state_array(name, shape, value, dtype)

    def _state_array(
        self, name: str, shape: tuple[int, ...], value: Any, dtype: str = ""
    ) -> Any:
        def full(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
            # keras.initializers.Constant would go through float32, and a
            # broadcast is a view of one number on torch.
            return ops.convert_to_tensor(np.full(shape, value), dtype)

        return self.add_variable(
            shape=shape,
            initializer=full,
            dtype=dtype or self._state_dtype,
            aggregation="only_first_replica",
            name=name,
        )

    # ---- The update ---------------------------------------------------------

    def _backend_apply_gradients(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[Any]
    ) -> None:
        """Leaves clipping to the update, which clips in its own pass.

        Under a tf.distribute strategy that is after the sum over the replicas
        (Keras clips each replica's gradient): so it equals one device.
        """
        replicas.check_strategy(self)
        # JAX's `fit` gives the variables' values in their order, and no more.
        if self._rebindable and keras.backend.backend() != "jax":
            raise ValueError(
                "This optimizer was unpickled or copied, and does not know its "
                "variables yet: call `apply(grads, variables)` once. Received: "
                "variables=None"
            )
        self._clips_in_update = True
        try:
            super()._backend_apply_gradients(grads, trainable_variables)
        finally:
            self._clips_in_update = False

    def _clip_gradients(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """Clips; gradients of embeddings are summed over duplicates first.

        Keras' Adam squares each duplicate index alone; the dense gradient is
        the gradient.
        """
        grads = [backends.dense(g) for g in grads]
        if self._clips_in_update:
            return grads
        clipped = super()._clip_gradients(grads)
        if not self.skip_nonfinite:
            return clipped
        # Infinity would be clipped to a number; x - x leaves it NaN.
        return [c + (g - g) for c, g in zip(clipped, grads, strict=True)]

    def _update_model_variables_moving_average(
        self, trainable_variables: Sequence[Any]
    ) -> None:
        """Keras' average of the weights, compiled into one pass."""
        average = super()._update_model_variables_moving_average
        if self.jit_compile is False or not backends.can_compile():
            average(trainable_variables)
            return
        self._functions.call(
            "average",
            functools.partial(average, list(trainable_variables)),
            jit=True,
        )

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Nothing: the update itself decays, with the cool-down's factor."""

    def _backend_update_step(
        self,
        grads: Sequence[Tensor],
        trainable_variables: Sequence[Any],
        learning_rate: Any,
    ) -> None:
        """Updates all variables: compiled, dispatched or plain (see class)."""
        if (
            self.cooldown is not None
            and self.cooldown.ends_with_training
            and not self._length_is_known()
        ):
            raise ValueError(
                "`Cooldown()` lasts until the end of the training, whose "
                "length is not known: give `fit` a `SwitchCallback`, set "
                "`optimizer.training_steps`, or pass `Cooldown(steps=...)` or "
                "`Cooldown(share=...)`. Received: steps=None, share=None"
            )
        variables = list(trainable_variables)
        indices = tuple(self._get_variable_index(v) for v in variables)
        rate = ops.cast(ops.convert_to_tensor(learning_rate), self._state_dtype)
        step = ops.cast(self.iterations, self._switch_steps.dtype)
        if backends.strategy_is_active():
            self._distributed_update(variables, indices, grads, rate, step)
        elif not backends.can_compile():
            with self._unless_skipped(grads):
                self._update(variables, indices, grads, rate, step)
        else:
            run = functools.partial(self._dispatch, variables, indices)
            if backends.inside_a_graph():
                run(list(grads), rate, step)
            else:
                self._functions.call(
                    indices, run, list(grads), rate, step, jit=False
                )

    def _dispatch(
        self,
        variables: Sequence[Any],
        indices: tuple[int, ...],
        grads: Sequence[Tensor],
        rate: Tensor,
        step: Tensor,
    ) -> None:
        """The update of the phase that applies, in TensorFlow's graph."""

        def update() -> None:
            plan, fires = self._prepare(indices, rate, step)
            slots = self._slots_of(variables, indices)
            arguments = {
                "plan": {**plan, "scales": self._scales_of(plan)},
                "grads": list(grads),
                "clips": self._clip_scales(grads),
                "handles": [[functions.handle(s) for s in x] for x in slots],
            }
            layouts = self._layouts(variables, indices)
            run = functools.partial(self._run_phase, layouts)
            estimate: Any = None
            if self._estimates_in_branch(indices):
                # A branch that fires beside each that does not: to pass the
                # slots on to one more branch would cost as much as updates.
                number = plan["phase"] + len(self._phases) * ops.cast(
                    ops.any(fires), "int32"
                )
                estimate = functions.case(
                    number,
                    [
                        functools.partial(run, phase, fires=fires)
                        for fires in (False, True)
                        for phase in self._phases
                    ],
                    arguments,
                )
            else:
                functions.case(
                    plan["phase"],
                    [functools.partial(run, phase) for phase in self._phases],
                    arguments,
                )
            if self._needs:
                fires = self._observe(variables, indices, grads, plan)
            if self.trigger is not None:
                functions.run_if(
                    ops.any(fires),
                    lambda: self._switch_where(
                        fires, plan, estimate or self._estimate(plan)
                    ),
                )

        if self.skip_nonfinite:
            functions.run_if(self._count_if_skipped(grads), update)
        else:
            update()

    def _prepare(
        self, indices: Sequence[int], rate: Tensor, step: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Plans the update, and advances what does not depend on it.

        Returns the plan, and which groups the trigger fires for, if that is
        known without the update's statistics.
        """
        plan = self._plan(rate, step)
        self._advance(plan, indices)
        if self.trigger is None or self._needs:
            return plan, ops.zeros(plan["switch_steps"].shape, "bool")
        return plan, self._ask_trigger(plan, {})

    @property
    def _phases(self) -> tuple[str, ...]:
        """The phases that an update can be in, by their number in the plan."""
        phases = ("adaptive", "mixed") if self._ever_mixed else ("adaptive",)
        return (*phases, "sgd") if self.transition.end == 1 else phases

    def _phase_number(self, weights: Tensor, kept: Tensor) -> Tensor:
        """Which of `_phases` applies, as an int32 scalar."""
        number = ops.zeros((), "int32")
        if self._ever_mixed:
            started = ops.max(weights) > 0
            if not self.carry_momentum:
                started = ops.logical_or(started, ops.min(kept) < 1)
            number = ops.cast(started, "int32")
        if "sgd" in self._phases:
            over = ops.min(weights) >= 1
            number = ops.where(over, self._phases.index("sgd"), number)
        return ops.cast(number, "int32")

    def _layouts(
        self, variables: Sequence[Any], indices: Sequence[int]
    ) -> list[Layout]:
        return [
            Layout(
                index=index,
                group=self._groups.of[index],
                units=self._units[index],
                dtype=str(keras.backend.standardize_dtype(variable.dtype)),
                decay=self.weight_decay
                if self.weight_decay is not None
                and self._use_weight_decay(variable)
                else None,
                clip_value=self.clipvalue,
                carries=self.carry_momentum,
                freezes=self._freezes,
            )
            for variable, index in zip(variables, indices, strict=True)
        ]

    def _slots_of(
        self, variables: Sequence[Any], indices: Sequence[int]
    ) -> list[list[Any]]:
        """Each weight with its slots."""
        slots = []
        for variable, index in zip(variables, indices, strict=True):
            own = [
                variable,
                self._first_moments[index],
                self._second_moments[index],
            ]
            if self.amsgrad:
                own.append(self._second_moments_max[index])
            slots.append(own)
        return slots

    def _changed(self, phase: str) -> int:
        """How many of a weight and its slots a phase changes."""
        return 2 if phase == "sgd" else 4 if self.amsgrad else 3

    def _estimates_in_branch(self, indices: Sequence[int]) -> bool:
        """Whether the branch that updates can read all slots for rho."""
        return (
            isinstance(self._scale, Slots)
            and self.trigger is not None
            and not self._needs
            and sorted(indices) == list(range(len(self._first_moments)))
            and all(slot is not None for slot in self._first_moments)
        )

    def _run_phase(
        self,
        layouts: Sequence[Layout],
        phase: str,
        arguments: dict[str, Any],
        fires: bool | None = None,
    ) -> list[Tensor]:
        """One phase; with `fires` rho and whether it exists, if it is True."""
        self._update_by_layout(layouts, phase, arguments)
        if fires is None:
            return []
        if not fires:
            return [
                ops.zeros(self._scales.shape, self._state_dtype),
                ops.zeros((len(self._units),), "bool"),
            ]
        slots: list[Any] = [None] * len(layouts)
        for layout, handles in zip(layouts, arguments["handles"], strict=True):
            slots[layout.index] = [
                functions.value(handles[i], layout.dtype, layout.units.shape)
                for i in (1, -1)
            ]
        return list(self._estimate(arguments["plan"], slots))

    def _update_by_layout(
        self, layouts: Sequence[Layout], phase: str, arguments: dict[str, Any]
    ) -> None:
        """Updates each variable where its update is fastest."""
        formula, units = self._formula, self._units
        jit = self.jit_compile is not False
        by_kernel = [kernels.can_update(formula, phase, x) for x in layouts]
        beside = phase != "sgd" and all(by_kernel)
        in_blocks = [False] * len(layouts)
        if jit and not self._freezes:
            in_blocks = blocks.are_worth_it(
                layouts, blocks.LEAST_BESIDE_KERNEL if beside else blocks.LEAST
            )
        kinds = [
            "block" if block else "kernel" if kernel else "cluster"
            for block, kernel in zip(in_blocks, by_kernel, strict=True)
        ]
        plan, count = arguments["plan"], self._changed(phase)

        def chosen(kind: str, items: Sequence[Any]) -> list[Any]:
            return [x for x, k in zip(items, kinds, strict=True) if k == kind]

        def settings_for(kind: str) -> list[rules.Settings]:
            clips = chosen(kind, arguments["clips"])
            return settings_of(plan, chosen(kind, layouts), units, clips, phase)

        if "block" in kinds:
            # No step is negative, which XLA cannot know.
            zero = ops.cast(ops.minimum(plan["step"], 0), "int32")
            for layout, settings, grad, handles in zip(
                chosen("block", layouts),
                settings_for("block"),
                chosen("block", arguments["grads"]),
                chosen("block", arguments["handles"]),
                strict=True,
            ):
                blocks.update(
                    formula,
                    phase,
                    layout,
                    settings,
                    grad,
                    handles[:count],
                    zero,
                )
        if "kernel" in kinds:
            kernels.update(
                formula,
                phase,
                chosen("kernel", layouts),
                settings_for("kernel"),
                chosen("kernel", arguments["grads"]),
                [h[:count] for h in chosen("kernel", arguments["handles"])],
            )
        if "cluster" in kinds:
            own = {
                name: chosen("cluster", arguments[name])
                for name in ("grads", "clips", "handles")
            }
            clusters.update(
                formula,
                phase,
                chosen("cluster", layouts),
                units,
                {
                    "plan": {name: plan[name] for name in PLANNED & set(plan)},
                    **own,
                },
                jit,
            )

    def _count_if_skipped(self, grads: Sequence[Tensor]) -> Tensor:
        """Returns whether the gradients and their norm are finite; counts."""
        if self.global_clipnorm:
            # NaN where a gradient is not finite, or its square overflows.
            finite = ops.isfinite(self._clip_scales(grads)[0])
        else:
            finite = functools.reduce(
                ops.logical_and, [ops.all(ops.isfinite(g)) for g in grads]
            )
        skipped = ops.cast(ops.logical_not(finite), self._skipped_steps.dtype)
        self.assign_add(self._skipped_steps, skipped)
        return finite

    @contextlib.contextmanager
    def _unless_skipped(self, grads: Sequence[Tensor]) -> Iterator[None]:
        """Assignments inside keep the old value if the update is skipped.

        For where the update cannot be a branch: assignments inside branches
        fail on JAX, and branches under a tf.distribute strategy.
        """
        if self.skip_nonfinite:
            self._keep_unless = self._count_if_skipped(grads)
        try:
            yield
        finally:
            self._keep_unless = None

    def assign(self, variable: Any, value: Tensor) -> None:
        """Assigns, unless the update is to be skipped."""
        if self._keep_unless is not None:
            old = ops.convert_to_tensor(variable)
            value = ops.where(self._keep_unless, value, old)
        super().assign(variable, value)

    def _update(
        self,
        variables: Sequence[Any],
        indices: Sequence[int],
        grads: Sequence[Tensor],
        rate: Tensor,
        step: Tensor,
    ) -> None:
        """The whole update of any phase: inside XLA, on other backends."""
        plan, fires = self._prepare(indices, rate, step)
        plan["scales"] = self._scales_of(plan)
        clips = self._clip_scales(grads)
        layouts = self._layouts(variables, indices)
        every = settings_of(plan, layouts, self._units, clips, "mixed")
        slots = self._slots_of(variables, indices)
        for own, grad, settings in zip(slots, grads, every, strict=True):
            self._update_one(own, grad, settings)
        if self._needs:
            fires = self._observe(variables, indices, grads, plan)
        if self.trigger is not None:
            self._switch_if_any(fires, plan)

    def _update_one(
        self, own: Sequence[Any], grad: Tensor, settings: rules.Settings
    ) -> None:
        values = [ops.convert_to_tensor(slot) for slot in own]
        new = self._formula.new_values("mixed", settings, grad, *values)
        for slot, value in zip(own, new, strict=True):
            self.assign(slot, value)

    def _clip_scales(self, grads: Sequence[Tensor]) -> list[Tensor | None]:
        """Returns what each gradient is multiplied with to clip it."""
        if not self.clipnorm and not self.global_clipnorm:
            return [None] * len(grads)
        squares = [
            backends.square_sum(ops.cast(g, rules.update_dtype(g)))
            for g in grads
        ]
        if self.clipnorm:
            return [rules.norm_clip(x, self.clipnorm) for x in squares]
        square = sum(ops.cast(x, self._state_dtype) for x in squares)
        return [rules.global_clip(square, self.global_clipnorm)] * len(grads)

    @property
    def _formula(self) -> rules.Formula:
        return rules.Formula(
            self.beta_2,
            self.epsilon,
            self.nesterov,
            self.transition,
            self._root,
        )

    @property
    def _needs(self) -> set[str]:
        """Names of the sums over weights that something reads."""
        needs = set() if self.trigger is None else set(self.trigger.needs)
        return needs | self._scale.needs

    def _plan(self, rate: Tensor, step: Tensor) -> dict[str, Tensor]:
        """What the update needs, one entry a group (or a variable)."""
        dtype = self._state_dtype
        switch_steps = backends.read(self._switch_steps)
        switched = switch_steps >= 0
        position = ops.cast(ops.where(switched, step - switch_steps, 0), dtype)
        factor = ops.ones_like(position)
        if self.cooldown is not None:
            spans = self._cooldown_spans(switch_steps)
            factor = ops.where(
                switched, self.cooldown.factor(position, *spans), factor
            )
        momentum = self._sgd_momentum
        scale_cut = backends.read(self._scale_cut)
        rates = rate * factor
        sgd_rates = rates
        if self._sgd_schedule is not None:
            scheduled = _per_entry(self._sgd_schedule, position)
            sgd_rates = scheduled / (1 - momentum) * factor
        weights = backends.read(self._weights)
        beta_1 = _constant(self.beta_1, dtype)
        # Of the first moment: what was skipped did not change it.
        skipped = ops.cast(self._skipped_steps, step.dtype)
        updates = ops.cast(step - skipped + 1, dtype)
        adaptive_steps = backends.read(self._adaptive_steps)
        kept = 1 - backends.read(self._forgets)
        plan = {
            "phase": self._phase_number(weights, kept),
            "step": step,
            "rate": rate,
            "switch_steps": switch_steps,
            "factor": factor,
            "rates": rates,
            "sgd_rates": sgd_rates * scale_cut,
            "scale_cut": ops.reshape(scale_cut, (1,)),
            "weights": weights,
            "beta": beta_1 + weights * (momentum - beta_1),
            "kept": kept,
            "correction_1": ops.ones_like(position)
            - ops.power(beta_1, updates),
            "correction_2": 1
            - ops.power(_constant(self.beta_2, dtype), adaptive_steps + 1),
        }
        if isinstance(self._sgd_rate, float):
            # Fixed in the first update after the switch whose rate is not 0.
            scales = backends.read(self._scales)
            unset = ops.logical_and(
                spread(self._groups.spread(switched), self._units),
                ops.logical_and(scales == 0, rate > 0),
            )
            target = self._sgd_rate / (1 - momentum)
            plan["fixed_scales"] = ops.where(
                unset, target / ops.where(rate > 0, rate, 1), scales
            )
        if self._freezes:
            # They rest with the second moment, once SGD is alone.
            plan["frozen_corrections"] = ops.where(
                weights < 1,
                rules.bias_correction(
                    plan["correction_1"], plan["correction_2"]
                ),
                backends.read(self._frozen_corrections),
            )
            multiplier = _constant(self.scale_multiplier, dtype)
            plan["frozen_rates"] = (
                plan["sgd_rates"] * multiplier * plan["frozen_corrections"]
            )
        return plan

    def _cooldown_spans(self, switch_steps: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the updates after the switch, and those before it."""
        dtype = self._state_dtype
        steps = ops.cast(backends.read(self._training_steps), dtype)
        start = ops.cast(backends.read(self._phase_start), dtype)
        switched_at = ops.cast(switch_steps, dtype)
        remaining = ops.where(steps < 0, math.inf, steps - switched_at)
        return ops.cast(remaining, dtype), switched_at - start

    def _scales_of(self, plan: dict[str, Tensor]) -> Tensor:
        """Returns rho, one entry a unit."""
        if self._sgd_schedule is not None:  # It is in the rates.
            return ops.ones(self._scales.shape, self._state_dtype)
        if "fixed_scales" in plan:
            return plan["fixed_scales"]
        return backends.read(self._scales)

    # ---- State after the update ---------------------------------------------

    def _advance(self, plan: dict[str, Tensor], indices: Sequence[int]) -> None:
        """Sets what the next update reads, but for what a trigger decides."""
        dtype = self._state_dtype
        if "fixed_scales" in plan:
            self.assign(self._scales, plan["fixed_scales"])
        if not self.carry_momentum:
            # What is updated has forgotten its momentum.
            updated = np.isin(np.arange(len(self._groups.of)), indices)
            forgets = ops.where(updated, 0 * plan["kept"], 1 - plan["kept"])
            self.assign(self._forgets, forgets)
        if self._freezes:
            self.assign(self._frozen_corrections, plan["frozen_corrections"])
        adaptive = ops.cast(plan["weights"] < 1, dtype)
        self.assign(self._adaptive_steps, self._adaptive_steps + adaptive)
        self.assign(
            self._weights, self._next_weights(plan["switch_steps"], plan)
        )

    def _next_weights(
        self, switch_steps: Tensor, plan: dict[str, Tensor]
    ) -> Tensor:
        """SGD's weight in the next update of each group."""
        dtype = self._state_dtype
        switched = switch_steps >= 0
        position = ops.cast(
            ops.where(switched, plan["step"] + 1 - switch_steps, 0), dtype
        )
        weights = ops.where(switched, self.transition.weight(position), 0)
        return ops.cast(weights, dtype)

    def _observe(
        self,
        variables: Sequence[Any],
        indices: Sequence[int],
        grads: Sequence[Tensor],
        plan: dict[str, Tensor],
    ) -> Tensor:
        """Sums the update's statistics; returns where the trigger fires."""
        layouts = self._layouts(variables, indices)
        arguments: dict[str, Any] = {
            "plan": {name: plan[name] for name in PLANNED & set(plan)},
            "grads": list(grads),
            "clips": self._clip_scales(grads),
        }
        slots = [s[1:] for s in self._slots_of(variables, indices)]
        if backends.can_compile() and self.jit_compile is not False:
            arguments["handles"] = [
                [functions.handle(x) for x in own] for own in slots
            ]
            found = sums.compiled(
                self._formula,
                sorted(self._needs),
                layouts,
                arguments,
                self._state_dtype,
            )
        else:
            every = settings_of(
                plan, layouts, self._units, arguments["clips"], "adaptive"
            )
            found = [
                self._sums(own, grad, settings)
                for own, grad, settings in zip(slots, grads, every, strict=True)
            ]
        return self._take(found, indices, plan)

    def _take(
        self,
        sums: list[dict[str, Tensor]],
        indices: Sequence[int],
        plan: dict[str, Tensor],
    ) -> Tensor:
        """Averages the variables' sums; returns where the trigger fires."""
        if self._scale.needs:
            self._average(plan, indices, sums)
        if self.trigger is None:
            return ops.zeros(plan["switch_steps"].shape, "bool")
        signals = {
            name: ops.stack(
                self._groups.sums(sums, indices, name, self._state_dtype)
            )
            for name in sorted(self.trigger.needs)
        }
        return self._ask_trigger(plan, signals)

    def _sums(
        self, slots: Sequence[Any], grad: Tensor, settings: rules.Settings
    ) -> dict[str, Tensor]:
        """Returns the needed sums over one variable's weights."""
        values = [ops.convert_to_tensor(x) for x in slots]
        names = sorted(self._needs)
        terms = sums.terms(
            self._formula, names, settings, grad, values, self._state_dtype
        )
        return {name: ops.sum(term) for name, term in terms.items()}

    def _average(
        self,
        plan: dict[str, Tensor],
        indices: Sequence[int],
        sums: list[dict[str, Tensor]],
    ) -> None:
        """Advances the moving averages behind rho."""
        dtype = self._state_dtype
        active = ops.cast(plan["switch_steps"] < 0, dtype)
        active_of = ops.unstack(active)
        # Variables that have switched no longer count.
        masked = [
            {name: s * active_of[self._groups.of[i]] for name, s in row.items()}
            for i, row in zip(indices, sums, strict=True)
        ]
        totals = {
            name: ops.stack(
                [
                    *self._scale_groups.sums(masked, indices, name, dtype),
                    sum(row[name] for row in masked),
                ]
            )
            for name in sorted(self._scale.needs)
        }
        present = self._scale_group_presence(active_of, indices) > 0
        state = [backends.read(s) for s in self._scale_state]
        new = self._scale.update(state, totals, present, self.beta_2)
        for slot, value in zip(self._scale_state, new, strict=True):
            self.assign(slot, value)

    def _scale_group_presence(
        self, active: list[Tensor], indices: Sequence[int]
    ) -> Tensor:
        """Returns 1 for scale groups whose average this update moves, else 0.

        Those with a variable that is updated and still adaptive. The last
        entry is the model.
        """
        members: list[set[int]] = [set() for _ in self._scale_groups.names]
        for index in indices:
            members[self._scale_groups.of[index]].add(self._groups.of[index])
        members.append(set().union(*members))
        none = ops.zeros((), self._state_dtype)
        return ops.stack(
            [
                functools.reduce(
                    ops.maximum, [active[g] for g in sorted(groups)], none
                )
                for groups in members
            ]
        )

    def _ask_trigger(
        self, plan: dict[str, Tensor], sums: dict[str, Tensor]
    ) -> Tensor:
        """Updates the trigger's state, returns which groups it fires for."""
        signals = Signals(
            step=plan["step"] - backends.read(self._phase_start),
            learning_rate=plan["rate"],
            correction_1=plan["correction_1"],
            correction_2=plan["correction_2"],
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            **sums,
        )
        state = [backends.read(s) for s in self._trigger_state]
        fires, new_state = self.trigger.update(state, signals)
        for slot, value in zip(self._trigger_state, new_state, strict=True):
            self.assign(slot, value)
        return ops.logical_and(fires, plan["switch_steps"] < 0)

    # ---- The switch ---------------------------------------------------------

    def _switch_if_any(self, fires: Tensor, plan: dict[str, Tensor]) -> None:
        """The switch where an update cannot hold a branch that assigns."""
        count = len(self._groups.of)
        dtype = self._state_dtype
        estimate = ops.cond(
            ops.any(fires),
            lambda: self._estimate(plan),
            lambda: (
                ops.zeros(self._scales.shape, dtype),
                ops.zeros((count,), "bool"),
            ),
        )
        self._switch_where(fires, plan, estimate)

    def _switch_where(
        self,
        fires: Tensor,
        plan: dict[str, Tensor],
        estimate: tuple[Tensor, Tensor],
    ) -> None:
        """Switches the groups that the trigger fires for, if rho exists.

        Args:
            fires: One entry a group.
            plan: Of the update just made.
            estimate: rho, one a unit, and whether it exists, one a variable.
        """
        rho, exists = estimate
        fires = ops.logical_and(fires, self._groups.every(exists))
        switch_steps = ops.where(fires, plan["step"] + 1, plan["switch_steps"])
        fresh = self._groups.spread(fires)
        if not self.carry_momentum:
            forgets = backends.read(self._forgets)
            self.assign(
                self._forgets, ops.where(fresh, ops.ones_like(forgets), forgets)
            )
        if self._sgd_rate is None:
            scales = backends.read(self._scales)
            of_units = spread(fresh, self._units)
            self.assign(self._scales, ops.where(of_units, rho, scales))
        self.assign(self._switch_steps, switch_steps)
        self.assign(self._weights, self._next_weights(switch_steps, plan))

    def _estimate(
        self, plan: dict[str, Tensor], slots: Sequence[Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns rho, one a unit, and whether it exists, one a variable.

        Args:
            plan: The corrections of the update that left the slots.
            slots: m and v (or its maximum) of each variable; None: as the
                optimizer's variables have them.
        """
        dtype = self._state_dtype
        if not self._scale.estimated:
            # A float sgd_learning_rate fixes rho in the first SGD update.
            rho = 0.0 if self._sgd_rate is not None else self._scale.rho
            return (
                ops.convert_to_tensor(np.full(self._scales.shape, rho), dtype),
                ops.ones((len(self._groups.of),), "bool"),
            )
        if isinstance(self._scale, Slots):
            rho, exists = self._estimate_from_slots(plan, slots)
        else:
            state = [backends.read(s) for s in self._scale_state]
            rho, exists = self._scale.estimate(state, self._scale_groups)
        return rho * _constant(self.scale_multiplier, dtype), exists

    def _estimate_from_slots(
        self, plan: dict[str, Tensor], slots: Sequence[Any] | None
    ) -> tuple[Tensor, Tensor]:
        """Returns `Slots.estimate`; a variable without slots counts as 0."""
        variables = self._trainable_variables
        indices = range(len(variables))
        if slots is None:
            slots = [
                None if s[1] is None else [s[1], s[-1]]
                for s in self._slots_of(variables, indices)
            ]
        layouts = self._layouts(variables, indices)
        clips: list[Tensor | None] = [None] * len(variables)
        every = settings_of(plan, layouts, self._units, clips, "adaptive")
        # Variables that have switched no longer count.
        active = ops.cast(plan["switch_steps"] < 0, self._state_dtype)
        active_of = ops.unstack(self._groups.spread(active))
        sums = []
        for variable, settings, own, units, on in zip(
            variables, every, slots, self._units, active_of, strict=True
        ):
            dtype = rules.update_dtype(variable)
            if own is None:
                m = p = ops.zeros(variable.shape, dtype)
            else:
                m, v = (ops.cast(ops.convert_to_tensor(x), dtype) for x in own)
                p = self._formula.step(settings, m, m, v)
            p, m = (ops.cast(x, self._state_dtype) for x in (p, m))
            sums.append([x * on for x in slot_sums(p, m, units)])
        squares, moments = zip(*sums, strict=True)
        return self._scale.estimate(
            squares, moments, self._units, self._scale_groups
        )

    def _last_plan(self) -> dict[str, Tensor]:
        """The plan of the update made last, as far as a switch reads it."""
        step = ops.cast(self.iterations, self._switch_steps.dtype) - 1
        plan = self._plan(ops.ones((), self._state_dtype), step)
        adaptive_steps = backends.read(self._adaptive_steps)
        beta_2 = _constant(self.beta_2, self._state_dtype)
        correction_2 = 1 - ops.power(beta_2, adaptive_steps)
        return {**plan, "correction_2": correction_2}

    def _distributed_update(
        self,
        variables: list[Any],
        indices: tuple[int, ...],
        grads: Sequence[Tensor],
        rate: Tensor,
        step: Tensor,
    ) -> None:
        """The plain path under a tf.distribute strategy."""
        values = [
            v.value if isinstance(v, keras.Variable) else v for v in variables
        ]
        pairs = self._all_reduce_sum_gradients(
            list(zip(grads, values, strict=True))
        )
        summed = [grad for grad, _ in pairs]
        clips = self._clip_scales(summed)
        layouts = self._layouts(variables, indices)
        slots = self._slots_of(variables, indices)

        def plan() -> tuple[dict[str, Tensor], list[rules.Settings]]:
            whole, fires = self._prepare(indices, rate, step)
            whole = {**whole, "scales": self._scales_of(whole), "fires": fires}
            return whole, settings_of(
                whole, layouts, self._units, clips, "mixed"
            )

        def one(
            i: int, variable: Any, grad: Tensor, settings: rules.Settings
        ) -> dict[str, Tensor]:
            own = [variable, *slots[i][1:]]
            self._update_one(own, grad, settings)
            if not self._needs:
                return {}
            return self._sums(own[1:], grad, settings)

        def finish(
            whole: dict[str, Tensor], sums: list[dict[str, Tensor]]
        ) -> None:
            fires = whole["fires"]
            if self._needs:
                fires = self._take(sums, indices, whole)
            if self.trigger is not None:
                self._switch_if_any(fires, whole)

        with self._unless_skipped(summed):
            replicas.update_on_replicas(
                self._distribution_strategy, pairs, plan, one, finish
            )

    # ---- What the user asks and reads ---------------------------------------

    def _has_state(self) -> bool:
        """Whether it is built; raises where its variables have no values.

        JAX's `fit` keeps them in its own hands between the batches: what is
        read then is void, and what is assigned is lost.
        """
        if self.built and not backends.is_readable(self._iterations):
            raise ValueError(
                "On JAX, `fit` holds the optimizer's state between batches: "
                "reach it through the callback's `self.model.optimizer`, or "
                "call `model.jax_state_sync()` before. Received: an optimizer "
                "whose variables have no values"
            )
        return bool(self.built)

    def _check_built(self, what: str) -> None:
        if not self._has_state():
            raise ValueError(
                f"`{what}` needs a built optimizer: call it after the first "
                "update, or call `optimizer.build(model.trainable_variables)`. "
                f"Received: built={self.built}"
            )

    @property
    def updates_made(self) -> int:
        """Updates so far."""
        return self.batches_seen // (self.gradient_accumulation_steps or 1)

    @property
    def epoch_state(self) -> np.ndarray:
        """Room of `EPOCH_STATE_SIZE` numbers for an epoch trigger's state."""
        return np.array(self._epoch_state.numpy())

    @epoch_state.setter
    def epoch_state(self, values: np.ndarray) -> None:
        self._epoch_state.assign(values)

    @property
    def batches_seen(self) -> int:
        """Gradients taken so far; updates, where none are accumulated."""
        return int(self._iterations.numpy())

    def _length_is_known(self) -> bool:
        if self._told_training_steps is not None:
            return True
        if self._built_in_graph or not backends.is_readable(self._iterations):
            return False
        # A restored optimizer has it in its variable alone.
        with backends.outside_the_graph():
            return self.training_steps is not None

    def switch(self) -> None:
        """Starts the transition with the next update, for every group.

        Groups that have switched already stay as they are. Works between the
        batches of `fit` and causes no retrace.

        Raises:
            ValueError: If the optimizer is not built, or rho is to be
                estimated and no update has given a positive estimate yet.
        """
        self._check_built("switch()")
        waiting = self._switch_steps.numpy() < 0
        plan = self._last_plan()
        estimate = self._estimate(plan)
        exists = ops.convert_to_numpy(estimate[1])
        if not exists[waiting[self._groups.of]].all():
            raise NoEstimate(
                "`switch()` needs a positive, finite estimate of the SGD "
                "learning rate, and the updates so far have given none: switch "
                "after some adaptive updates, choose another `sgd_scale`, or "
                "give `sgd_learning_rate`. Received: iterations="
                f"{self.updates_made}, sgd_scale={self.sgd_scale!r}"
            )
        self._switch_where(ops.convert_to_tensor(waiting), plan, estimate)

    def revert(self) -> None:
        """Goes back to the adaptive phase with the next update.

        The second moment and the moving averages of rho continue from where
        the switch left them; triggers start anew. With `carry_momentum=False`
        the first moment is young, but its bias correction is not: Adam's first
        steps are then too short, as beta_1^k with the k updates since the
        switch.

        Raises:
            ValueError: If the optimizer is not built.
        """
        self._check_built("revert()")
        for variable, value in (
            (self._switch_steps, -1),
            (self._weights, 0),
            (self._scales, 0),
            (self._epoch_state, 0),
            (self._forgets, 0),
        ):
            variable.assign(np.full(variable.shape, value))
        groups = len(self._groups.names)
        initial = [] if self.trigger is None else self.trigger.init(groups)
        for variable, value in zip(self._trigger_state, initial, strict=True):
            variable.assign(value)

    def restart(self) -> None:
        """Begins a training anew from the weights that there are.

        The slots go on, the cool-down is over, and triggers and a cool-down's
        share count updates from here. An optimizer that starts switched
        (`AtStep(0)`) starts switched again.

        Raises:
            ValueError: If the optimizer is not built.
        """
        self._check_built("restart()")
        scales = self._scales.numpy()
        self.revert()
        made = self.updates_made
        self._phase_start.assign(made)
        if self._starts_switched:
            shape = self._switch_steps.shape
            self._switch_steps.assign(np.full(shape, made))
            self._weights.assign(np.full(shape, self._start_weight))
            self._scales.assign(scales)

    @property
    def has_switched(self) -> bool:
        """Whether every group has switched (read-only)."""
        return self.switch_step is not None

    @property
    def switch_step(self) -> int | None:
        """The first update that SGD makes, of the last group to switch.

        None until every group has switched. Updates count from 0.
        """
        if not self._has_state():
            return None
        steps = self._switch_steps.numpy()
        return int(steps.max()) if steps.min() >= 0 else None

    @property
    def switch_steps(self) -> dict[str, int | None]:
        """`switch_step` of each group by its name, None where it waits."""
        if not self._has_state():
            return {}
        steps = self._switch_steps.numpy().tolist()
        return {
            name: None if step < 0 else step
            for name, step in zip(self._groups.names, steps, strict=True)
        }

    @property
    def sgd_fraction(self) -> float:
        """SGD's weight in the next update, averaged over the groups."""
        if not self._has_state():
            return 0.0
        return float(self._weights.numpy().mean())

    @property
    def sgd_learning_rates(self) -> dict[str, float | None]:
        """The SGD phase's learning rate of each variable by its path.

        learning_rate * cool-down * (1 - momentum) * rho: as
        keras.optimizers.SGD(momentum=...) counts it, in the mean over the
        variable's units. Before the switch with the estimate so far, None
        where there is none yet.
        """
        if not self._has_state() or not self._trainable_variables:
            return {}
        step = ops.cast(self.iterations, self._switch_steps.dtype)
        rate = ops.cast(
            ops.convert_to_tensor(self.learning_rate), self._state_dtype
        )
        _, sgd_rates, scales = self._asked(
            "next update", self._next_update, rate, step
        )
        starts = np.cumsum([0, *(u.count for u in self._units[:-1])])

        def of_variables(scales: Tensor) -> np.ndarray:
            sums = np.add.reduceat(ops.convert_to_numpy(scales), starts)
            return sums / [u.count for u in self._units]

        rates = ops.convert_to_numpy(sgd_rates)[self._groups.of]
        scales = of_variables(scales)
        sgd_steps = scales * rates
        known = np.ones(len(sgd_steps), bool)
        if self._sgd_schedule is None:
            waiting = scales == 0
            if not waiting.any():
                guess = np.zeros_like(scales)
            elif self._sgd_rate is None:
                estimate, exists = self._asked("estimate", self._estimate_now)
                known = ~waiting | ops.convert_to_numpy(exists)
                guess = ops.convert_to_numpy(rate) * of_variables(estimate)
            else:
                guess = self._sgd_rate / (1 - self._sgd_momentum)
            guess = guess * self._scale_cut.numpy()
            sgd_steps = np.where(waiting, guess, sgd_steps)
        names = grouped(self._trainable_variables, "variable").names
        return {
            name: float(size * (1 - self._sgd_momentum)) if has else None
            for name, size, has in zip(names, sgd_steps, known, strict=True)
        }

    def _next_update(
        self, rate: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the cool-down's factors, SGD's rates, and rho."""
        plan = self._plan(rate, step)
        return plan["factor"], plan["sgd_rates"], self._scales_of(plan)

    def _estimate_now(self) -> tuple[Tensor, Tensor]:
        return self._estimate(self._last_plan())

    def _asked(
        self, name: str, function: Callable[..., Any], *arguments: Tensor
    ) -> Any:
        """Computes an answer, traced once: callbacks ask at each epoch."""
        if backends.can_compile() and not backends.strategy_is_active():
            return self._functions.call(
                ("asked", name), function, *arguments, jit=False
            )
        return function(*arguments)

    @property
    def sgd_learning_rate_equivalent(self) -> float | None:
        """`sgd_learning_rates` as one number, averaged over all weights.

        None where there is no estimate yet.
        """
        rates = list(self.sgd_learning_rates.values())
        if not rates or None in rates:
            return None
        sizes = [int(np.prod(v.shape)) for v in self._trainable_variables]
        return float(np.average(np.array(rates, float), weights=sizes))

    @property
    def cooldown_factor(self) -> float:
        """The cool-down's factor in the next update, over the groups' mean."""
        if not self._has_state():
            return 1.0
        step = ops.cast(self.iterations, self._switch_steps.dtype)
        one = _constant(1.0, self._state_dtype)
        factor, *_ = self._asked("next update", self._next_update, one, step)
        return float(ops.convert_to_numpy(factor).mean())

    @property
    def cooldown_end(self) -> int | None:
        """The number of updates after which the cool-down is over.

        Of the last group to switch. None before the switch, without a
        cool-down, and where the length of the training is not known and needed.
        """
        switched_at = self.switch_step
        if switched_at is None or self.cooldown is None:
            return None
        spans = self._cooldown_spans(self._switch_steps.value)
        length = ops.convert_to_numpy(self.cooldown.length(*spans))
        ends = self._switch_steps.numpy() + length
        return int(ends.max()) if np.isfinite(ends).all() else None

    @property
    def phase_start(self) -> int:
        """Updates before the training began: at 0, or the last `restart()`."""
        return int(self._phase_start.numpy()) if self._has_state() else 0

    @property
    def skipped_steps(self) -> int:
        """Updates that `skip_nonfinite` has skipped so far."""
        return int(self._skipped_steps.numpy()) if self.built else 0

    @property
    def training_steps(self) -> float | None:
        """The number of updates of the whole training, None if not known.

        A cool-down ends there at the latest. `SwitchCallback` sets it in
        `fit`; set it yourself in a loop of your own. `math.inf` says that it
        will be known later: until then a cool-down does not fall.
        """
        if not self._has_state():
            return self._told_training_steps
        steps = int(self._training_steps.numpy())
        return None if steps < 0 else steps

    @training_steps.setter
    def training_steps(self, steps: float) -> None:
        if steps != math.inf:
            steps = checks.integer("training_steps", steps, low=1)
        if self._has_state():
            self._training_steps.assign(-1 if steps == math.inf else steps)
        self._told_training_steps = steps

    def accompany(
        self,
        before_saving: Callable[[], None] | None = None,
        companion: Companion | None = None,
    ) -> None:
        """Lets a callback of `fit` take part in what is saved from now on.

        Args:
            before_saving: Called before the state is written to a file.
            companion: What is written beside the state and given back with it;
                files without it, and optimizers without one, do without.
        """
        self._before_saving = before_saving
        self._companion = companion

    @property
    def companion(self) -> Companion | None:
        """What `accompany` was given."""
        return self._companion

    def save_own_variables(self, store: Any) -> None:
        """Saves the state; Keras calls it for every file it writes."""
        if self._before_saving is not None:
            self._before_saving()
        super().save_own_variables(store)
        for name, array in companions.entries_of(self._companion).items():
            store[name] = array

    def __setattr__(self, name: str, value: Any) -> None:
        """Always reaches the setter of `training_steps`.

        Keras' own drops an assignment whose value the property returns
        already, as after a restore. Arguments are checked as by the
        constructor; they are constants of the compiled update, which is
        compiled anew when one is changed.
        """
        if name in ("training_steps", "epoch_state"):
            object.__setattr__(self, name, value)
            return
        if name in _CHECKS:
            value = _CHECKS[name](name, value)
        if self.__dict__.get("built"):
            self._check_state_fits(name, value)
        super().__setattr__(name, value)
        if name == "transition":
            self._start_weight = _weight_at_start(value)
        if not name.startswith("_") and name != "learning_rate":
            self._forget_functions()

    def _check_state_fits(self, name: str, value: Any) -> None:
        """Raises where an argument is changed that the variables depend on."""
        if name in ("amsgrad", "scope", "scale_scope"):
            fits = value == getattr(self, name)
        elif name == "sgd_scale":
            fits = self._fits_state(scale_of(value))
        elif name == "trigger":
            groups = len(self._groups.names)
            initial = [] if value is None else value.init(groups)
            fits = [np.shape(x) for x in initial] == [
                tuple(v.shape) for v in self._trigger_state
            ]
        else:
            return
        if not fits:
            raise ValueError(
                f"`{name}` decides which variables the optimizer has: set it "
                "before the first update, or make a new optimizer. Received: "
                f"{name}={value!r}"
            )

    def _fits_state(self, scale: Any) -> bool:
        """Whether a scale can go on with the variables that there are."""
        if not scale.estimated:
            return True
        variables = self._trainable_variables
        scope = scale.granularity(self.scale_scope)
        groups = len(_scale_groups(variables, scope).names)
        return (
            [units_of(v, scope) for v in variables] == self._units
            and groups == len(self._scale_groups.names)
            and (scope == "weight") == hasattr(self, "_frozen_corrections")
            and [x.shape for x in scale.init(groups)]
            == [tuple(v.shape) for v in self._scale_state]
        )

    def exclude_from_weight_decay(
        self, var_list: Any = None, var_names: Any = None
    ) -> None:
        """As Keras' own; the compiled update is compiled anew."""
        super().exclude_from_weight_decay(var_list, var_names)
        self._forget_functions()

    def _forget_functions(self) -> None:
        functions = self.__dict__.get("_functions")
        if functions is not None:
            functions.clear()

    def _reconfigure(self, **arguments: Any) -> None:
        """Replaces constructor arguments of an optimizer not built yet.

        The tuner gives a model that the user compiled another transition so:
        the model, its loss scaling and its config keep their optimizer.
        """
        if self.built:
            raise ValueError(
                "The optimizer has state already: it must not be built before "
                f"its transition is set. Received: built={self.built}"
            )
        other = type(self).from_config({**self.get_config(), **arguments})
        for name in arguments:
            setattr(self, name, getattr(other, name))

    # ---- Saving -------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        config = super().get_config()
        config.update(
            {
                name: getattr(self, name)
                for name in (
                    "beta_1",
                    "beta_2",
                    "epsilon",
                    "amsgrad",
                    "momentum",
                    "nesterov",
                    "carry_momentum",
                    "scope",
                    "scale_scope",
                    "jit_compile",
                    "scale_multiplier",
                    "skip_nonfinite",
                )
            }
        )
        for name in ("sgd_learning_rate", *_PARTS):
            config[name] = keras.saving.serialize_keras_object(
                getattr(self, name)
            )
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> HybridOptimizer:
        """Makes the optimizer that `get_config` described, without state."""
        config = dict(config)
        for name in ("learning_rate", "sgd_learning_rate", *_PARTS):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return cls(**config)

    @classmethod
    def from_recipe(
        cls,
        recipe: Any,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        **arguments: Any,
    ) -> HybridOptimizer:
        """Makes the optimizer that a search found (`keras-hybrid tune`).

        A plan that switches at a plateau or a gap needs
        `SwitchCallback.from_recipe(recipe)` in `fit` as well: its trigger
        reads the logs.

        Args:
            recipe: Path of the JSON file, the name of a recipe that comes with
                the library (e.g. `"mnist-mlp_small"`), or a `Recipe`.
            epochs: Of your training; None (default): as in the search.
            steps_per_epoch: Updates an epoch; given exactly if `epochs` is.
            **arguments: In place of the recipe's, e.g. `learning_rate`.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If there is no such recipe, the file is damaged or of
                another format, or only one of the lengths is given.

        Example:
        >>> from keras_hybrid import HybridOptimizer
        >>> optimizer = HybridOptimizer.from_recipe(
        ...     "mnist-mlp_small", epochs=10, steps_per_epoch=100
        ... )
        """
        found = recipes.Recipe.of(recipe)
        optimizer = cls.from_config(
            {**found.optimizer_arguments(epochs, steps_per_epoch), **arguments}
        )
        optimizer.training_steps = found.steps(epochs, steps_per_epoch)
        return optimizer

    def load_own_variables(self, store: Any) -> None:
        """Sets the state; a length that comes with it is known from then on.

        JAX cannot look for it while it traces the update.
        """
        stored = {name: store[name] for name in store.keys()}
        super().load_own_variables(
            {k: v for k, v in stored.items() if not companions.is_entry(k)}
        )
        if self.built:
            self._told_training_steps = self.training_steps
        companions.give_back(self._companion, stored)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and deep-copies with all state.

        Keras' own way drops the state of an optimizer without its model.
        """
        built = self._has_state()
        config = keras.saving.serialize_keras_object(self)
        pattern = getattr(self, "_exclude_from_weight_decay_pattern", None)
        steps = self.training_steps
        if not built:
            if getattr(self, "_exclude_from_weight_decay", None):
                raise ValueError(
                    "`exclude_from_weight_decay(var_list=...)` names variables "
                    "of this process: copy or pickle the optimizer after its "
                    "first update, or give `var_names`. Received: an optimizer "
                    "that is not built"
                )
            return _unpickled, (config, pattern, None, None, steps)
        shapes = [
            (
                getattr(v, "path", v.name),
                tuple(v.shape),
                keras.backend.standardize_dtype(v.dtype),
                self._use_weight_decay(v),
                self._overwrite_variable_with_gradient(v),
            )
            for v in self._trainable_variables
        ]
        values = [v.numpy() for v in self.variables]
        return _unpickled, (config, pattern, shapes, values, steps)

    def _check_variables_are_known(self, variables: Sequence[Any]) -> None:
        """Binds an unpickled optimizer to the first fitting variables."""
        if self._rebindable:
            expected = [tuple(v.shape) for v in self._trainable_variables]
            if [tuple(v.shape) for v in variables] != expected:
                raise ValueError(
                    "This optimizer was unpickled or copied with the state of "
                    f"variables of shapes {expected}. Received: shapes="
                    f"{[tuple(v.shape) for v in variables]}"
                )
            excluded = [
                i
                for i, v in enumerate(self._trainable_variables)
                if not self._use_weight_decay(v)
            ]
            self.exclude_from_weight_decay([variables[i] for i in excluded])
            # Past Keras' own setter, which would track the model's variables
            # as the optimizer's and save them with it.
            indices = {self._var_key(v): i for i, v in enumerate(variables)}
            object.__setattr__(self, "_trainable_variables_indices", indices)
            object.__setattr__(self, "_trainable_variables", list(variables))
            self._functions.clear()
            self._rebindable = False
        super()._check_variables_are_known(variables)


_PARTS = ("sgd_scale", "trigger", "transition", "cooldown")


def _unpickled(
    config: Any,
    pattern: Any,
    shapes: Any,
    values: Any,
    steps: int | None = None,
) -> HybridOptimizer:
    optimizer = keras.saving.deserialize_keras_object(config)
    optimizer._told_training_steps = steps
    if pattern is not None:
        optimizer._exclude_from_weight_decay_pattern = pattern
    if shapes is not None:
        stand_ins = []
        excluded = []
        for path, shape, dtype, decays, overwritten in shapes:
            stand_in = keras.Variable(
                initializer="zeros", shape=shape, dtype=dtype
            )
            stand_in._path = path
            stand_in.overwrite_with_gradient = overwritten
            stand_ins.append(stand_in)
            if not decays:
                excluded.append(stand_in)
        optimizer.exclude_from_weight_decay(excluded)
        optimizer.build(stand_ins)
        for variable, value in zip(optimizer.variables, values, strict=True):
            variable.assign(value)
        optimizer._rebindable = True
    return optimizer


def _scale_groups(variables: Sequence[Any], scope: str) -> Groups:
    """The variables that share what the scale knows of them."""
    shared = "variable" if scope in ("unit", "weight") else scope
    return grouped(variables, shared)


def _constant(value: float, dtype: Any) -> Tensor:
    """A tensor of `value`; a cast would go through float32."""
    return ops.convert_to_tensor(value, dtype=dtype)


def _per_entry(schedule: Any, positions: Tensor) -> Tensor:
    """Calls a schedule for each entry: some take only scalars."""
    return ops.stack(
        [
            ops.cast(schedule(positions[i]), positions.dtype)
            for i in range(positions.shape[0])
        ]
    )


def _weight_at_start(transition: Transition) -> float:
    """SGD's weight in the update right after the switch."""
    # Set with the transition, as `build` may be traced into a graph.
    weight = transition.weight(np.zeros((), "float64"))
    return float(ops.convert_to_numpy(weight))


def _momentum(name: str, value: Any) -> float | None:
    return None if value is None else _BELOW_ONE(name, value)


def _sgd_learning_rate(name: str, value: Any) -> Any:
    return None if value is None else rate_or_schedule(name, value)


def _trigger(name: str, value: Any) -> StepTrigger | None:
    trigger = checks.instance_or_none(
        name,
        value,
        StepTrigger,
        "a step trigger (AtStep, ProjectionConverged, "
        "GradientSignalToNoise); epoch triggers go to SwitchCallback",
    )
    unknown = set(() if trigger is None else trigger.needs) - SUMS
    if unknown:
        raise ValueError(
            f"`needs` of a trigger may hold {', '.join(sorted(SUMS))}. "
            f"Received: needs={sorted(unknown)}"
        )
    return trigger


def _transition(name: str, value: Any) -> Transition:
    allowed = "Hard(...) or Blend(...)"
    return checks.instance_or_none(name, value, Transition, allowed) or Hard()


def _cooldown(name: str, value: Any) -> Cooldown | None:
    return checks.instance_or_none(name, value, Cooldown, "Cooldown(...)")


def _jit_compile(name: str, value: Any) -> bool | str:
    checks.choice(name, value, (True, False, "auto"))
    if value is True and keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`jit_compile` can only be True on the TensorFlow backend "
            "(JAX compiles the whole training step itself). Received: "
            f"jit_compile=True, backend={keras.backend.backend()!r}"
        )
    return value


_BELOW_ONE = functools.partial(checks.number, low=0, below=1)
_POSITIVE = functools.partial(checks.number, above=0)
_SCOPE = functools.partial(checks.choice, choices=SCOPES)
# What each argument may be; its value as it is kept.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "beta_1": _BELOW_ONE,
    "beta_2": _BELOW_ONE,
    "epsilon": _POSITIVE,
    "amsgrad": checks.boolean,
    "momentum": _momentum,
    "nesterov": checks.boolean,
    "sgd_scale": scale_argument,
    "sgd_learning_rate": _sgd_learning_rate,
    "carry_momentum": checks.boolean,
    "trigger": _trigger,
    "transition": _transition,
    "scope": _SCOPE,
    "scale_scope": functools.partial(checks.choice, choices=SCALE_SCOPES),
    "cooldown": _cooldown,
    "jit_compile": _jit_compile,
    "scale_multiplier": _POSITIVE,
    "skip_nonfinite": checks.boolean,
}
