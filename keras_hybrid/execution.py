"""Where the update runs on TensorFlow: compiled, inside XLA, on replicas."""

from __future__ import annotations

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


def inside_xla() -> bool:
    """Whether the graph being traced is compiled by XLA already."""
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


def compute_dtype(variable: Any) -> str:
    """The dtype of a variable's update: half precision is too narrow.

    In float16 the adaptive scale 1 / epsilon would overflow.
    """
    dtype = str(keras.backend.standardize_dtype(variable.dtype))
    return "float32" if dtype in ("float16", "bfloat16") else dtype


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


class CompiledPhases:
    """The update as one compiled function a phase, and the choice of one.

    A `cond` inside XLA computes both branches; the choice stays outside, so
    only the phase that applies is computed.
    """

    def __init__(self) -> None:
        self._functions: dict[Hashable, Any] = {}

    def clear(self) -> None:
        """Forgets all functions, when the variables they hold change."""
        self._functions.clear()

    def run(
        self,
        key: Hashable,
        update: Callable[..., None],
        arguments: tuple[Any, ...],
        *,
        jit: bool,
        all_switched: Callable[[], Tensor],
        none_switched: Callable[[], Tensor] | None,
    ) -> None:
        """Calls `update(phase, *arguments)` in the phase that applies.

        Args:
            key: What the function depends on beside its arguments.
            update: The update of one phase: "adaptive", "mixed" or "sgd".
            arguments: Tensors and lists of tensors.
            jit: Whether XLA compiles it.
            all_switched: Returns a bool tensor: SGD alone is left.
            none_switched: Returns a bool tensor: Adam alone; None where
                nothing can lie between the two.
        """
        import tensorflow as tf

        def call(phase: str) -> Callable[[], Tensor]:
            if (key, phase) not in self._functions:
                self._functions[key, phase] = tf.function(
                    lambda *args: update(phase, *args),
                    jit_compile=jit,
                    autograph=False,
                )

            def branch() -> Tensor:
                self._functions[key, phase](*arguments)
                return tf.constant(0)

            return branch

        def before() -> Tensor:
            if none_switched is None:
                return call("adaptive")()
            return tf.cond(none_switched(), call("adaptive"), call("mixed"))

        tf.cond(all_switched(), call("sgd"), before)


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
