"""Where rules land on a curve, and what that costs."""

import numpy as np
import pytest

from keras_hybrid import HybridOptimizer
from keras_hybrid.study import cells, curves, datasets, regret, tails
from keras_hybrid.transitions import Cooldown
from keras_hybrid.triggers import AtStep, Plateau, Signals


def curve(**changed):
    """Ten epochs, of which any may be the switch."""
    losses = [1.0, 0.8, 0.6, 0.5, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    final = [0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.5, 0.4, 0.3]
    averaged = [0.4, 0.5, 0.7, 0.75, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    history = {
        "loss": losses,
        "val_loss": losses,
        "val_accuracy": averaged,
        "averaged_val_loss": losses,
        "averaged_val_accuracy": averaged,
        "averaged_test_accuracy": [x - 0.01 for x in averaged],
    }
    fields = {
        "cell": "cell",
        "seed": 0,
        "ceiling": 15,
        "share": 0.5,
        "learning_rate": 1e-3,
        "history": history,
        "switches": list(range(1, 11)),
        "val_accuracy": final,
        "test_accuracy": [x - 0.1 for x in final],
        "versions": {},
    }
    return curves.Curve(**(fields | changed))


def test_a_curve_is_smoothed_over_three_and_interpolated():
    found = curve()
    assert found.latest == 10
    assert found.final(3) == pytest.approx(0.7)
    assert found.final(1) == pytest.approx((0.5 + 0.5 + 0.6) / 3)
    assert found.best() == pytest.approx(0.8)
    assert found.best_epoch() == 5
    assert found.best("test_accuracy") == pytest.approx(0.7)
    sparse = curve(switches=[1, 3, 5], val_accuracy=[0.5, 0.5, 0.5])
    assert sparse.final(2) == pytest.approx(0.5)


def landing(**options):
    rule = regret.Rule(lambda: Plateau("averaged_val_loss", 3), **options)
    return rule.land(curve(), "val_accuracy")


def test_a_rule_switches_where_its_trigger_fires():
    # The best is epoch 5, three epochs later it fires.
    found = landing()
    assert (found.fired, found.switched, found.epochs) == (8, 8, 12)
    assert found.accuracy == pytest.approx((0.8 + 0.5 + 0.4) / 3)


def test_a_rule_may_go_back():
    found = landing(back=0.1)
    # The epochs to epoch 8 were trained too.
    assert (found.fired, found.switched, found.epochs) == (8, 5, 10.5)
    assert found.accuracy == pytest.approx(0.8)
    assert landing(back=0.8).switched == 8


def test_a_rule_may_keep_the_average_s_best():
    rule = regret.Rule(lambda: Plateau("averaged_val_loss", 3), keeps=True)
    found = rule.land(curve(), "val_accuracy")
    assert found.accuracy == 0.75
    # Chosen by validation, reported of the test split.
    assert rule.land(curve(), "test_accuracy").accuracy == 0.74
    _, points = regret.regret(curve(), rule, "val_accuracy")
    assert points == pytest.approx(100 * (0.8 - 0.75))


def test_a_trigger_that_does_not_fire_switches_at_the_latest():
    rule = regret.Rule(lambda: Plateau("averaged_val_loss", 9), back=0.0)
    found = rule.land(curve(), "val_accuracy")
    assert (found.fired, found.switched, found.epochs) == (10, 10, 15)


@pytest.mark.parametrize("name", regret.RULES)
def test_every_rule_lands(name):
    landing, points = regret.regret(curve(), regret.RULES[name], "val_accuracy")
    assert 1 <= landing.switched <= landing.fired <= 10
    assert np.isfinite(points)


def test_a_curve_comes_back_from_its_file(tmp_path):
    path = tmp_path / "curve.json"
    curve().save(path)
    assert curves.Curve.load(path) == curve()
    path.write_text('{"format": 1}')
    with pytest.raises(ValueError, match="missing or unknown"):
        curves.Curve.load(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"val_accuracy": [0.5] * 9},
        {"test_accuracy": [0.5] * 11},
        {"val_accuracy": None},
        {"switches": [], "val_accuracy": [], "test_accuracy": []},
        {"switches": None},
        {"fired": None},
        {"history": {"loss": [1.0] * 9}},
        {"history": None},
    ],
    ids=str,
)
def test_a_damaged_curve_is_named(changed, tmp_path):
    path = tmp_path / "curve.json"
    curve(**changed).save(path)
    with pytest.raises(ValueError, match=r"curve\.json: no regret curve"):
        curves.Curve.load(path)


