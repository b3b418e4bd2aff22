"""How an update gives variables their values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from keras import ops

Tensor = Any


class Assignments:
    """Assignments that can depend on a condition without being a branch.

    Assignments inside branches fail on JAX, and branches under a tf.distribute
    strategy.

    Args:
        writer: Keras' optimizer, which assigns.

    Attributes:
        condition: Where it is given and false, values stay as they are.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.condition: Tensor | None = None

    def assign(self, variable: Any, value: Tensor) -> None:
        """Assigns; under `only_if` the old value where the condition fails."""
        if self.condition is not None:
            old = ops.convert_to_tensor(variable)
            value = ops.where(self.condition, value, old)
        self._writer.assign(variable, value)

    def count(self, variable: Any, happened: Tensor) -> None:
        """Adds 1 to a counter where a bool tensor is true."""
        self._writer.assign_add(variable, ops.cast(happened, variable.dtype))

    @contextlib.contextmanager
    def only_if(self, condition: Tensor) -> Iterator[None]:
        """What is assigned inside keeps its old value unless `condition`."""
        self.condition = condition
        try:
            yield
        finally:
            self.condition = None
