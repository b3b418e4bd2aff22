"""What a search is, so that it goes on only as what it was.

`search.json` says it: data, model, loss, space and budget, in checksums and
configs. A run of another search in the same folder is refused, since its
trials would be compared with those of this one.
"""

from __future__ import annotations

import base64
import json
import marshal
import math
import re
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from keras_hybrid import recipes
from keras_hybrid._support import files, records
from keras_hybrid.callbacks.models import hybrid_optimizer
from keras_hybrid.tuning import members
from keras_hybrid.tuning.fit import FUNCTION, Fit
from keras_hybrid.tuning.hypermodel import HybridHyperModel, values_of
from keras_hybrid.tuning.record import FORMAT, SETTINGS_FILE

# One and the same loss, reckoned on other machines, differs by less.
_LOSS_TOLERANCE = 1e-3
# Where a model's config has names; and those that Keras has numbered.
_OF_NAMES = ("name", "keras_history", "input_layers", "output_layers")
_NUMBERED = re.compile(r'("name": "[^"]*?)_\d+"')
# What Keras raises where there is none; OSError of a lambda without source.
_NO_CONFIG = (NotImplementedError, OSError, TypeError, ValueError)


def look_into(folder: Path, overwrite: bool) -> None:
    """Refuses what is not ours, and lets KerasTuner go on with what is.

    Args:
        folder: Of the search.
        overwrite: Whether its files are removed.

    Raises:
        ValueError: If there is another search, or what is left of one.
    """
    if not members.is_worker():
        if overwrite or not (folder / SETTINGS_FILE).exists():
            _check_new(folder, overwrite)
        else:
            records.restore(folder)  # It reads files alone.
    if overwrite or not (folder / "oracle.json").exists():
        # Not to be cleared under another's feet, and writable.
        with members.alone(folder):
            return
    if not (folder / SETTINGS_FILE).exists():
        raise ValueError(
            f"`directory` holds another search, not made by ForkedTuner: "
            f"give another, or overwrite=True. Received: {folder}"
        )
    # KerasTuner goes on only where this tuner's own file is: not after a
    # kill in the first trial, nor after other tuners' trials.
    own = folder / f"{members.name()}.json"
    if not own.exists():
        files.write_json(own, {})


def _check_new(folder: Path, overwrite: bool) -> None:
    """Refuses to begin where an earlier search's trainings would be taken.

    Those of a table above the folder are there whatever is removed below.
    """
    stays = records.packed_below if overwrite else records.below
    left = [p for p in stays(folder) if p.name.startswith("seed-")]
    if left:
        table = records.packed_in(left[0])
        first = ""
        if table is not None:
            undo = f"keras-hybrid pack --undo {table.parent}"
            first = f" (`{undo}` first, as they are packed)"
        raise ValueError(
            "`directory` has trainings of an earlier search, whose search.json "
            "is gone or would be removed: give another directory or "
            f"project_name, or remove them{first}. Received: {left[0]}"
        )


