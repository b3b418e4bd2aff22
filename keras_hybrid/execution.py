"""Where the update runs: compiled, inside XLA, on replicas, on which backend.

What is TensorFlow's own is here and in `blocks`; on another backend nothing
imports TensorFlow.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras

Tensor = Any


def strategy_is_active() -> bool:
    """Whether a tf.distribute strategy surrounds the call."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def check_strategy(optimizer: Any) -> None:
    """Refuses a tf.distribute strategy that `optimizer` cannot run under.

    Raises:
        ValueError: If it is not the one that it was made under, or Keras'
            own part of the update cannot be traced there.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    active = tf.distribute.get_strategy()
    if active is not optimizer._distribution_strategy:
        raise ValueError(
            "The optimizer must be created inside the scope of the "
            "tf.distribute strategy that trains it, as must the model: `with "
            "strategy.scope(): ...`. Received: an optimizer created under "
            f"{_strategy_name(optimizer._distribution_strategy)}, used under "
            f"{_strategy_name(active)}"
        )
    if (
        tf.executing_eagerly()
        or tf.__internal__.distribute.strategy_supports_no_merge_call()
        or isinstance(active, tf.distribute.OneDeviceStrategy)
    ):
        return
    for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
        value = getattr(optimizer, name)
        if value and (name[:3] != "ema" or optimizer.use_ema):
            raise ValueError(
                f"`{name}` must be None under a tf.distribute strategy with "
                "replicas: Keras cannot compile it there (keras #20582); a "
                "model compiled with run_eagerly=True can have it. Received: "
                f"{name}={value!r}"
            )


def _strategy_name(strategy: Any) -> str:
    name = type(strategy).__name__
    return "no strategy" if name.startswith("_Default") else name


def can_compile() -> bool:
    """Whether tf.functions of our own can run here.

    Not on another backend, under a strategy, where XLA surrounds the call, or
    under `tf.config.run_functions_eagerly(True)`.
    """
    if keras.backend.backend() != "tensorflow" or strategy_is_active():
        return False
    import tensorflow as tf

    return not (tf.config.functions_run_eagerly() or _inside_xla())


def _inside_xla() -> bool:
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    return inside_a_graph() and bool(
        control_flow_util.GraphOrParentsInXlaContext(
            tf.compat.v1.get_default_graph()
        )
    )


def dense(grad: Any) -> Any:
    """Sums IndexedSlices over duplicate indices; other tensors pass."""
    if type(grad).__name__ == "IndexedSlices":
        import tensorflow as tf

        return tf.convert_to_tensor(grad)
    return grad


def inside_a_graph() -> bool:
    """Whether a tf.function is being traced."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def outside_the_graph() -> contextlib.AbstractContextManager[Any]:
    """Where variables have values, also while a tf.function is traced."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()


def is_readable(variable: Any) -> bool:
    """Whether a variable has a value that is a number now.

    On JAX not inside a traced step, and not between the batches of `fit`,
    which takes the values out of the variables.
    """
    if keras.backend.backend() != "jax":
        return True
    import jax

    return variable._value is not None and not isinstance(
        variable.value, jax.core.Tracer
    )


def read(variable: Any) -> Tensor:
    """Returns a variable's value as it is now.

    `convert_to_tensor` hands on what an assignment changes: on TensorFlow the
    variable itself, which is read where it is used, on torch its memory.
    """
    return keras.ops.copy(keras.ops.convert_to_tensor(variable))


def square_sum(x: Tensor) -> Tensor:
    """Returns the sum of squares, with TensorFlow in one threaded pass."""
    if keras.backend.backend() != "tensorflow":
        return keras.ops.sum(keras.ops.square(x))
    import tensorflow as tf

    return 2 * tf.nn.l2_loss(x)


class Functions:
    """tf.functions by key, each traced once."""

    def __init__(self) -> None:
        self._functions: dict[Hashable, Any] = {}

    def clear(self) -> None:
        """Forgets all functions, when the variables they hold change."""
        self._functions.clear()

    def call(
        self,
        key: Hashable,
        function: Callable[..., Any],
        *arguments: Any,
        jit: bool,
    ) -> Any:
        """Calls the function of that key, made from `function` at first.

        Args:
            key: What the function depends on beside its arguments.
            function: A Python function.
            *arguments: Tensors, in lists and dictionaries.
            jit: Whether XLA compiles it.
        """
        if key not in self._functions:
            import tensorflow as tf

            self._functions[key] = tf.function(
                function, jit_compile=jit, autograph=False
            )
        return self._functions[key](*arguments)

    def tracing_counts(self) -> dict[Hashable, int]:
        """How often each function was traced."""
        return {
            key: function.experimental_get_tracing_count()
            for key, function in self._functions.items()
        }


# The functions of `shared`, the last ones that were asked for: a process may
# train models of ever new shapes.
_SHARED: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
_MOST_SHARED = 256


def shared(key: Hashable, function: Callable[..., Any]) -> Any:
    """Returns the XLA-compiled function of that key, made at first.

    It serves every optimizer of the process, so it may hold on to none: it
    takes handles in place of variables.

    Args:
        key: What the function depends on beside its arguments.
        function: A Python function.
    """
    if key not in _SHARED:
        import tensorflow as tf

        _SHARED[key] = tf.function(function, jit_compile=True, autograph=False)
        if len(_SHARED) > _MOST_SHARED:
            _SHARED.popitem(last=False)
    _SHARED.move_to_end(key)
    return _SHARED[key]


def shared_functions() -> dict[Hashable, Any]:
    """Returns the functions of `shared` by key."""
    return dict(_SHARED)


def handle(variable: Any) -> Any:
    """Returns the handle of a Keras or TensorFlow variable's memory."""
    if isinstance(variable, keras.Variable):
        variable = variable.value
    return variable.handle


