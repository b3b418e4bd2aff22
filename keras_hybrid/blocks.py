"""One pass over memory: a variable's update in blocks that fit the cache.

XLA on a CPU writes one array a kernel, so an update of three arrays is three
passes over memory. Here a loop walks over the variable in blocks: the kernels
of one block find its values in the cache, and memory is passed once. The
weight comes first: it reads everything from memory while it computes the root
and the division; the slots find their values in the cache.

Such a loop runs on one core, so the variables are dealt out to as many
clusters as there are cores, and TensorFlow runs these side by side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

Tensor = Any
Formula = Callable[..., tuple[list[Tensor], dict[str, Tensor]]]

# In weights. A block of each of the arrays fits a core's first or second
# cache; variables below the least size fit as they are.
BLOCK = 2048
LEAST = 1 << 16
# More cores than this do not make memory faster.
_MOST_CORES = 8


def are_worth_it(variable: Any) -> bool:
    """Whether a variable is updated in blocks: large, and on a CPU."""
    return _weights(variable) >= LEAST and _only_cpus()


def _weights(variable: Any) -> int:
    return int(np.prod(variable.shape))


def _only_cpus() -> bool:
    import tensorflow as tf

    devices = tf.config.list_physical_devices()
    return all(device.device_type == "CPU" for device in devices)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_CORES)
    return min(os.cpu_count() or 1, _MOST_CORES)


def balanced(variables: Sequence[Any]) -> bool:
    """Whether `parts` keep all cores busy.

    Else XLA's own kernels, which share one variable's update, are faster.
    """
    sizes = [_weights(v) for v in variables]
    most = max(sum(sizes[i] for i in part) for part in parts(variables))
    return most * _cores() <= 1.4 * sum(sizes)


def parts(variables: Sequence[Any]) -> list[list[int]]:
    """Deals variables out to the cores, the largest first.

    Returns:
        The positions of each part's variables, in order; parts are not empty.
    """
    sizes = [_weights(v) for v in variables]
    count = min(_cores(), len(sizes))
    dealt: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = loads.index(min(loads))
        dealt[least].append(i)
        loads[least] += sizes[i]
    return [sorted(part) for part in dealt]


def block_size(weights: int) -> int:
    """Returns a size near `BLOCK` that divides the number, or `BLOCK`."""
    for size in range(2 * BLOCK, BLOCK // 2, -16):
        if weights % size == 0:
            return size
    return BLOCK


def update(
    formula: Formula,
    grad: Tensor,
    values: Sequence[Tensor],
    zero: Tensor,
    names: Collection[str],
    dtype: str,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Applies an elementwise formula block by block, inside XLA.

    Args:
        formula: Called with a gradient, a weight and its slots, returns their
            new values in this order, and terms of sums by name. The slots are
            m, v and v's maximum; no new value depends on the weight, m's may
            depend on v, the maximum's on v, and v's on itself alone.
        grad: The gradient.
        values: The weight and its slots.
        zero: An integer scalar that is 0, which XLA must not know.
        names: The names of the terms.
        dtype: The terms' type.

    Returns:
        `(new values, sums)`: the terms summed over all weights.
    """
    import tensorflow as tf

    shape = values[0].shape
    weights = _weights(values[0])
    size = block_size(weights)
    grad = tf.reshape(grad, [-1])
    flat = [tf.reshape(value, [-1]) for value in values]
    # Longer than a block: what is overwritten whole, XLA would not update in
    # place.
    zeros = {name: tf.zeros((size + 16,), dtype) for name in names}

    def body(
        i: Tensor, flat: list[Tensor], sums: dict[str, Tensor]
    ) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        # Where no whole block is left, the last one begins early and leaves
        # its first weights alone.
        start = tf.minimum(i * size, weights - size)
        old = start + tf.range(size) < i * size if weights % size else None
        return i + 1, *_one(formula, grad, flat, sums, start, size, old, zero)

    count = -(-weights // size)
    _, flat, sums = tf.while_loop(
        lambda i, *_: i < count, body, (tf.constant(0), flat, zeros)
    )
    return (
        [tf.reshape(value, shape) for value in flat],
        {name: tf.reduce_sum(total) for name, total in sums.items()},
    )


def _one(
    formula: Formula,
    grad: Tensor,
    flat: Sequence[Tensor],
    sums: dict[str, Tensor],
    start: Tensor,
    size: int,
    old: Tensor | None,
    zero: Tensor,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Updates one block in place: the weight and the sums before the slots.

    Where `old` is true nothing changes.

    XLA copies a whole array if anything could read it after it is overwritten.
    So each slot is updated from values read once more, at a place that depends
    on what was written before: only then is it certain that this has read the
    old values. The order is m, then the maximum of v, then v, which others
    read. Terms are added up elementwise, which is cheap; a sum over the block
    is not.
    """
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    def read(array: Tensor, at: Tensor, length: int = size) -> Tensor:
        return xla.dynamic_slice(array, [at], [length])

    def write(array: Tensor, block: Tensor, at: Tensor) -> Tensor:
        return xla.dynamic_update_slice(array, block, [at])

    def zero_after(array: Tensor, at: Tensor) -> Tensor:
        entry = read(array, at, 1)[0]
        integer = getattr(tf, f"int{8 * entry.dtype.size}")
        bits = tf.cast(tf.bitcast(entry, integer), tf.int32)
        return tf.bitwise.bitwise_and(bits, zero)

    def updated(
        at: Tensor, arrays: Sequence[Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        before = [read(array, at) for array in arrays]
        new, terms = formula(read(grad, at), *before)
        if old is not None:
            new = [
                tf.where(old, *pair) for pair in zip(before, new, strict=True)
            ]
            terms = {
                name: tf.where(old, tf.zeros_like(term), term)
                for name, term in terms.items()
            }
        return new, terms

    new, terms = updated(start, flat)
    weight = write(flat[0], new[0], start)
    sums = {
        name: write(total, read(total, zero) + terms[name], zero)
        for name, total in sums.items()
    }
    # Read at other places than written, or XLA takes the block for the array.
    again = start + zero_after(weight, start + zero)
    for total in sums.values():
        again += zero_after(total, tf.constant(0))
    arrays = [weight, *flat[1:]]
    for i in (1, *range(len(arrays) - 1, 1, -1)):
        new, _ = updated(again, arrays)
        arrays[i] = write(arrays[i], new[i], again)
        again = start + zero_after(arrays[i], again + zero)
    return arrays, sums
