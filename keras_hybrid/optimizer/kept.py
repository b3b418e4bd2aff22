"""An optimizer whose files and copies hold all its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_hybrid.execution import backends
from keras_hybrid.optimizer import companions, copies
from keras_hybrid.optimizer.companions import Companion


class KeptOptimizer(keras.optimizers.Optimizer):
    """Base of an optimizer that can be pickled, copied and accompanied.

    Keras' own copies drop the state of an optimizer without its model. A copy
    of this one keeps it, and takes the first variables of the right shapes for
    its own. A callback may let its state go into the files beside the
    optimizer's (`accompany`).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._waits_for_variables = False
        # Those of the callback that runs.
        self._before_saving: Callable[[], None] | None = None
        self._companion: Companion | None = None
        self._unclaimed: companions.Unclaimed | None = None

    # ---- What a subclass may say --------------------------------------------

    def beside_config(self) -> dict[str, Any]:
        """Returns attributes that a copy gets beside its config; no None."""
        return {}

    def variables_changed(self) -> None:
        """Called where it has other variables, or treats them otherwise."""

    # ---- Files --------------------------------------------------------------

    def has_state(self) -> bool:
        """Whether it is built; raises where its variables have no values.

        JAX's `fit` keeps them in its own hands between the batches: what is
        read then is void, and what is assigned is lost.
        """
        if self.built and not backends.is_readable(self._iterations):
            raise ValueError(
                "On JAX, `fit` holds the optimizer's state between batches: "
                "reach it through the callback's `self.model.optimizer`, or "
                "call `model.jax_state_sync()` before. Received: an optimizer "
                "whose variables have no values"
            )
        return bool(self.built)

    def accompany(
        self,
        before_saving: Callable[[], None] | None = None,
        companion: Companion | None = None,
    ) -> None:
        """Lets a callback of `fit` take part in what is saved from now on.

        Args:
            before_saving: Called before the state is written to a file.
            companion: What is written beside the state and given back with it,
                also if the file was read before (`load_model`) and no update
                made since; files without it do without.
        """
        self._before_saving = before_saving
        self._companion = companion
        if companion is not None and self._unclaimed is not None:
            entries = self._unclaimed.entries(self._batches())
            if entries:
                companions.give_back(companion, entries)
            self._unclaimed = None

    @property
    def companion(self) -> Companion | None:
        """What `accompany` was given."""
        return self._companion

    def save_own_variables(self, store: Any) -> None:
        """Saves the state; Keras calls it for every file it writes."""
        if self._before_saving is not None:
            self._before_saving()
        super().save_own_variables(store)
        entries = companions.entries_of(self._companion)
        if self._unclaimed is not None:
            entries = self._unclaimed.entries(self._batches())
        for name, array in entries.items():
            store[name] = array

    def load_own_variables(self, store: Any) -> None:
        """Sets the state, and the companion's where the file has one."""
        stored = {name: store[name] for name in store.keys()}
        super().load_own_variables(
            {k: v for k, v in stored.items() if not companions.is_entry(k)}
        )
        entries = {
            name: np.array(array)
            for name, array in stored.items()
            if companions.is_entry(name)
        }
        companions.give_back(self._companion, entries)
        self._unclaimed = (
            companions.Unclaimed(entries, self._batches())
            if entries and self._companion is None and self.has_state()
            else None
        )

    def _batches(self) -> int:
        return int(backends.read(self._iterations))

    # ---- Copies -------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and deep-copies with all state."""
        if not self.has_state():
            return copies.without_state(self)
        weights = [
            copies.Weight(
                path=getattr(v, "path", v.name),
                shape=tuple(v.shape),
                dtype=keras.backend.standardize_dtype(v.dtype),
                decays=self._use_weight_decay(v),
                overwritten=self._overwrite_variable_with_gradient(v),
            )
            for v in self._trainable_variables
        ]
        return copies.with_state(self, weights)

    def wait_for_variables(self) -> None:
        """Takes the first variables that it is given for its own."""
        self._waits_for_variables = True

    def _check_variables_are_known(self, variables: Sequence[Any]) -> None:
        """Binds a copied optimizer to the first fitting variables."""
        if self._waits_for_variables:
            self._bind(variables)
            self._waits_for_variables = False
        super()._check_variables_are_known(variables)

    def _bind(self, variables: Sequence[Any]) -> None:
        expected = [tuple(v.shape) for v in self._trainable_variables]
        if [tuple(v.shape) for v in variables] != expected:
            raise ValueError(
                "This optimizer was unpickled or copied with the state of "
                f"variables of shapes {expected}. Received: shapes="
                f"{[tuple(v.shape) for v in variables]}"
            )
        excluded = [
            i
            for i, v in enumerate(self._trainable_variables)
            if not self._use_weight_decay(v)
        ]
        self.exclude_from_weight_decay([variables[i] for i in excluded])
        # Past Keras' own setter, which would track the model's variables
        # as the optimizer's and save them with it.
        indices = {self._var_key(v): i for i, v in enumerate(variables)}
        object.__setattr__(self, "_trainable_variables_indices", indices)
        object.__setattr__(self, "_trainable_variables", list(variables))
        self.variables_changed()

    def check_variables(self) -> None:
        """Raises where a copy is to be updated and knows no variables yet."""
        # JAX's `fit` gives the variables' values in their order, and no more.
        if self._waits_for_variables and keras.backend.backend() != "jax":
            raise ValueError(
                "This optimizer was unpickled or copied, and does not know its "
                "variables yet: call `apply(grads, variables)` once. Received: "
                "variables=None"
            )

    def exclude_from_weight_decay(
        self, var_list: Any = None, var_names: Any = None
    ) -> None:
        """As Keras' own, also after the first update."""
        super().exclude_from_weight_decay(var_list, var_names)
        self.variables_changed()