def check(
    fit: Fit,
    hypermodel: HybridHyperModel,
    objective: Any,
    max_epochs: int | None,
) -> None:
    """Refuses what cannot be searched, before anything is trained.

    Args:
        fit: The arguments of `search`.
        hypermodel: With the space.
        objective: A `keras_tuner.Objective`.
        max_epochs: Hyperband's budget, else None.

    Raises:
        ValueError: If trials could not share epochs, or have none to share.
    """
    if not fit.is_replayable:
        raise ValueError(
            f"`x` must be arrays, or {FUNCTION}: trials share epochs, so the "
            "order of examples must be a function of the seed and the "
            f"epoch. Received: x of type {type(fit.x).__name__}"
        )
    if max_epochs not in (None, fit.epochs):
        raise ValueError(
            "`epochs` must be the tuner's `max_epochs`. Received: "
            f"epochs={fit.epochs}, max_epochs={max_epochs}"
        )
    # What is wrong with the data is said now, not in the first trial.
    fit.pipeline(0, 0)
    name = getattr(objective, "name", "")
    if name.startswith("val_") and fit.rest.get("validation_data") is None:
        raise ValueError(
            f"The objective {name!r} needs `validation_data`. Received: "
            "validation_data=None"
        )
    fractions = values_of(hypermodel.space["fraction"])
    whens = values_of(hypermodel.space["when"])
    earliest = min(v[0] if isinstance(v, tuple) else v for v in fractions)
    if "fraction" in whens and earliest * fit.epochs < 0.5:
        raise ValueError(
            "`epochs` is shorter than the earliest switch: a switch at "
            f"{earliest:.3g} of {fit.epochs} epochs would be before the "
            f"first epoch ends; it takes {math.ceil(0.5 / earliest)} "
            "epochs or a later switch. Received: epochs="
            f"{fit.epochs}, fraction={hypermodel.space['fraction']!r}"
        )


def describe(
    hypermodel: HybridHyperModel,
    fit: Fit,
    fingerprint: str,
    objective: Any,
    oracle: str,
    prune: bool,
) -> dict[str, Any]:
    """Returns what `search.json` holds.

    Args:
        hypermodel: With the space.
        fit: The arguments of `search`.
        fingerprint: Of `fit`.
        objective: A `keras_tuner.Objective`.
        oracle: Its kind.
        prune: Whether hopeless trials are stopped.
    """
    model = hypermodel.build_seeded(keras_tuner.HyperParameters(), 0)
    batch = fit.first_batch()
    return {
        "objective": objective.name,
        "direction": objective.direction,
        "tuner": oracle,
        "prune": prune,
        "seeds": hypermodel.seeds,
        "epochs": fit.epochs,
        "batch_size": fit.examples_in(batch),
        "space": _plain(hypermodel.space),
        "fit": fingerprint,
        "model": _fingerprint(model),
        "architecture": _architecture(model),
        "x": fit.sample(batch),
        "loss": _loss(model, batch),
        "metrics": _metrics(model),
        "hyperparameters": _plain(hypermodel.own_space()),
        "validation": fit.validation(),
    }


def claim(path: Path, description: Mapping[str, Any]) -> None:
    """Writes what a search is, or compares it with what is there.

    Raises:
        ValueError: If there is another search.
    """
    if not path.exists():
        files.write_json(path, {"format": FORMAT, **description})
        return
    there = files.read_json(path, FORMAT, "search")
    whole = _completed(there, description)
    differing = [
        name
        for name, ours in description.items()
        if name != "loss" and ours != whole.get(name)
    ]
    # The value of one and the same loss follows the data and the model.
    if _differs(description["loss"], whole["loss"], values=not differing):
        differing.append("loss")
    if differing:
        raise ValueError(
            f"`directory` holds a search with another {', '.join(differing)}: "
            "give another directory or project_name, or overwrite=True. "
            f"Received: {path.parent}"
        )
    if whole != there:
        files.write_json(path, {"format": FORMAT, **whole})


def _completed(
    there: Mapping[str, Any], description: Mapping[str, Any]
) -> dict[str, Any]:
    """Fills in what searches of earlier versions lack: they go on."""
    later = {
        *("architecture", "x", "loss", "metrics"),
        *("hyperparameters", "validation"),
    }
    added = later - set(there)
    if "x" in added:
        # Of a function's data they have the default in place of the size.
        added.add("batch_size")
    return {**there, **{name: description[name] for name in added}}


def _differs(ours: Any, theirs: Any, values: bool) -> bool:
    """Whether two losses have other configs, or other `values` at least."""
    (our_config, our_value), (their_config, their_value) = ours, theirs
    # Earlier versions had none where a lambda is part of it.
    if their_config is not None and our_config != their_config:
        return True
    if None in (our_value, their_value):
        return bool(our_value != their_value)
    return values and not math.isclose(
        our_value, their_value, rel_tol=_LOSS_TOLERANCE
    )


