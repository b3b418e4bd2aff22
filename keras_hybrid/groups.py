"""Who switches, or is estimated, together: variables in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

Tensor = Any

SCOPES = ("model", "layer", "variable")


class Groups(NamedTuple):
    """A partition of the variables.

    Attributes:
        names: Name of each group.
        of: The group of each variable.
    """

    names: list[str]
    of: list[int]

    def spread(self, values: Tensor) -> Tensor:
        """Turns one entry a group into one a variable."""
        return ops.take(values, np.array(self.of, "int32"), axis=0)

    def sums(
        self,
        rows: Sequence[dict[str, Tensor]],
        indices: Sequence[int],
        name: str,
        dtype: str,
    ) -> list[Tensor]:
        """Sums entry `name` of the rows (of the variables `indices`)."""
        totals: list[Any] = [None] * len(self.names)
        for row, index in zip(rows, indices, strict=True):
            group = self.of[index]
            total = totals[group]
            totals[group] = row[name] if total is None else total + row[name]
        zero = ops.zeros((), dtype)
        return [zero if total is None else total for total in totals]

    def every(self, flags: Tensor) -> Tensor:
        """Whether all variables of a group have their flag, one a group."""
        members: list[list[Tensor]] = [[] for _ in self.names]
        for flag, group in zip(ops.unstack(flags), self.of, strict=True):
            members[group].append(flag)
        return ops.stack([ops.all(ops.stack(part)) for part in members])


def grouped(variables: Sequence[Any], scope: str) -> Groups:
    """Partitions variables.

    Args:
        variables: Keras or backend variables.
        scope: `"model"`, `"layer"` (paths share all but the last name) or
            `"variable"`. Without variables there is one group.
    """
    if scope == "model" or not variables:
        return Groups(["model"], [0] * len(variables))
    paths = [str(getattr(v, "path", v.name)) for v in variables]
    each = [
        path if paths.count(path) == 1 else f"{path}:{i}"
        for i, path in enumerate(paths)
    ]
    if scope == "variable":
        return Groups(each, list(range(len(variables))))
    # TensorFlow's own variables have no layer: each is one.
    keys = [
        path.rpartition("/")[0] or own
        for path, own in zip(paths, each, strict=True)
    ]
    names = list(dict.fromkeys(keys))
    return Groups(names, [names.index(key) for key in keys])
