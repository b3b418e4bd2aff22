"""A Keras optimizer that updates all its variables in one function."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import keras
from keras import ops

from keras_hybrid.execution import backends, functions, replicas
from keras_hybrid.optimizer.kept import KeptOptimizer

Tensor = Any


class Update(Protocol):
    """How some variables are updated; made anew in each trace."""

    def dispatched(
        self, grads: Sequence[Tensor], rate: Tensor, step: Tensor
    ) -> None:
        """In TensorFlow's graph, outside XLA."""

    def plain(
        self, grads: Sequence[Tensor], rate: Tensor, step: Tensor
    ) -> None:
        """Anywhere: inside XLA, on other backends."""

    def on_replicas(
        self,
        strategy: Any,
        pairs: Sequence[tuple[Tensor, Any]],
        rate: Tensor,
        step: Tensor,
    ) -> None:
        """Under a tf.distribute strategy."""


class WholeUpdateOptimizer(KeptOptimizer):
    """Base of an optimizer whose update of all variables is one function.

    Keras updates one variable after the other, in passes of their own for
    clipping, weight decay and averages. Here a subclass gives an `Update`,
    which clips and decays in its own pass, and this class runs it where it is
    fastest: compiled once in an eager loop, in the graph that surrounds it, in
    one plain pass inside XLA and on other backends, or on a strategy's
    replicas.

    Attributes:
        jit_compile: False: XLA may not compile.
        skip_nonfinite: Whether an update that is not finite is skipped.
        outdates_traces: Whether an argument has changed since a `fit` began.
    """

    jit_compile: bool | str = "auto"
    skip_nonfinite = False
    outdates_traces = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._functions = functions.Functions()
        self._clips_in_update = False

    # ---- What a subclass gives ----------------------------------------------

    @property
    def rate_dtype(self) -> str:
        """Of the learning rate that an update is given."""
        raise NotImplementedError

    def update_of(
        self, variables: Sequence[Any], indices: Sequence[int]
    ) -> Update:
        """Returns the update of some variables.

        Args:
            variables: The weights.
            indices: Their places among the optimizer's variables.
        """
        raise NotImplementedError

    def check_update(self) -> None:
        """Raises where no update can be made as things are."""

    # ---- What Keras calls ---------------------------------------------------

    def build(self, variables: Sequence[Any]) -> None:
        """Checks the strategy; a subclass adds its state after this."""
        replicas.check_strategy(self)
        super().build(variables)

    def _backend_apply_gradients(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[Any]
    ) -> None:
        """Leaves clipping to the update, which clips in its own pass.

        Under a tf.distribute strategy that is after the sum over the replicas
        (Keras clips each replica's gradient): so it equals one device.
        """
        replicas.check_strategy(self)
        self.check_variables()
        grads = [
            backends.as_gradient(g, v.dtype)
            for g, v in zip(grads, trainable_variables, strict=True)
        ]
        for grad, variable in zip(grads, trainable_variables, strict=True):
            backends.check_shape(grad, variable)
        self._clips_in_update = True
        try:
            super()._backend_apply_gradients(grads, trainable_variables)
        finally:
            self._clips_in_update = False

    def check_form(self) -> None:
        """Refuses arguments that a subclass's formula has no form for.

        Asked at construction, at the first update, and when one is assigned.

        Raises:
            ValueError: If there is one.
        """

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
        """Updates all variables: dispatched, plain or on replicas."""
        self.check_update()
        variables = list(trainable_variables)
        indices = tuple(self._get_variable_index(v) for v in variables)
        rate = ops.cast(ops.convert_to_tensor(learning_rate), self.rate_dtype)
        step = ops.cast(self.iterations, self._iterations.dtype)
        if backends.strategy_is_active():
            self._update_on_replicas(variables, indices, grads, rate, step)
        elif not backends.can_compile():
            self.update_of(variables, indices).plain(grads, rate, step)
        elif backends.inside_a_graph():
            self._dispatch(variables, indices, list(grads), rate, step)
        else:
            run = functools.partial(self._dispatch, variables, indices)
            self._functions.call(
                indices, run, list(grads), rate, step, jit=False
            )

    def _dispatch(
        self,
        variables: Sequence[Any],
        indices: Sequence[int],
        grads: Sequence[Tensor],
        rate: Tensor,
        step: Tensor,
    ) -> None:
        self.update_of(variables, indices).dispatched(grads, rate, step)

    def _update_on_replicas(
        self,
        variables: Sequence[Any],
        indices: Sequence[int],
        grads: Sequence[Tensor],
        rate: Tensor,
        step: Tensor,
    ) -> None:
        values = [
            v.value if isinstance(v, keras.Variable) else v for v in variables
        ]
        pairs = self._all_reduce_sum_gradients(
            list(zip(grads, values, strict=True))
        )
        update = self.update_of(variables, indices)
        update.on_replicas(self._distribution_strategy, pairs, rate, step)

    # ---- The compiled functions ---------------------------------------------

    def asked(self, name: str, function: Any, *arguments: Tensor) -> Any:
        """Computes an answer, traced once: callbacks ask at each epoch.

        Args:
            name: What tells it from other questions.
            function: From tensors to tensors.
            *arguments: Its tensors.
        """
        if backends.can_compile() and not backends.strategy_is_active():
            return self._functions.call(
                ("asked", name), function, *arguments, jit=False
            )
        return function(*arguments)

    def variables_changed(self) -> None:
        """Has everything traced anew."""
        self.forget_functions()
        self.outdates_traces = True

    def forget_functions(self) -> None:
        """Has everything traced anew: an argument or variable has changed."""
        made = self.__dict__.get("_functions")
        if made is not None:
            made.clear()

    def tracing_counts(self) -> dict[Any, int]:
        """Returns how often each function was traced, by what it depends on."""
        return self._functions.tracing_counts()