def value(handle: Any, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Returns the value behind a handle."""
    import tensorflow as tf

    found = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
    return tf.ensure_shape(found, shape)


def case(
    index: Tensor,
    branches: Sequence[Callable[[Any], Sequence[Tensor]]],
    arguments: Any,
) -> list[Tensor]:
    """Runs one of the branches, which take and return the same tensors.

    A `cond` inside XLA computes all branches, and `tf.switch_case` would pass
    each argument through a switch of its own, which costs as much as the
    update of a small variable. This calls the one function.

    Args:
        index: An int32 scalar.
        branches: Functions that use no tensor but their arguments'.
        arguments: Tensors, in lists and dictionaries.

    Returns:
        What the branch returned.
    """
    import tensorflow as tf

    if len(branches) == 1:
        return list(branches[0](arguments))
    places = tf.nest.flatten(arguments)
    tensors = [x for x in places if x is not None]
    specs = [tf.TensorSpec(x.shape, x.dtype) for x in tensors]

    def traced(branch: Callable[[Any], Sequence[Tensor]]) -> Any:
        def call(tensors: list[Tensor]) -> list[Tensor]:
            left = iter(tensors)
            own = [None if x is None else next(left) for x in places]
            return list(branch(tf.nest.pack_sequence_as(arguments, own)))

        function = tf.function(call, autograph=False)
        concrete = function.get_concrete_function(specs)
        if concrete.captured_inputs:
            raise RuntimeError(
                "A branch of the update uses tensors beside its arguments: "
                f"{concrete.captured_inputs}"
            )
        return concrete

    functions = [traced(branch) for branch in branches]
    outputs = functions[0].outputs
    found = tf.raw_ops.Case(
        branch_index=index,
        input=tensors,
        Tout=[x.dtype for x in outputs],
        branches=functions,
    )
    if not outputs:
        return []
    return [
        tf.ensure_shape(x, like.shape)
        for x, like in zip(found, outputs, strict=True)
    ]


def run_if(condition: Tensor, run: Callable[[], None]) -> None:
    """Runs where a bool tensor is true, as a real branch outside XLA."""
    import tensorflow as tf

    def call() -> Tensor:
        run()
        return tf.constant(0)

    tf.cond(condition, call, lambda: tf.constant(0))


def update_on_replicas(
    strategy: Any,
    pairs: Sequence[tuple[Tensor, Any]],
    plan: Callable[[], tuple[Any, Sequence[Any]]],
    one: Callable[[int, Any, Tensor, Any], dict[str, Tensor]],
    finish: Callable[[Any, list[dict[str, Tensor]]], None],
) -> None:
    """Updates every variable where it lives, as Keras' own optimizers do.

    The gradients are summed over the replicas already, so all replicas
    compute the same statistics, and the first one's are taken.

    Args:
        strategy: The tf.distribute strategy.
        pairs: Gradients and variables.
        plan: Returns what the update needs, and the settings of each variable.
        one: Updates variable i, given it, its gradient and its settings;
            returns its statistics.
        finish: Takes the plan and all statistics.
    """
    import tensorflow as tf

    def update(strategy: Any, pairs: Sequence[tuple[Tensor, Any]]) -> None:
        whole, each = plan()
        sums = []
        for i, ((grad, variable), settings) in enumerate(
            zip(pairs, each, strict=True)
        ):
            parts = strategy.extended.update(
                variable,
                lambda var, g, i=i, settings=settings: one(i, var, g, settings),
                args=(grad,),
                group=False,
            )
            sums.append(
                {
                    # Ungrouped: one entry a replica here.
                    name: part[0] if isinstance(part, tuple) else part
                    for name, part in parts.items()
                }
            )
        finish(whole, sums)

    tf.__internal__.distribute.interim.maybe_merge_call(update, strategy, pairs)
