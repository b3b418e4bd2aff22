"""Where the update runs: compiled, inside XLA, on replicas, on which backend.

What is TensorFlow's own is here and in `blocks`; on another backend nothing
imports TensorFlow.
"""

from __future__ import annotations

import contextlib
from typing import Any

import keras

Tensor = Any


def strategy_is_active() -> bool:
    """Whether a tf.distribute strategy surrounds the call."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def can_compile() -> bool:
    """Whether tf.functions of our own can run here.

    Not on another backend, under a strategy, where XLA surrounds the call, or
    under `tf.config.run_functions_eagerly(True)`.
    """
    if keras.backend.backend() != "tensorflow" or strategy_is_active():
        return False
    import tensorflow as tf

    return not (tf.config.functions_run_eagerly() or inside_xla())


def inside_xla() -> bool:
    """Whether XLA surrounds the call."""
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


def as_gradient(grad: Any, dtype: Any) -> Any:
    """Takes what Keras' optimizers take: an array, or of another float type."""
    # Compared first: in an eager loop each conversion takes its time.
    if getattr(grad, "dtype", None) == dtype:
        return grad
    dtype = keras.backend.standardize_dtype(dtype)
    if type(grad).__name__ == "IndexedSlices":
        import tensorflow as tf

        return tf.cast(grad, dtype)
    return keras.ops.cast(keras.ops.convert_to_tensor(grad), dtype)


def check_shape(grad: Any, variable: Any) -> None:
    """Refuses a gradient of another shape, which a flat vector would hide.

    What a graph does not know passes.

    Raises:
        ValueError: If it is of another shape.
    """
    wanted = tuple(variable.shape)
    try:
        shape = tuple(grad.shape)
    except (AttributeError, ValueError):  # Slices' own, or of unknown rank.
        return
    if shape != wanted and (None not in shape or len(shape) != len(wanted)):
        raise ValueError(
            "`grads` must have the shapes of their variables. Received: a "
            f"gradient of shape {shape} for {variable.path!r} of shape {wanted}"
        )


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


def number_now(number: Tensor) -> int | None:
    """Returns a number where updates run eagerly, on torch; else None."""
    return int(number) if keras.backend.backend() == "torch" else None


def read(variable: Any) -> Tensor:
    """Returns a variable's value as it is now.

    `convert_to_tensor` hands on what an assignment changes: on TensorFlow the
    variable itself, which is read where it is used, on torch its memory.
    """
    return keras.ops.copy(keras.ops.convert_to_tensor(variable))


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns `ops.reshape`, on torch without what that asks at each call."""
    if keras.backend.backend() == "torch":
        return x.reshape(shape)
    return keras.ops.reshape(x, shape)


def square_sum(x: Tensor) -> Tensor:
    """Returns the sum of squares, with TensorFlow in one threaded pass."""
    if keras.backend.backend() != "tensorflow":
        return keras.ops.sum(keras.ops.square(x))
    import tensorflow as tf

    return 2 * tf.nn.l2_loss(x)