def test_a_curve_with_a_loss_that_is_no_number_is_read(tmp_path):
    path = tmp_path / "curve.json"
    losses = [1.0, float("nan"), *[0.5] * 8]
    curve(history={"loss": losses}).save(path)
    read = curves.Curve.load(path).history["loss"]
    np.testing.assert_array_equal(read, losses)


def test_the_grid_begins_dense_and_ends_at_the_latest():
    assert curves.grid(4) == [1, 2, 3, 4]
    found = curves.grid(40)
    assert found[:12] == list(range(1, 13))
    assert found[-1] == 40
    assert len(found) < 25


TINY = cells.Cell("tiny", "good-fit", "mlp_small", None, 3, 16)


def tiny_data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (160, 6, 6, 1)).astype("uint8")
    labels = (images[:, 0, 0, 0] > 127).astype("int64")
    parts = [
        (images[a:b], labels[a:b]) for a, b in ((0, 96), (96, 128), (128, 160))
    ]
    return datasets.Data("tiny", *parts, classes=2, augmented=False)


@pytest.mark.slow
def test_a_measured_curve():
    data = tiny_data()
    found = curves.measure(TINY, data, 0, 6, [1, 3])
    assert found.switches == [1, 3]
    assert {len(values) for values in found.history.values()} == {3}
    again = curves.measure(TINY, data, 0, 6, [3])
    # A cool-down from the first epoch leaves no trace in the constant phase.
    assert again.history == found.history
    assert again.val_accuracy == found.val_accuracy[1:]
    assert again.fired == found.fired
    assert found.fired.keys() == curves.STEP_TRIGGERS.keys()
    # Too few updates for any but the paper's, which may fire by chance.
    assert found.fired["ProjectionConverged()"] is None
    assert found.fired["GradientSignalToNoise()"] is None
    # Of one epoch, the average is its end.
    assert found.history["averaged_val_loss"][0] == pytest.approx(
        found.history["val_loss"][0], rel=1e-6
    )


@pytest.mark.slow
def test_a_record_is_watched_again(monkeypatch):
    after_7 = {"seven": lambda: AtStep(7), "never": lambda: AtStep(99)}
    monkeypatch.setattr(curves, "STEP_TRIGGERS", after_7)
    data = tiny_data()
    found = curves.measure(TINY, data, 0, 3, [2])
    # Six updates an epoch.
    assert found.fired == {"seven": 7 / 6, "never": None}
    old = found._replace(fired={})
    assert curves.watch_again(old, TINY, data) == found
    old.history["loss"][1] += 0.1
    with pytest.raises(ValueError, match="not the record's.* in epoch 2"):
        curves.watch_again(old, TINY, data)