def _plain(value: Any) -> Any:
    """As it is read from JSON again."""
    return json.loads(json.dumps(value))


def _fingerprint(model: Any) -> str:
    """Tells other weights or another optimizer apart."""
    optimizer = hybrid_optimizer(model)
    shapes = [list(v.shape) for v in model.trainable_variables]
    arguments = recipes.serialized_arguments(optimizer, set())
    return json.dumps([shapes, arguments], sort_keys=True)


def _architecture(model: Any) -> str | None:
    """The model's config, its numbered names aside; None if it has none.

    Keras counts names on from build to build, those of the operations between
    the layers of a functional model too.
    """
    layers = [model, *model._flatten_layers(include_self=False)]
    numbers: dict[str, str] = {}
    for layer in layers:
        numbers.setdefault(layer.name, f"({len(numbers)})")
    for layer in layers:
        for operation in getattr(layer, "operations", ()):
            numbers.setdefault(operation.name, f"({len(numbers)})")
    return _text_of(lambda: _renamed(model.get_config(), numbers))


def _renamed(config: Any, numbers: Mapping[str, str], key: str = "") -> Any:
    """A config with other names of its layers and operations.

    They stand under some keys alone: "dropout" is a name and a key as well.
    """
    if isinstance(config, Mapping):
        return {k: _renamed(part, numbers, k) for k, part in config.items()}
    if isinstance(config, (list, tuple)):
        return [_renamed(part, numbers, key) for part in config]
    if isinstance(config, str) and key in _OF_NAMES:
        return numbers.get(config, config)
    return config


def _metrics(model: Any) -> str | None:
    """The metrics' configs, without the numbers that Keras gives to names."""
    text = _compiled_with(model, "metrics", "weighted_metrics")
    return None if text is None else _NUMBERED.sub(r'\1"', text)


def _compiled_with(model: Any, *names: str) -> str | None:
    """What was given to `compile` under these names; None if unknown."""

    def get_config() -> list[Any]:
        config = model.get_compile_config()
        return [config.get(name) for name in names]

    return _text_of(get_config)


def _text_of(get_config: Callable[[], Any]) -> str | None:
    """A config as text; None if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lambdas, which are told apart.
            return json.dumps(_without_lines(get_config()), sort_keys=True)
    except _NO_CONFIG:
        return None


def _without_lines(config: Any) -> Any:
    """The same with lambdas' code, but not the lines and file it stands in."""
    if isinstance(config, (list, tuple)):
        return [_without_lines(part) for part in config]
    if not isinstance(config, Mapping):
        return config
    if config.get("class_name") != "__lambda__":
        return {name: _without_lines(part) for name, part in config.items()}
    inner = config["config"]
    # A layer's has names; a loss's is one value.
    code, *kept = inner.get("value") or inner.values()
    return [_instructions(marshal.loads(base64.b64decode(code))), *kept]


def _instructions(code: types.CodeType) -> list[Any]:
    constants = [
        _instructions(c) if isinstance(c, types.CodeType) else repr(c)
        for c in code.co_consts
    ]
    return [code.co_code.hex(), *code.co_names, *constants]


def _loss(model: Any, batch: Any) -> list[Any]:
    """The loss's config, and its value at the start: what it is, and does.

    Keras serializes a function by its name alone, so another one of the same
    name differs in the value only; near the start two losses may agree, so
    the config counts as well. Each is None where it cannot be had.
    """
    config = _compiled_with(model, "loss", "loss_weights")
    return [config, _loss_value(model, batch)]


def _loss_value(model: Any, batch: Any) -> float | None:
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    try:
        predicted = model(x, training=False)
        value = float(model.compute_loss(x, y, predicted, weights, False))
    except Exception:  # A model of the user's own may train in another way.
        return None
    return value if math.isfinite(value) else None
