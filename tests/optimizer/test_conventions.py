"""A rate that changes: outside the momentum, or inside it as in keras SGD."""

import keras
import numpy as np
import pytest
import reference
from small import (
    MODES,
    Halving,
    assert_equal_weights,
    dense_model,
    exact,
    halving,
    largest_difference,
    random_gradients,
    run,
    slow_but,
    start_weights,
    tolerance,
    train,
)

from keras_hybrid import HybridOptimizer, TrainUntilDone
from keras_hybrid.scales import LearningRate, Number
from keras_hybrid.transitions import Blend, Cooldown, Hard
from keras_hybrid.triggers import AtStep

schedules = keras.optimizers.schedules


def dropping():
    """A tenth from the fourth update on, nothing in two, then more again."""
    return schedules.PiecewiseConstantDecay(
        [3, 8, 10], [0.0625, 0.00625, 0.0, 0.03125]
    )


def warming():
    return schedules.CosineDecay(0.0, 20, warmup_target=0.0625, warmup_steps=5)


AT_START = AtStep(0)


def inside(schedule, trigger=AT_START, **options):
    return HybridOptimizer(
        trigger=trigger,
        sgd_scale=LearningRate(schedule, inside_momentum=True),
        **options,
    )


# ---- Keras' SGD --------------------------------------------------------------

SGD = {
    "dropping": (dropping, {"momentum": 0.9}),
    "nesterov": (dropping, {"momentum": 0.8, "nesterov": True}),
    "warming": (warming, {"momentum": 0.9, "clipvalue": 0.02}),
    "no-momentum": (warming, {"momentum": 0.0}),
}


@pytest.mark.parametrize("mode", slow_but({"eager"}, MODES))
@pytest.mark.parametrize("name", slow_but({"nesterov"}, SGD))
def test_inside_the_momentum_it_is_keras_sgd(name, mode):
    schedule, options = SGD[name]
    expected = train(keras.optimizers.SGD(schedule(), **options), "eager")
    jit_compile = "auto" if name == "dropping" else False
    optimizer = inside(schedule(), jit_compile=jit_compile, **options)
    assert_equal_weights(train(optimizer, mode), expected, tolerance("float32"))


def test_outside_it_is_another_training():
    expected = train(keras.optimizers.SGD(dropping(), momentum=0.9), "eager")
    outside = HybridOptimizer(
        trigger=AtStep(0), sgd_learning_rate=dropping(), jit_compile=False
    )
    assert largest_difference(train(outside, "eager"), expected) > 1e-3


def test_a_drop_shortens_the_next_step_or_the_next_gradient():
    """The documented case: 0.1 to 0.001, gradients of 1, momentum 0.9."""
    drop = schedules.PiecewiseConstantDecay([9], [0.1, 0.001])
    steps = {}
    for name, scale in (
        ("inside", LearningRate(drop, inside_momentum=True)),
        ("outside", LearningRate(drop)),
    ):
        w = keras.Variable([0.0])
        optimizer = HybridOptimizer(trigger=AtStep(0), sgd_scale=scale)
        path = [0.0]
        for _ in range(12):
            optimizer.apply([keras.ops.ones(1)], [w])
            path.append(float(w.numpy()[0]))
        steps[name] = np.diff(path)[10]
    velocity = -0.1 * (1 - 0.9**10) / (1 - 0.9)
    # The weight, near 5, has a spacing of 5e-7.
    close = {"rtol": 0, "atol": 1e-6}
    np.testing.assert_allclose(steps["inside"], 0.9 * velocity - 1e-3, **close)
    outside = -1e-3 * (1 - 0.9**11) / (1 - 0.9)
    np.testing.assert_allclose(steps["outside"], outside, **close)


def test_in_float64_it_is_the_formula():
    gradients = np.random.default_rng(0).normal(size=(9, 5))
    w = keras.Variable(np.linspace(-1, 1, 5), dtype="float64")
    expected = reference.sgd(gradients, w.numpy(), halving, momentum=0.9)
    optimizer = inside(Halving())
    for g, after in zip(gradients, expected, strict=True):
        optimizer.apply([keras.ops.convert_to_tensor(g)], [w])
        np.testing.assert_allclose(w.numpy(), after, rtol=0, atol=1e-12)