@pytest.mark.slow
def test_tails_leave_no_trace_and_last_their_share():
    optimizer = HybridOptimizer(cooldown=Cooldown(share=0.5))
    training = tails.Training(TINY, tiny_data(), 0, optimizer)
    training.train()
    before = training.scores("val")
    weights = training.model.get_weights()
    ends = [training.tail(Cooldown("linear", share=s)) for s in (0.5, 1, 0.5)]
    assert ends[0] == ends[2]
    assert training.scores("val") == before
    for now, then in zip(training.model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    assert optimizer.switch_step is None
    assert optimizer.updates_made == 6


@pytest.mark.slow
def test_looks_within_an_epoch_see_the_same_training():
    def trained(looks):
        optimizer = HybridOptimizer(cooldown=Cooldown(share=0.5))
        training = tails.Training(TINY, tiny_data(), 0, optimizer, looks)
        for _ in range(2 * looks):
            seen = training.train()
        assert training.updates == optimizer.updates_made == 12
        ends = training.tail()
        weights = training.model.get_weights()
        return weights, ends, {k: v for k, v in seen.items() if "val" in k}

    weights, *rest = trained(1)
    for looks in (2, 3):
        other, *others = trained(looks)
        assert others == rest
        for now, then in zip(other, weights, strict=True):
            np.testing.assert_array_equal(now, then)


def test_a_noted_trigger_tells_its_first_update_and_never_fires():
    noted = tails.Noted(AtStep(3))
    state = noted.init(2)
    for step in range(5):
        seen = Signals(step, 1e-3, 1.0, np.ones(2), 0.9, 0.999)
        fired, state = noted.update(state, seen)
        assert not fired
    np.testing.assert_array_equal(np.array(state[0]), [3, 3])
    again = tails.Noted.from_config(noted.get_config())
    assert repr(again) == repr(noted)


def test_a_step_trigger_lands_within_an_epoch():
    rules = regret.STEP_RULES
    name = next(iter(rules))
    landing = rules[name].land(curve(fired={name: 2.5}), "val_accuracy")
    assert (landing.switched, landing.epochs) == (2.5, 3.75)
    assert landing.accuracy == pytest.approx(0.65)
    never = rules[name].land(curve(fired={name: None}), "val_accuracy")
    assert never.switched == 10
    with pytest.raises(KeyError):
        rules[name].land(curve(), "val_accuracy")
    known = curve(fired=dict.fromkeys(rules))
    found = regret.watched({"a": [curve()], "b": [curve(), known]})
    assert found == {"b": [known]}


def test_random_labels_are_a_share_and_the_same_each_time():
    labels = np.zeros(4000, "int64")
    images = np.zeros((4000, 2, 2, 1), "uint8")
    part = images[:10], labels[:10]
    data = datasets.Data("x", (images, labels), part, part, 10, False)
    noisy = datasets.with_noise(data, 0.3)
    # A tenth of those drawn is the class that it was.
    assert (noisy.train[1] != 0).mean() == pytest.approx(0.27, abs=0.02)
    assert noisy.label_noise == 0.3
    assert noisy.validation is data.validation
    again = datasets.with_noise(data, 0.3)
    np.testing.assert_array_equal(noisy.train[1], again.train[1])
    assert datasets.with_noise(data, 0.0) is data


def test_over_cells_each_counts_alike():
    def worse(points, seed):
        """Behind its best epoch each curve loses so many points."""
        first, last = curve().val_accuracy[:4], curve().val_accuracy[4:]
        last = [x - points / 100 for x in last]
        return curve(seed=seed, val_accuracy=[*first, *last])

    name = "averaged loss, patience 3"
    rule = regret.RULES[name]
    of_cell = {
        "a": [worse(0, 100), worse(2, 101)],
        "b": [worse(5, 101)],
        "c": [worse(20, 102)],
        "d": [worse(0, 100)],
    }
    lost = {
        cell: [regret.regret(c, rule, "val_accuracy")[1] for c in found]
        for cell, found in of_cell.items()
    }
    means = [np.mean(points) for points in lost.values()]
    found = regret.brief(of_cell, "val_accuracy", rule)
    assert found.mean == pytest.approx(np.mean(means))
    assert found.median == pytest.approx(np.median(means))
    assert found.worst == pytest.approx(means[2])
    assert found.epochs == pytest.approx(12 / 15)
    fresh = regret.fresh(of_cell)
    assert {k: [c.seed for c in v] for k, v in fresh.items()} == {
        "a": [101],
        "b": [101],
        "c": [102],
    }
    table = regret.briefly(fresh, "val_accuracy", {name: rule})
    middle = lost["b"][0]
    assert "mean of 3 cells" in table
    assert f"| {middle:.2f} | {lost['c'][0]:.2f} | 80 % |" in table
