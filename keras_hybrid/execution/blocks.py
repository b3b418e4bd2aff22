"""One pass over memory: a large variable's update in blocks that fit the cache.

XLA on a CPU writes one array a kernel, so an update of three arrays is three
passes over memory. Here a loop walks over the variable in blocks of rows: the
kernels of one block find its values in the cache, and memory is passed once.
The weight comes first: it reads everything from memory while it computes the
root and the division; the slots find their values in the cache.

Such a loop runs on one core; TensorFlow runs those of several variables side by
side. It is compiled once for each shape, whatever variable or model has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_hybrid.execution import functions
from keras_hybrid.execution.layouts import Layout
from keras_hybrid.formula import Formula
from keras_hybrid.rules import Settings
from keras_hybrid.units import Units

Tensor = Any

# In weights. A block of each of the arrays fits a core's first or second
# cache.
BLOCK = 2048
# The least variable that is worth a loop of its own: a pass over it takes
# longer than to launch it. Where TensorFlow has one kernel for the update,
# that passes over memory as often as its values fall out of the cache.
LEAST = 1 << 16
LEAST_BESIDE_KERNEL = 640 * 1024
# More cores than this do not make memory faster.
_MOST_CORES = 8


def are_worth_it(layouts: Sequence[Layout], least: int) -> list[bool]:
    """Whether each variable is updated in blocks: large, and on a CPU.

    None is where one holds most of the weights, and its core would work alone.
    """
    sizes = [_weights(layout.units.shape) for layout in layouts]
    large = are_large(layouts, least)
    alone = max(sizes, default=0) * _cores() > 1.4 * sum(sizes)
    return [False] * len(large) if alone else large


def are_large(layouts: Sequence[Layout], least: int = LEAST) -> list[bool]:
    """Whether each variable is large, and on a CPU."""
    cpus = only_cpus()
    return [cpus and _weights(x.units.shape) >= least for x in layouts]


def _weights(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=int))


def only_cpus() -> bool:
    """Whether TensorFlow has no other devices."""
    import tensorflow as tf

    devices = tf.config.list_physical_devices()
    return all(device.device_type == "CPU" for device in devices)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_CORES)
    return min(os.cpu_count() or 1, _MOST_CORES)


def matrix(units: Units) -> tuple[int, int]:
    """Returns the rows and columns in which blocks are whole rows.

    Units along the last axes are the columns, those along the first the rows;
    without units the last axis is the columns.
    """
    weights = _weights(units.shape)
    if units.kept and units.kept[0] == 0:
        return units.count, weights // units.count
    columns = units.count
    if not units.kept and len(units.shape) > 1:
        columns = units.shape[-1]
    return weights // columns, columns


def rows_a_block(rows: int, columns: int) -> int:
    """Returns how many rows make some `BLOCK` weights; a divisor if near."""
    most = max(1, min(rows, BLOCK // columns))
    for count in range(min(rows, 2 * most), max(1, most // 2) - 1, -1):
        if rows % count == 0:
            return count
    return most


def update(
    formula: Formula,
    phase: str,
    layout: Layout,
    settings: Settings,
    grad: Tensor,
    handles: Sequence[Tensor],
    zero: Tensor,
) -> None:
    """Updates one variable and its slots in place.

    Args:
        formula: No new value depends on the weight, m's may depend on v, v's
            maximum on v, and v's on itself alone.
        phase: "adaptive", "mixed" or "sgd".
        layout: Of the variable.
        settings: Its scalars; `sgd_step` one a unit.
        grad: Its gradient.
        handles: Of the weight and those slots that the phase changes.
        zero: An integer scalar that is 0, which XLA must not know.
    """
    units, dtype = layout.units, layout.dtype

    def whole(
        handles: list[Tensor], grad: Tensor, settings: Settings, zero: Tensor
    ) -> None:
        import tensorflow as tf

        values = [functions.value(h, dtype, units.shape) for h in handles]
        new = _loop(formula, phase, units, settings, grad, values, zero)
        for handle, value in zip(handles, new, strict=True):
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)

    functions.shared(("blocks", formula.key, phase, units, dtype), whole)(
        list(handles), grad, settings, zero
    )


def sums(
    terms: Callable[..., dict[str, Tensor]],
    values: Sequence[Tensor],
    names: Sequence[str],
    dtype: str,
) -> dict[str, Tensor]:
    """Returns sums over a variable's weights, inside XLA.

    Blocks are added up elementwise, which is cheap in XLA on a CPU; a sum over
    a large array is not.

    Args:
        terms: Called with values, returns what is summed by name.
        values: Tensors of one shape.
        names: Of the sums.
        dtype: Of the sums.
    """
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    weights = _weights(values[0].shape)
    flat = [tf.reshape(value, [-1]) for value in values]
    whole = weights // BLOCK * BLOCK
    rest = terms(*(x[whole:] for x in flat))
    total = {name: tf.reduce_sum(rest[name]) for name in names}
    if not whole:
        return total

    def body(
        i: Tensor, added: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        block = [xla.dynamic_slice(x, [i * BLOCK], [BLOCK]) for x in flat]
        new = terms(*block)
        return i + 1, {name: added[name] + new[name] for name in names}

    zeros = {name: tf.zeros((BLOCK,), dtype) for name in names}
    _, added = tf.while_loop(
        lambda i, _: i < whole // BLOCK, body, (tf.constant(0), zeros)
    )
    return {name: total[name] + tf.reduce_sum(added[name]) for name in names}


def _loop(
    formula: Formula,
    phase: str,
    units: Units,
    settings: Settings,
    grad: Tensor,
    values: Sequence[Tensor],
    zero: Tensor,
) -> list[Tensor]:
    import tensorflow as tf

    rows, columns = matrix(units)
    count = rows_a_block(rows, columns)
    flat = [tf.reshape(value, [rows, columns]) for value in values]
    grad = tf.reshape(grad, [rows, columns])
    by_row = bool(units.kept) and units.kept[0] == 0 and phase != "adaptive"
    if units.kept and phase != "adaptive":
        step = tf.reshape(settings.sgd_step, [-1, 1] if by_row else [1, -1])
        settings = settings._replace(sgd_step=step)

    def body(i: Tensor, flat: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        # Where no whole block is left, the last one begins early and leaves
        # its first rows alone.
        start = tf.minimum(i * count, rows - count)
        old = None
        if rows % count:
            old = (start + tf.range(count) < i * count)[:, None]
        block = _Block(
            formula, phase, settings, grad, start, count, old, zero, by_row
        )
        return i + 1, block.update(flat)

    blocks = -(-rows // count)
    _, flat = tf.while_loop(
        lambda i, _: i < blocks, body, (tf.constant(0), flat)
    )
    return [
        tf.reshape(new, old.shape)
        for new, old in zip(flat, values, strict=True)
    ]


class _Block:
    """Updates one block in place: the weight before the slots.

    XLA copies a whole array if anything could read it after it is overwritten.
    So each slot is updated from values read once more, at a place that depends
    on what was written before: only then is it certain that this has read the
    old values. The order is m, then the maximum of v, then v, which others
    read.
    """

    def __init__(
        self,
        formula: Formula,
        phase: str,
        settings: Settings,
        grad: Tensor,
        start: Tensor,
        count: int,
        old: Tensor | None,
        zero: Tensor,
        by_row: bool,
    ) -> None:
        self.formula = formula
        self.phase = phase
        self.settings = settings
        self.grad = grad
        self.start = start
        self.count = count
        self.old = old
        self.zero = zero
        self.by_row = by_row

    def update(self, arrays: Sequence[Tensor]) -> list[Tensor]:
        """Returns the arrays with this block updated."""
        arrays = list(arrays)
        again = self.start
        for i in (0, 1, *range(len(arrays) - 1, 1, -1)):
            new = self._new(again, arrays)[i]
            arrays[i] = self._write(arrays[i], new, again)
            # Read at other places than written, or XLA takes the block for
            # the array.
            again = self.start + self._zero_after(arrays[i], again + self.zero)
        return arrays

    def _new(self, at: Tensor, arrays: Sequence[Tensor]) -> list[Tensor]:
        import tensorflow as tf

        before = [self._read(array, at) for array in arrays]
        settings = self.settings
        if self.by_row:
            step = self._read(settings.sgd_step, at)
            settings = settings._replace(sgd_step=step)
        new = self.formula.new_values(
            self.phase, settings, self._read(self.grad, at), *before
        )
        if self.old is None:
            return new
        return [
            tf.where(self.old, *pair) for pair in zip(before, new, strict=True)
        ]

    def _read(self, array: Tensor, at: Tensor, rows: int = 0) -> Tensor:
        from tensorflow.compiler.tf2xla.python import xla

        size = [rows or self.count, array.shape[1]]
        return xla.dynamic_slice(array, [at, _index_zero(at)], size)

    def _write(self, array: Tensor, block: Tensor, at: Tensor) -> Tensor:
        from tensorflow.compiler.tf2xla.python import xla

        return xla.dynamic_update_slice(array, block, [at, _index_zero(at)])

    def _zero_after(self, array: Tensor, at: Tensor) -> Tensor:
        import tensorflow as tf

        entry = self._read(array, at, 1)[0, 0]
        integer = getattr(tf, f"int{8 * entry.dtype.size}")
        bits = tf.cast(tf.bitcast(entry, integer), tf.int32)
        return tf.bitwise.bitwise_and(bits, self.zero)


def _index_zero(like: Tensor) -> Tensor:
    """Returns an integer 0 of the type of an index."""
    import tensorflow as tf

    return tf.zeros((), like.dtype)
