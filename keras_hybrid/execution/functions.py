"""TensorFlow's functions, compiled and not, and branches between them."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras

Tensor = Any


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

            # TensorFlow tells functions apart by their code, and would warn of
            # too many traces where many models each trace it once.
            self._functions[key] = tf.function(
                functools.partial(function), jit_compile=jit, autograph=False
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
