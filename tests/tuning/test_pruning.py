"""The median rule, and trials that diverge."""

import keras
import pytest
import tensorflow as tf
from searches import POINTS, X, Y, tuner_in

from keras_hybrid import HybridOptimizer
from keras_hybrid.plans import Plan
from keras_hybrid.tuning import record
from keras_hybrid.tuning.pruning import (
    median_rule,
    no_better_than_finished,
)
from keras_hybrid.tuning.record import Search, Trained, Trial


def finished(seed, values, switch, epochs=10):
    return Trained(
        seed=seed,
        history={"loss": values, "val_loss": values},
        switch_step=6 * switch,
        steps_per_epoch=6,
        shared_epochs=0,
        trained_epochs=epochs,
        seconds=1.0,
        status="finished",
    )


def history(values, step):
    return {
        "loss": values,
        "val_loss": values,
        "switch_step": [step] * len(values),
    }


@pytest.mark.parametrize(
    ("values", "step", "stops"),
    [
        # Two that rise by 1 an epoch, from a switch at epoch 2 of 10. Half way
        # from one at epoch 4 is epoch 7, for which they had 6 at epoch 6.
        ([9.0] * 6 + [6.1], 24, True),
        ([9.0] * 6 + [5.9], 24, False),
        # A third of the way is epoch 6: from there on.
        ([99.0] * 6, 24, True),
        ([99.0] * 5, 24, False),
        ([99.0] * 10, 24, False),
        ([99.0] * 7, -1, False),
    ],
    ids=["worse", "better", "a-third", "earlier", "the-end", "unswitched"],
)
def test_the_median_rule(tmp_path, values, step, stops):
    rising = [float(epoch) for epoch in range(1, 11)]
    trials = [
        Trial(str(i), Plan(fraction=0.2), {}, 10, [finished(0, rising, 2)])
        for i in range(2)
    ]
    settings = {"objective": "val_loss", "direction": "min"}
    search = Search(tmp_path, settings, trials, {})
    assert median_rule(search, 0, 10, {})(history(values, step)) is stops
    # Of another seed, budget or other hyperparameters there are none.
    for others in ((1, 10, {}), (0, 20, {}), (0, 10, {"units": 3})):
        assert not median_rule(search, *others)(history(values, step))


@pytest.mark.parametrize(("objective", "sign"), [("val_loss", 1), ("up", -1)])
def test_what_cannot_win_is_below_all_that_can(tmp_path, objective, sign):
    trials = []
    for name, last in (("0", 2.0), ("1", 3.0)):
        run = finished(0, [9.0] * 9 + [last], 2)
        run.history["up"] = [-x for x in run.history["loss"]]
        trials.append(Trial(name, Plan(fraction=0.2), {}, 10, [run]))
    settings = {
        "objective": objective,
        "direction": "min" if sign > 0 else "max",
    }
    search = Search(tmp_path, settings, trials, {})
    for own, limit in ((float("nan"), 3.0), (1.0, 3.0), (7.0, 7.0)):
        metrics = no_better_than_finished(search, {objective: sign * own}, 10)
        assert sign * metrics[objective] > limit
        assert sign * metrics[objective] == pytest.approx(limit)


@pytest.mark.slow
def test_the_median_rule_stops_the_first_seed_of_hopeless_trials(tmp_path):
    def pipeline(seed, first_epoch, epochs):
        one = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
        return one.repeat(), 6

    space = {**POINTS, "fraction": [0.9, 0.8, 0.2], "end": [0.0]}
    space |= {"scale": "number", "rho": [1.0, 1e3], "end": 1.0}
    tuner = tuner_in(tmp_path, space=space, seeds=2, prune=True)
    tuner.search(pipeline, epochs=10, validation_data=(X[:32], Y[:32]))
    search = record.load(tuner.folder)
    stopped = [t for t in search.trials if t.status == "stopped"]
    assert stopped, "a rho of a thousand is hopeless"
    for trial in stopped:
        (run,) = trial.runs
        switch = run.switch_step / run.steps_per_epoch
        epochs = len(run.history["loss"])
        assert (epochs - switch) / (10 - switch) >= 1 / 3
        assert epochs < 10
        assert trial not in search.complete
        score = tuner.oracle.get_trial(trial.name).score
        assert score >= search.best.mean("val_loss")
    whole = tuner_in(
        tmp_path, space=space, seeds=2, project_name="whole", directory=tmp_path
    )
    whole.search(pipeline, epochs=10, validation_data=(X[:32], Y[:32]))
    all_of_it = record.load(whole.folder)
    assert search.epochs_trained < all_of_it.epochs_trained
    finished = {t.name: t.scores("val_loss") for t in search.complete}
    for trial in all_of_it.complete:
        if trial.name in finished:
            assert finished[trial.name] == trial.scores("val_loss")


@pytest.mark.slow
def test_a_diverged_trial_is_recorded_and_the_search_goes_on(tmp_path):
    space = {
        **POINTS,
        "fraction": 0.5,
        "scale": "number",
        "rho": [1.0, 1e30, 2e30, 3e30, 4e30, 2.0],
        "cooldown": ["none"],
    }

    def mse(hp):
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
        model.compile(HybridOptimizer(jit_compile=False), "mse")
        return model

    tuner = tuner_in(tmp_path, mse, space)
    tuner.search(X, X, epochs=4, validation_data=(X, X))
    search = record.load(tuner.folder)
    statuses = {t.plan.rho: t.status for t in search.trials}
    assert [s for rho, s in statuses.items() if rho > 1e9] == ["diverged"] * 4
    assert statuses[1.0] == statuses[2.0] == "finished"
    assert search.best.plan.rho in (1.0, 2.0)
    assert tuner.recipe().plan == search.best.plan
