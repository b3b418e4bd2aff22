"""How finely rho is held: which weights of a variable share one number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any

# From fine to coarse. "weight" holds one number a variable like "variable":
# each weight's own is read from its second moment.
SCALE_SCOPES = ("weight", "unit", "variable", "layer", "model")


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of one variable: what lies along the kept axes.

    Attributes:
        shape: The variable's shape.
        kept: Its axes that tell units apart; none: the variable is one unit.
    """

    shape: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of units."""
        return int(np.prod([self.shape[a] for a in self.kept], dtype=int))

    @property
    def broadcast(self) -> tuple[int, ...]:
        """The shape in which one number a unit broadcasts to the variable."""
        if not self.kept:
            return ()
        return tuple(
            n if axis in self.kept else 1 for axis, n in enumerate(self.shape)
        )

    @property
    def is_last_axis(self) -> bool:
        """Whether a vector with one number a unit broadcasts as it is."""
        return self.kept == (len(self.shape) - 1,)

    def sum(self, x: Tensor) -> Tensor:
        """Sums a tensor of the variable's shape over each unit's weights."""
        others = [a for a in range(len(self.shape)) if a not in self.kept]
        return ops.reshape(ops.sum(x, axis=others) if others else x, (-1,))

    @property
    def weights(self) -> int:
        """The number of weights of one unit."""
        return int(np.prod(self.shape, dtype=int)) // max(self.count, 1)


def units_of(variable: Any, scope: str) -> Units:
    """Returns the units of a variable.

    One an output unit, which is the last axis (of a transposed convolution the
    last but one); a channel of a depthwise kernel (its last two axes); each
    head's of the kernels of an attention's query, key and value (likewise); a
    row of an embedding table; each weight of a bias or of a normalization's
    scale.

    Layers are known by the names that Keras gives them, or by a last axis of
    one: a convolution with one filter is taken for a depthwise one, and has one
    an input channel; a `Conv1D` called "query" is taken for an attention's.

    Args:
        variable: A Keras or backend variable.
        scope: One of `SCALE_SCOPES`; all but `"unit"` hold one number a
            variable.
    """
    shape = tuple(variable.shape)
    if scope != "unit" or not shape:
        return Units(shape, ())
    path = str(getattr(variable, "path", variable.name))
    layer, _, name = path.rpartition("/")
    if name in ("bias", "gamma", "beta"):  # Of a normalization's, all axes.
        return Units(shape, tuple(range(len(shape))))
    rows = name.endswith("embeddings") and not name.startswith("reverse")
    if rows and len(shape) == 2:
        return Units(shape, (0,))
    kind = layer.rpartition("/")[2]
    if "transpose" in kind and len(shape) > 2:
        return Units(shape, (len(shape) - 2,))
    # Keras names the depthwise kernel of a separable convolution, not that of
    # a depthwise one, whose last axis is the depth multiplier, mostly 1.
    depthwise = "depthwise" in path or shape[-1] == 1
    of_heads = kind in ("query", "key", "value") and len(shape) == 3
    if len(shape) > 2 and (depthwise or of_heads):
        return Units(shape, (len(shape) - 2, len(shape) - 1))
    return Units(shape, (len(shape) - 1,))


def split(values: Tensor, units: Sequence[Units]) -> list[Tensor]:
    """Cuts one vector with an entry a unit into one a variable."""
    counts = [u.count for u in units]
    if len(counts) == 1:
        return [values]
    if keras.backend.backend() == "torch":
        return list(values.split(counts))
    return list(ops.split(values, np.cumsum(counts)[:-1].tolist()))


def spread(values: Tensor, units: Sequence[Units]) -> Tensor:
    """Turns one entry a variable into one a unit."""
    if all(u.count == 1 for u in units):
        return values
    of = np.repeat(np.arange(len(units)), [u.count for u in units])
    return ops.take(values, of.astype("int32"), axis=0)
