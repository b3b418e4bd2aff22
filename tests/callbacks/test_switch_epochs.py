"""SwitchCallback under `fit`: when it switches, and why."""

import keras
import pytest
from switching import STEPS, Inject, dataset, fit, hybrid_model

from keras_hybrid import SwitchCallback
from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    GeneralizationGap,
    MetricReached,
    Plateau,
)

PLATEAU_OF_2 = [1.0, 0.5, 0.75, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("trigger", "epochs_before"),
    [
        pytest.param(AtEpoch(1), 1, marks=pytest.mark.slow),
        (AtEpoch(3), 3),
        (Plateau("score", patience=2, mode="min"), 4),
        (Plateau("score", patience=1, mode="max"), 2),
        (GeneralizationGap(0.3, metric="gap", mode="min"), 3),
        (MetricReached("score", 0.25, mode="min"), 5),
        (AtEpoch(5) | Plateau("score", patience=1, mode="min"), 3),
        (AtEpoch(4) & Plateau("score", patience=1, mode="min"), 4),
        pytest.param(AtEpoch(6), 6, marks=pytest.mark.slow),
        pytest.param(AtEpoch(7), None, marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_switches_at_the_right_epoch(trigger, epochs_before):
    model = hybrid_model()
    inject = Inject(
        score=PLATEAU_OF_2, gap=[0.0] * 6, val_gap=[0.1, 0.3, 0.5, 0, 0, 0]
    )
    history = fit(model, inject, SwitchCallback(trigger, verbose=0), epochs=6)
    optimizer = model.optimizer
    if epochs_before is None:
        assert optimizer.switch_step is None
        assert history["switch_step"] == [-1] * 6
    else:
        assert optimizer.switch_step == epochs_before * STEPS
        assert history["sgd_fraction"] == [
            float(epoch >= epochs_before) for epoch in range(6)
        ]


def test_reads_the_metrics_that_fit_computes():
    model = hybrid_model(learning_rate=0.0)
    # With learning rate 0 the validation loss never improves.
    fit(
        model,
        SwitchCallback(Plateau("val_loss", patience=2), verbose=0),
        epochs=4,
        validation_data=dataset(),
    )
    assert model.optimizer.switch_step == 3 * STEPS


def test_rounding_of_the_stored_state_does_not_hide_a_plateau():
    """0.1 is no float32; a constant score must not look like progress."""
    model = hybrid_model()
    trigger = Plateau("score", patience=2, mode="min")
    fit(
        model,
        Inject(score=[0.1] * 4),
        SwitchCallback(trigger, verbose=0),
        epochs=4,
    )
    assert model.optimizer.switch_step == 3 * STEPS


def test_step_trigger_of_the_optimizer_switches_inside_an_epoch():
    model = hybrid_model(trigger=AtStep(STEPS + 1))
    history = fit(model, SwitchCallback(verbose=0))
    assert model.optimizer.switch_step == STEPS + 1
    assert history["switch_step"] == [-1, STEPS + 1, STEPS + 1]


def test_an_earlier_step_trigger_leaves_nothing_to_the_epoch_trigger():
    model = hybrid_model(trigger=AtStep(2))
    fit(model, SwitchCallback(AtEpoch(2), verbose=0))
    assert model.optimizer.switch_step == 2


def test_monitor_only_says_but_does_not_switch(capsys):
    model = hybrid_model()
    history = fit(model, SwitchCallback(AtEpoch(2), monitor_only=True))
    assert not model.optimizer.has_switched
    assert history["would_switch"] == [0, 1, 1]
    assert history["sgd_fraction"] == [0, 0, 0]
    printed = capsys.readouterr().out
    assert "Epoch 2: AtEpoch(n=2) would switch" in printed
    assert "Epoch 1:" not in printed
    assert "switched to SGD" not in printed


def test_switch_by_hand_is_reported(capsys):
    model = hybrid_model()
    by_hand = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: (
            batch == 2
            and not model.optimizer.has_switched
            and model.optimizer.switch()
        )
    )
    fit(model, by_hand, SwitchCallback(), epochs=2)
    assert model.optimizer.switch_step == 3
    line = "Epoch 1: switched to SGD at update 3 by optimizer.switch(), "
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    "trigger", [AtEpoch(2), Plateau("score", patience=1, mode="min")], ids=repr
)
def test_revert_lets_the_trigger_start_anew(trigger):
    model = hybrid_model()
    scores = [1.0] * 6
    switch = SwitchCallback(trigger, verbose=0)
    fit(model, Inject(score=scores), switch, epochs=2)
    assert model.optimizer.switch_step == 2 * STEPS
    model.optimizer.revert()
    fit(
        model, Inject(score=scores), switch, epochs=6, initial_epoch=2
    )  # AtEpoch holds after epoch 2, Plateau has to see two epochs again.
    waited = 1 if isinstance(trigger, AtEpoch) else 2
    assert model.optimizer.switch_step == (2 + waited) * STEPS
