"""Arms at usual learning rates, without weight decay: those of `compare`."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from keras_hybrid import presets
from keras_hybrid.callbacks import TrainUntilDone
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.study.arms.arm import named
from keras_hybrid.study.arms.making import (
    make_cosine,
    make_ending,
    make_hybrid,
    make_preset,
)
from keras_hybrid.transitions import Hard

SGD_LEARNING_RATE = 0.05  # As often written: where the tuning starts.
MOMENTUM = 0.9
PATIENCE = 5  # Epochs, of EarlyStopping at a constant rate.


def _early_stopping(patience: int) -> Any:
    return keras.callbacks.EarlyStopping(
        patience=patience, restore_best_weights=True
    )


def _reduced() -> list[Any]:
    return [
        keras.callbacks.ReduceLROnPlateau(patience=3, factor=0.2),
        _early_stopping(8),
    ]


def _swapped() -> list[Any]:
    # At an epoch's end too, so that EarlyStopping restores the average.
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    return [swap, _early_stopping(PATIENCE)]


def _schedule_free(rate: float) -> Any:
    # Looked up late: the library's own floor is a Keras that has it not yet.
    return keras.optimizers.ScheduleFreeAdamW(rate)


def _until_done() -> list[Any]:
    return [TrainUntilDone(verbose=0)]


# What people do who do not know how many epochs they need: `epochs` is a
# ceiling. Patience and factor are those of a thousand tutorials.
CEILING = named(
    (
        make_ending("adam_constant", "Adam, constant, all epochs", None),
        make_ending(
            "adam_stop",
            "Adam, EarlyStopping",
            lambda: [_early_stopping(PATIENCE)],
        ),
        make_ending(
            "adam_reduce", "Adam, ReduceLROnPlateau, EarlyStopping", _reduced
        ),
        make_ending(
            "schedule_free",
            "ScheduleFreeAdamW, EarlyStopping",
            lambda: [_early_stopping(PATIENCE)],
            _schedule_free,
        ),
        make_ending(
            "adam_ema",
            "Adam, averaged (EMA), EarlyStopping",
            _swapped,
            use_ema=True,
        ),
        dataclasses.replace(
            make_ending(
                "until_done_control",
                "Control: TrainUntilDone, Adam to the end",
                _until_done,
                HybridOptimizer,
                "control",
                transition=Hard(end=0.0),
            ),
            tuned_as="until_done",
        ),
        make_ending(
            "until_done",
            "TrainUntilDone: Adam to SGD",
            _until_done,
            HybridOptimizer,
            "hybrid",
            "until_done_control",
        ),
    )
)
DEFAULT_ARMS = (
    "adam_constant",
    "adam_stop",
    "adam_reduce",
    "schedule_free",
    "adam_ema",
    "adam",
    "sgd",
    "until_done_control",
    "until_done",
)
# The published methods come with their papers' defaults where these do not
# depend on the length of the training, and without a cool-down.
ARMS = named(
    (
        make_cosine("adam", "Adam, cosine", keras.optimizers.Adam),
        make_cosine(
            "sgd",
            "SGD momentum, cosine",
            keras.optimizers.SGD,
            SGD_LEARNING_RATE,
            momentum=MOMENTUM,
        ),
        make_hybrid(
            "control",
            "Adam, cool-down from the switch",
            how=lambda b: Hard(end=0.0),
            role="control",
        ),
        make_hybrid("hybrid", "Adam to SGD, cool-down"),
        make_hybrid(
            "hybrid_norm", "Adam to SGD by norms, cool-down", sgd_scale="norm"
        ),
        make_hybrid(
            "hybrid_swats",
            "Adam to SGD by SWATS' average, cool-down",
            sgd_scale="swats",
        ),
        make_hybrid(
            "hybrid_model",
            "Adam to SGD, one rho for the model, cool-down",
            scale_scope="model",
        ),
        make_preset("swats", "SWATS", lambda b, rate: presets.SWATS(rate)),
        make_preset(
            "swats_layer",
            "SWATS per layer",
            lambda b, rate: presets.SWATS(rate, scope="layer"),
        ),
        make_preset(
            "gnmt",
            "GNMT, switch at half",
            lambda b, rate: presets.GNMT(rate, switch_step=b.steps // 2),
        ),
        make_preset(
            "rmsprop_warmup",
            "RMSprop warm-up over half",
            lambda b, rate: presets.RMSpropWarmup(
                max(b.steps // 2, 1), sgd_learning_rate=SGD_LEARNING_RATE
            ),
        ),
        make_preset("adabound", "AdaBound", lambda b, rate: presets.AdaBound()),
        make_preset("amsbound", "AMSBound", lambda b, rate: presets.AMSBound()),
        make_preset(
            "dstadam",
            "DSTAdam",
            lambda b, rate: presets.DSTAdam(max(b.steps, 2)),
        ),
        make_preset("padam", "Padam", lambda b, rate: presets.Padam()),
        make_preset("mas", "MAS", lambda b, rate: presets.MAS()),
        make_preset(
            "grafted",
            "Grafted at half",
            lambda b, rate: presets.Grafted(max(b.steps // 2, 1)),
        ),
        *CEILING.values(),
    )
)