# ---- After Adam -------------------------------------------------------------


@pytest.mark.parametrize(
    "jit_compile", [pytest.param("auto", marks=pytest.mark.slow), False]
)
def test_the_momentum_goes_on_as_if_at_the_first_rate(jit_compile):
    # Keras' SGD whose velocity is -a(0) m / (1 - momentum).
    gradients = random_gradients()
    optimizer = inside(
        Halving(), AtStep(5), momentum=0.75, jit_compile=jit_compile
    )
    got = run(optimizer, gradients)
    adam = HybridOptimizer(jit_compile=False)
    before = run(adam, gradients[:5])
    sgd = keras.optimizers.SGD(Halving(), momentum=0.75)
    model = dense_model("float64")
    sgd.build(model.trainable_variables)
    for variable, value, velocity, m in zip(
        model.trainable_variables,
        before[-1],
        sgd.momentums,
        adam.state.first_moments,
        strict=True,
    ):
        variable.assign(value)
        velocity.assign(-0.2 * m.numpy() / (1 - exact(0.75)))
    for step, gradient in enumerate(gradients[5:]):
        sgd.apply(
            [keras.ops.convert_to_tensor(g, "float64") for g in gradient],
            model.trainable_variables,
        )
        values = [v.numpy() for v in model.trainable_variables]
        # Keras casts the rate to float32.
        assert largest_difference(got[5 + step], values) < 1e-6


@pytest.mark.parametrize("action", slow_but({"revert"}, ["revert", "restart"]))
def test_adam_gets_its_momentum_back(action):
    """The rate leaves the momentum: Adam's next step has its size."""
    w = keras.Variable([1.0, 2.0])
    optimizer = inside(
        schedules.ExponentialDecay(0.01, 1, 0.5),
        AtStep(80),
        beta_2=0.9,
        jit_compile=False,
    )
    for _ in range(84):
        optimizer.apply([keras.ops.convert_to_tensor([1.0, -3.0])], [w])
    before = w.numpy()
    (m,) = optimizer.state.first_moments
    assert np.abs(m.numpy()).max() < 0.1
    getattr(optimizer, action)()
    # In units of the last rate, 0.01 / 8.
    g = np.array([1.0, -3.0])
    rates = 0.01 * 0.5 ** np.arange(4)
    expected = g * (1 - 0.9**80) * rates[0]
    for rate in rates:
        expected = 0.9 * expected + 0.1 * rate * g
    np.testing.assert_allclose(m.numpy(), expected / rates[-1], rtol=1e-5)
    optimizer.apply([keras.ops.convert_to_tensor(g, "float32")], [w])
    moved = (before - w.numpy()) / 1e-3
    inner = 0.9 * expected / rates[-1] + 0.1 * g
    np.testing.assert_allclose(moved, inner / np.abs(g), rtol=2e-2)


def test_a_waiting_momentum_stays_adams():
    """`revert` between the switch and SGD's first update changes nothing."""
    w = keras.Variable([1.0, 2.0])
    optimizer = inside(Halving(), AtStep(3), jit_compile=False)
    for _ in range(3):
        optimizer.apply([keras.ops.convert_to_tensor([1.0, -3.0])], [w])
    (m,) = optimizer.state.first_moments
    before = m.numpy()
    assert optimizer.switch_step == 3
    optimizer.revert()
    np.testing.assert_array_equal(m.numpy(), before)


def test_at_a_rate_of_zero_adam_starts_from_zero_momentum():
    w = keras.Variable([1.0])
    stops = schedules.PiecewiseConstantDecay([1], [0.1, 0.0])
    optimizer = inside(stops, AtStep(2), jit_compile=False)
    for _ in range(6):
        optimizer.apply([keras.ops.ones(1)], [w])
    optimizer.revert()
    np.testing.assert_array_equal(optimizer.state.first_moments[0], [0.0])


