"""Trainer: one compiled model for many seeds and learning rates."""

from __future__ import annotations

import json
from typing import Any

import keras

from keras_hybrid.study import architectures, datasets
from keras_hybrid.triggers import EpochTrigger

# Updates a call of the compiled step: it spares small models the overhead of
# Python, and costs no more than the progress within an epoch.
_MOST_STEPS_PER_CALL = 40


class Trainer:
    """Compiles a model for an arm, once for many seeds and learning rates.

    Whatever a run starts with is set anew, so that it equals the run of a
    model of its own bit for bit; only the compiled step is kept.

    Args:
        data: The data of all runs.
        architecture: Name of the architecture.
        precision: Keras' dtype policy.
        label_smoothing: The share of a label's weight that is spread over all
            classes, in [0, 1), when it trains and in every loss it reports.
        most_steps: Updates a call of the compiled step, at most.
    """

    def __init__(
        self,
        data: datasets.AnyData,
        architecture: str,
        precision: str = "float32",
        label_smoothing: float = 0.0,
        most_steps: int = _MOST_STEPS_PER_CALL,
    ) -> None:
        self.data = data
        self.architecture = architecture
        self.precision = precision
        self.label_smoothing = label_smoothing
        self.most_steps = most_steps
        self._key: str | None = None
        self._model: keras.Model = None

    def start(
        self,
        made: tuple[Any, EpochTrigger | None],
        seed: int,
        steps_per_epoch: int,
    ) -> keras.Model:
        """Returns a compiled model as new, its optimizer built."""
        optimizer, _ = made
        keras.utils.set_random_seed(seed)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            model = architectures.build(
                self.architecture, self.data.image_shape, self.data.classes
            )
        finally:
            keras.config.set_dtype_policy(before)
        content = serialized(optimizer)
        rate = content["config"].get("learning_rate")
        if isinstance(rate, float):
            del content["config"]["learning_rate"]
        together = _divisor(steps_per_epoch, self.most_steps)
        key = json.dumps([content, together], sort_keys=True)
        if key == self._key:
            self._reset(model, rate)
            return self._model
        model.compile(
            optimizer=optimizer,
            loss=loss(self.data.classes, self.label_smoothing),
            metrics=["accuracy"],
            steps_per_execution=together,
        )
        optimizer.build(model.trainable_variables)
        self._key, self._model = key, model
        self._fresh = [v.numpy() for v in optimizer.variables]
        return model

    def _reset(self, fresh: keras.Model, rate: float) -> None:
        optimizer = self._model.optimizer
        # Metrics, which come last, are reset by fit.
        for old, new in zip(
            self._model.variables, fresh.variables, strict=False
        ):
            old.assign(new.value)
        for variable, value in zip(
            optimizer.variables, self._fresh, strict=True
        ):
            variable.assign(value)
        if isinstance(rate, float):
            optimizer.learning_rate = rate


def loss(classes: int, smoothing: float) -> Any:
    """Cross-entropy of logits and labels that are class numbers."""
    if not smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    # Keras' sparse loss does not smooth labels.
    def smoothed(labels: Any, logits: Any) -> Any:
        return keras.losses.categorical_crossentropy(
            keras.ops.one_hot(labels, classes),
            logits,
            from_logits=True,
            label_smoothing=smoothing,
        )

    return smoothed


def _divisor(steps: int, most: int) -> int:
    """Returns the largest divisor up to `most`."""
    return max(n for n in range(1, most + 1) if steps % n == 0)


def serialized(optimizer: Any) -> dict[str, Any]:
    """Returns what makes an optimizer, as a record holds it."""
    config = keras.saving.serialize_keras_object(optimizer)
    # Auto-numbered names say nothing and differ from run to run.
    config["config"].pop("name", None)
    # As it will be read back: tuples are lists in JSON.
    return json.loads(json.dumps(config))
