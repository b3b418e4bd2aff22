"""What every public class shares: argument checks, registration, its text.

Each check returns the value, or raises and says what is allowed.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable
from typing import Any

import keras

registered = keras.saving.register_keras_serializable("keras_hybrid")


# Beyond it a number is infinite in most updates.
_LARGEST = 3.4028234663852886e38


def number(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Returns `value` as a float.

    `low` and `high` are allowed themselves, `above` and `below` are not.
    """
    bounds = [
        f"{sign} {limit}"
        for sign, limit in (
            (">=", low),
            (">", above),
            ("<=", high),
            ("<", below),
        )
        if limit is not None
    ]
    allowed = f"`{name}` must be a finite number"
    if bounds:
        allowed += " " + " and ".join(bounds)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        try:  # NumPy's scalars are numbers too, strings and arrays are not.
            plain: Any = value.item()  # type: ignore[union-attr]
        except (AttributeError, ValueError):
            plain = None
        if isinstance(plain, bool) or not isinstance(plain, (int, float)):
            raise TypeError(f"{allowed}. Received: {name}={value!r}")
        value = plain
    if _LARGEST < abs(value) < float("inf"):  # Python's integers have no end.
        allowed += ", within float32's range"
    inside = (
        abs(value) <= _LARGEST
        and (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
        and (below is None or value < below)
    )
    if not inside:
        raise ValueError(f"{allowed}. Received: {name}={value!r}")
    return float(value)


# Of int32, in which updates are counted.
MOST = 2**31 - 1


def integer(name: str, value: Any, *, low: int, high: int = MOST) -> int:
    """Returns `value` as an int from `low` to `high`."""
    allowed = f"`{name}` must be an integer >= {low}"
    try:  # Arrays have an index too, if they hold one integer.
        plain = operator.index(value)
    except TypeError:
        plain = None
    if isinstance(value, bool) or plain is None:
        raise TypeError(f"{allowed}. Received: {name}={value!r}")
    if plain < low:
        raise ValueError(f"{allowed}. Received: {name}={value!r}")
    if plain > high:
        raise ValueError(f"{allowed} and <= {high}. Received: {name}={value!r}")
    return plain


def boolean(name: str, value: Any) -> bool:
    """Returns `value` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(
            f"`{name}` must be True or False. Received: {name}={value!r}"
        )
    return value


def text(name: str, value: Any) -> str:
    """Returns `value` if it is a non-empty string."""
    if not isinstance(value, str):
        raise TypeError(
            f"`{name}` must be a string. Received: {name}={value!r}"
        )
    if not value:
        raise ValueError(
            f"`{name}` must not be empty. Received: {name}={value!r}"
        )
    return value


def choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """Returns `value` if it is one of `choices`."""
    choices = list(choices)
    if not any(type(value) is type(c) and value == c for c in choices):
        listed = ", ".join(repr(c) for c in choices)
        raise ValueError(
            f"`{name}` must be one of {listed}. Received: {name}={value!r}"
        )
    return value


def call_text(obj: Any) -> str:
    """Returns `Class(argument=value, ...)` from the object's config."""
    arguments = ", ".join(f"{k}={v!r}" for k, v in obj.get_config().items())
    return f"{type(obj).__name__}({arguments})"


def empty_config(obj: Any, what: str) -> dict[str, Any]:
    """Returns the config of an object whose class takes no arguments."""
    if inspect.signature(type(obj)).parameters:
        raise TypeError(
            f"A {what} of your own with arguments needs `get_config`, "
            "which returns them by name. Received: "
            f"{type(obj).__name__} without it"
        )
    return {}


def instance_or_none(name: str, value: Any, kind: type, allowed: str) -> Any:
    """Returns `value` if it is None or a `kind`."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"`{name}` must be None or {allowed}. Received: {name}={value!r}"
        )
    return value


def _or_none(check: Callable[..., Any], **bounds: float) -> Callable[..., Any]:
    """A check that lets None pass."""

    def checked(name: str, value: Any) -> Any:
        return None if value is None else check(name, value, **bounds)

    return checked


# What Keras' own arguments of an optimizer may be; most it takes silently.
BASE: dict[str, Callable[[str, Any], Any]] = {
    "weight_decay": _or_none(number, low=0),
    "clipnorm": _or_none(number, above=0),
    "clipvalue": _or_none(number, above=0),
    "global_clipnorm": _or_none(number, above=0),
    "ema_momentum": _or_none(number, low=0, high=1),
    "loss_scale_factor": _or_none(number, above=0),
    "ema_overwrite_frequency": _or_none(integer, low=1),
    "gradient_accumulation_steps": _or_none(integer, low=2),
    "use_ema": boolean,
}


def base_arguments(kwargs: dict[str, Any]) -> None:
    """Checks Keras' base arguments.

    NumPy's numbers become Python's, which a config can be written with.
    """
    unknown = sorted(set(kwargs) - set(BASE) - {"name"})
    if unknown:
        raise TypeError(
            "HybridOptimizer takes its own arguments and those of "
            f"keras.optimizers.Optimizer. Received: {', '.join(unknown)}"
        )
    for name, check in BASE.items():
        if name in kwargs:
            kwargs[name] = check(name, kwargs[name])
    if kwargs.get("name") is not None:
        text("name", kwargs["name"])


def rate_or_schedule(name: str, value: Any) -> Any:
    """Returns a positive float or a LearningRateSchedule."""
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(value, schedule):
        return value
    if callable(value):
        raise TypeError(
            f"`{name}` must be a number > 0 or a LearningRateSchedule. "
            f"Received: {name}={value!r}"
        )
    return number(name, value, above=0)
