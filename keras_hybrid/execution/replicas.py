"""The update under a tf.distribute strategy."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_hybrid.execution import backends, functions

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Replica:
    """What one device updates: its own gradients, weights and slots.

    Attributes:
        grads: One a weight.
        slots: Each weight with its slots.
        device: Its name, None where there is but one.
    """

    grads: Sequence[Tensor]
    slots: Sequence[Sequence[Any]]
    device: str | None = None

    @property
    def handles(self) -> list[list[Any]]:
        """Of each weight and its slots (TensorFlow's)."""
        return [[functions.handle(x) for x in own] for own in self.slots]

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where its update runs."""
        if self.device is None:
            return contextlib.nullcontext()
        import tensorflow as tf

        return tf.device(self.device)


def check_strategy(optimizer: Any) -> None:
    """Refuses a tf.distribute strategy that `optimizer` cannot run under.

    Raises:
        ValueError: If it is not the one that it was made under, or Keras'
            own part of the update cannot be traced there.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    active = tf.distribute.get_strategy()
    if active is not optimizer._distribution_strategy:
        raise ValueError(
            "The optimizer must be created inside the scope of the "
            "tf.distribute strategy that trains it, as must the model: `with "
            "strategy.scope(): ...`. Received: an optimizer created under "
            f"{_strategy_name(optimizer._distribution_strategy)}, used under "
            f"{_strategy_name(active)}"
        )
    if (
        tf.executing_eagerly()
        or tf.__internal__.distribute.strategy_supports_no_merge_call()
        or isinstance(active, tf.distribute.OneDeviceStrategy)
    ):
        return
    for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
        value = getattr(optimizer, name)
        if value and (name[:3] != "ema" or optimizer.use_ema):
            raise ValueError(
                f"`{name}` must be None under a tf.distribute strategy with "
                "replicas: Keras cannot compile it there (keras #20582); a "
                "model compiled with run_eagerly=True can have it. Received: "
                f"{name}={value!r}"
            )


def _strategy_name(strategy: Any) -> str:
    name = type(strategy).__name__
    return "no strategy" if name.startswith("_Default") else name


def can_compile(strategy: Any) -> bool:
    """Whether each device's update can be a function of its own variables.

    Not in an eager step, inside XLA, or where variables are spread over
    devices in another way than one copy each.
    """
    import tensorflow as tf

    mirrored = (
        tf.distribute.MirroredStrategy,
        tf.distribute.MultiWorkerMirroredStrategy,
        tf.distribute.OneDeviceStrategy,
    )
    return isinstance(strategy, mirrored) and not (
        tf.executing_eagerly()
        or tf.config.functions_run_eagerly()
        or backends.inside_xla()
    )


def on_each(
    strategy: Any,
    grads: Sequence[Tensor],
    slots: Sequence[Sequence[Any]],
    run: Callable[[list[Replica]], None],
) -> None:
    """Calls `run` once for all replicas, with what each device holds.

    Args:
        strategy: Of which `can_compile` holds.
        grads: The gradients, summed over the replicas already.
        slots: Each weight with its slots.
        run: Updates them.
    """
    import tensorflow as tf

    def local(value: Any) -> tuple[Any, ...]:
        if isinstance(value, keras.Variable):
            value = value.value
        found: tuple[Any, ...] = strategy.experimental_local_results(value)
        return found

    def merged(strategy: Any, grads: Sequence[Tensor]) -> None:
        local_grads = [local(grad) for grad in grads]
        local_slots = [[local(x) for x in own] for own in slots]
        run(
            [
                Replica(
                    [grad[i] for grad in local_grads],
                    [[x[i] for x in own] for own in local_slots],
                    device=weight.device,
                )
                for i, weight in enumerate(local_slots[0][0])
            ]
        )

    tf.__internal__.distribute.interim.maybe_merge_call(
        merged, strategy, list(grads)
    )


def update(
    strategy: Any,
    pairs: Sequence[tuple[Tensor, Any]],
    plan: Callable[[], tuple[Any, Sequence[Any]]],
    one: Callable[[int, Any, Tensor, Any], dict[str, Tensor]],
    finish: Callable[[Any, list[dict[str, Tensor]]], None],
) -> None:
    """Updates one variable after the other, as Keras' own optimizers do.

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

    def merged(strategy: Any, pairs: Sequence[tuple[Tensor, Any]]) -> None:
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

    tf.__internal__.distribute.interim.maybe_merge_call(merged, strategy, pairs)
