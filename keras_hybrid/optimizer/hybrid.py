"""HybridOptimizer: Adam until the switch, SGD with momentum after it."""

from __future__ import annotations

import functools
from typing import Any

import keras

from keras_hybrid import recipes, rules
from keras_hybrid._support import checks
from keras_hybrid.formula import Formula
from keras_hybrid.optimizer import arguments
from keras_hybrid.optimizer.choices import Choices
from keras_hybrid.optimizer.phased import PhasedOptimizer
from keras_hybrid.scales import LearningRate, Scale
from keras_hybrid.scales.short_forms import scale_of
from keras_hybrid.transitions import Cooldown, Transition
from keras_hybrid.triggers import StepTrigger


@checks.registered
class HybridOptimizer(PhasedOptimizer):
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
            convention of keras.optimizers.SGD(momentum=...), in place of
            `sgd_scale`, a float or a LearningRateSchedule counted from the
            switch. It multiplies the whole momentum: for Keras' convention see
            `scales.LearningRate`, whose short form it is.
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
            second moment (while Adam has a part, its present one). What is
            averaged before the switch knows nothing finer than a variable.
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
            `use_ema` go on, as in Keras. Accumulated gradients count as one.
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
    root = staticmethod(rules.adaptive_root)

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
        self.carry_momentum = carry_momentum
        self.trigger: Any = trigger
        self.transition: Any = transition
        self.scope = scope
        self.scale_scope = scale_scope
        self.cooldown: Any = cooldown
        self.jit_compile = jit_compile
        self.scale_multiplier = scale_multiplier
        self.skip_nonfinite = skip_nonfinite
        arguments.check_together(self)

    # ---- What they come to --------------------------------------------------

    @property
    def scale(self) -> Any:
        """How fast, as an object."""
        if self.sgd_learning_rate is not None:
            return LearningRate(self.sgd_learning_rate)
        return scale_of(self.sgd_scale)

    @property
    def sgd_momentum(self) -> float:
        """The momentum of the SGD phase."""
        return self.beta_1 if self.momentum is None else self.momentum

    @property
    def formula(self) -> Formula:
        """The update of one variable."""
        return Formula(
            self.beta_2,
            self.epsilon,
            self.nesterov,
            self.transition,
            self.root,
        )

    @functools.cached_property
    def choices(self) -> Choices:
        """What is fixed while an update is traced."""
        return Choices(
            formula=self.formula,
            beta_1=self.beta_1,
            momentum=self.sgd_momentum,
            amsgrad=self.amsgrad,
            carries=self.carry_momentum,
            scale=self.scale,
            scale_scope=self.scale_scope,
            multiplier=self.scale_multiplier,
            trigger=self.trigger,
            start_weight=self._start_weight,
            cooldown=self.cooldown,
            skips=self.skip_nonfinite,
            jit=self.jit_compile is not False,
            clipnorm=self.clipnorm,
            clipvalue=self.clipvalue,
            global_clipnorm=self.global_clipnorm,
        )

    def build(self, variables: Any) -> None:
        """As the base, but not with `jit_compile=True` under a strategy."""
        if not self.built:
            arguments.check_to_build(self)
            super().build(variables)

    # ---- Changed later ------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        """Checks arguments as the constructor does.

        They are constants of the update, which is compiled anew; Keras' step
        around it by a `fit` with a callback of ours, or `model.compile`.
        """
        value = arguments.checked(name, value)
        if name in arguments.TRACED and self.__dict__.get("built"):
            arguments.check_assigned(self, name, value)
            self.outdates_traces = True
        super().__setattr__(name, value)
        if name == "transition":
            # Now, as `build` may be traced into a graph.
            self._start_weight = arguments.weight_at_start(value)
        if not name.startswith("_") and name != "learning_rate":
            self.__dict__.pop("choices", None)
            self.forget_functions()

    def reconfigure(self, **changes: Any) -> None:
        """Replaces constructor arguments of an optimizer not built yet.

        The tuner gives a model that the user compiled another transition so:
        the model, its loss scaling and its config keep their optimizer.
        """
        if self.built:
            raise ValueError(
                "The optimizer has state already: it must not be built before "
                f"its transition is set. Received: built={self.built}"
            )
        other = type(self).from_config({**self.get_config(), **changes})
        for name in changes:
            setattr(self, name, getattr(other, name))

    # ---- Saving -------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        config = super().get_config()
        config.update({name: getattr(self, name) for name in arguments.PLAIN})
        for name in arguments.PARTS:
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
        for name in ("learning_rate", *arguments.PARTS):
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
