"""Keras' own callbacks act on the optimizer in both phases."""

import keras
import numpy as np
import pytest
from small import AtBatch, largest_difference, slow_but, train

from keras_hybrid import HybridOptimizer
from keras_hybrid.triggers import AtStep


@pytest.mark.slow
@pytest.mark.parametrize("phase", slow_but({"sgd"}, ["adam", "sgd"]))
def test_learning_rate_callbacks_act_in_both_phases(phase):
    def optimizer():
        options = (
            {"trigger": AtStep(0), "sgd_scale": 2.0} if phase == "sgd" else {}
        )
        return HybridOptimizer(0.02, jit_compile=False, **options)

    def halve(epoch, rate):
        return rate / 2 if epoch else rate

    stock = optimizer()
    weights = train(
        stock, "fit", callbacks=[keras.callbacks.LearningRateScheduler(halve)]
    )
    np.testing.assert_allclose(stock.learning_rate, 0.005, rtol=1e-6)
    scheduled = optimizer()
    # Batches 0-7 at 0.02, 8-15 at 0.01, 16-23 at 0.005, by hand.
    expected = train(
        scheduled,
        "fit",
        callbacks=[
            AtBatch(
                {
                    8: lambda o: o.learning_rate.assign(0.01),
                    16: lambda o: o.learning_rate.assign(0.005),
                }
            )
        ],
    )
    assert largest_difference(weights, expected) == 0
    unscheduled = train(optimizer(), "eager")
    assert largest_difference(weights, unscheduled) > 1e-3
    if phase == "sgd":
        # 0.005 * (1 - 0.9) * 2
        np.testing.assert_allclose(
            stock.sgd_learning_rate_equivalent, 0.001, rtol=1e-5
        )
        plateau = optimizer()
        reduce = keras.callbacks.ReduceLROnPlateau(
            "loss", factor=0.1, patience=1, min_delta=1e9
        )
        train(plateau, "fit", callbacks=[reduce])
        # Nothing improves by 1e9: reduced after the second and third epoch.
        np.testing.assert_allclose(plateau.learning_rate, 2e-4, rtol=1e-5)