def test_trains_until_done():
    """Its own cool-down is part of the rate, `restart` of its second fit."""
    model = dense_model("float32")
    optimizer = inside(
        schedules.InverseTimeDecay(0.05, 100, 0.5), None, jit_compile=False
    )
    model.compile(optimizer=optimizer, loss="mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, *model.input_shape[1:])).astype("float32")
    y = rng.normal(size=(32, *model.output_shape[1:])).astype("float32")
    for _ in range(2):
        history = model.fit(
            x, y, epochs=4, verbose=0, callbacks=[TrainUntilDone(verbose=0)]
        ).history
        assert optimizer.has_switched
        assert np.isfinite(history["loss"]).all()
        assert history["loss"][-1] <= history["loss"][0]


# ---- What is read of it ------------------------------------------------------


def test_the_rate_that_is_reported_is_the_schedules():
    w = keras.Variable([1.0, 2.0])
    optimizer = inside(
        dropping(), AtStep(2), cooldown=Cooldown("linear", steps=8)
    )
    optimizer.build([w])
    assert optimizer.sgd_learning_rate_equivalent == pytest.approx(0.0625)
    for _ in range(7):
        optimizer.apply([keras.ops.ones(2)], [w])
    assert optimizer.sgd_learning_rate_equivalent == pytest.approx(
        0.00625 * 3 / 8
    )


def test_a_config_keeps_the_convention():
    scale = LearningRate(dropping(), inside_momentum=True)
    again = LearningRate.from_config(scale.get_config())
    assert again.inside_momentum and repr(again).endswith(
        ", inside_momentum=True)"
    )
    # A file of 0.3 has none.
    config = LearningRate(0.1).get_config()
    del config["inside_momentum"]
    assert not LearningRate.from_config(config).inside_momentum


# ---- What is refused ---------------------------------------------------------


def built(**options):
    optimizer = HybridOptimizer(jit_compile=False, **options)
    optimizer.build([keras.Variable(start_weights()[0])])
    return optimizer


INSIDE = LearningRate(Halving(), inside_momentum=True)
REFUSED = {
    "number": (
        lambda: LearningRate(0.1, inside_momentum=True),
        r"`inside_momentum` is for a Learning.*learning_rate=0\.1$",
    ),
    "blend": (
        lambda: HybridOptimizer(sgd_scale=INSIDE, transition=Blend(3)),
        r"`inside_momentum` needs a transition at once.*"
        r"transition=Blend\(.*inside_momentum=True\)$",
    ),
    "partial": (
        lambda: HybridOptimizer(sgd_scale=INSIDE, transition=Hard(end=0.5)),
        r"Received: transition=Hard\(end=0\.5\)",
    ),
    "blend-later": (
        lambda: setattr(built(sgd_scale=INSIDE), "transition", Blend(3)),
        r"Received: transition=Blend\(",
    ),
    "blend-before-the-first-update": (
        lambda: blended_later().build([keras.Variable([1.0])]),
        r"Received: transition=Blend\(",
    ),
    "other-convention": (
        lambda: setattr(built(sgd_scale=INSIDE), "sgd_scale", Number(2.0)),
        r"`inside_momentum` says what the momentum holds.*"
        r"sgd_scale=Number\(rho=2\.0\), in place of LearningRate\(",
    ),
    "other-convention-inside": (
        lambda: setattr(built(sgd_scale=2.0), "sgd_scale", INSIDE),
        r"in place of Number\(rho=2\.0\)$",
    ),
    "other-convention-short": (
        lambda: setattr(built(sgd_scale=INSIDE), "sgd_learning_rate", 0.1),
        r"sgd_scale=LearningRate\(learning_rate=0\.1\), in place of",
    ),
}


def blended_later():
    optimizer = HybridOptimizer(sgd_scale=INSIDE)
    optimizer.transition = Blend(3)
    return optimizer


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    call, pattern = REFUSED[name]
    with pytest.raises(ValueError, match=pattern):
        call()


def test_a_wrong_type_is_refused():
    with pytest.raises(TypeError, match="inside_momentum=1$"):
        LearningRate(Halving(), inside_momentum=1)


def test_another_schedule_of_the_same_convention_is_allowed():
    optimizer = built(sgd_scale=INSIDE)
    optimizer.sgd_scale = LearningRate(dropping(), inside_momentum=True)
    assert optimizer.scale.inside_momentum
