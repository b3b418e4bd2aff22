"""Curves, paths and cool-downs, against the formulas and at their limits."""

import json
import math

import keras
import numpy as np
import pytest
import reference
from keras import ops

from keras_hybrid import HybridOptimizer
from keras_hybrid.transitions import (
    CURVES,
    PATHS,
    Blend,
    Cooldown,
    Hard,
    Transition,
)

EXACT = reference.tolerance("float64")
ADAPTIVE = np.array([1e-4, 3e-3, 0.1, 2.0, 50.0])
SGD = np.array([0.5, 1e-3, 0.1, 0.03, 2.0])


def tensor(value, dtype="float64"):
    return ops.convert_to_tensor(value, dtype)


def weights(transition, positions, dtype="float64"):
    return np.asarray(
        transition.weight(tensor(np.asarray(positions, dtype), dtype))
    )


# "hyperbolic" never ends, and "exponential" is 1e-8 short in its last update.
ENDING = ["linear", "cosine", "akiba"]


def test_every_curve_and_path_has_a_reference():
    assert set(CURVES) == set(reference.CURVES)
    assert set(PATHS) == set(reference.PATHS)


@pytest.mark.parametrize("curve", CURVES)
def test_curves_follow_their_formulas(curve):
    s = np.linspace(0, 1.5, 61)
    expected = [reference.CURVES[curve](x) for x in s]
    np.testing.assert_allclose(
        np.asarray(CURVES[curve](tensor(s))), expected, **EXACT
    )


@pytest.mark.parametrize("end", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("curve", CURVES)
def test_blend_weight_of_each_update(curve, end):
    positions = np.arange(10)
    expected = [end * reference.CURVES[curve]((j + 1) / 7) for j in positions]
    blend = Blend(7, curve=curve, end=end)
    np.testing.assert_allclose(weights(blend, positions), expected, **EXACT)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("end", [1.0, 0.3])
@pytest.mark.parametrize("curve", ENDING)
@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_blend_ends_exactly_at_its_end(steps, curve, end, dtype):
    """Not at 1 - 1e-16: the pure SGD path starts only at weight 1."""
    blend = Blend(steps, curve=curve, end=end)
    after = weights(blend, [steps - 1, steps, 10 * steps], dtype)
    np.testing.assert_array_equal(after, np.full(3, end, dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_exponential_blend_ends_one_update_later(steps, dtype):
    blend = Blend(steps, curve="exponential")
    last, *after = weights(blend, [steps - 1, steps, 10 * steps], dtype)
    assert last == np.dtype(dtype).type(1 - 1e-8)
    assert after == [1, 1]


def test_hyperbolic_blend_is_half_way_after_its_steps_and_never_over():
    blend = Blend(100, curve="hyperbolic")
    half, later = weights(blend, [99, 1_000_000])
    assert half == 0.5
    assert 0.9998 < later < 1


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="compiles with tf.function"
)
@pytest.mark.parametrize("steps", [3, 49, 1000])
@pytest.mark.parametrize("curve", [*ENDING, "exponential"])
def test_blend_ends_exactly_at_its_end_inside_xla(curve, steps):
    """XLA may divide by multiplying with a rounded reciprocal."""
    import tensorflow as tf

    compiled = tf.function(Blend(steps, curve=curve).weight, jit_compile=True)
    after = compiled(tensor([steps - 1, steps + 1], "float32"))
    np.testing.assert_array_equal(np.asarray(after), [1, 1])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("curve", CURVES)
def test_curves_rise_from_near_0_to_1_at_most(curve, dtype):
    rising = weights(Blend(1000, curve=curve), np.arange(1002), dtype)
    assert rising.dtype == dtype
    assert 0 <= rising[0] < 0.02
    assert (np.diff(rising) >= 0).all()
    assert rising.max() <= 1


def test_akiba_is_one_half_at_its_center():
    # 10 of 12.5 epochs; an epoch's slope there is 1 / period on both sides.
    blend = Blend(12_500, curve="akiba")
    before, center, after = weights(blend, [9_998, 9_999, 10_000])
    assert center == pytest.approx(0.5, abs=1e-12)
    assert (center - before) * 1000 == pytest.approx(0.2, rel=1e-3)
    assert (after - center) * 1000 == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize("curve", ENDING)
@pytest.mark.parametrize("end", [1.0, 0.5])
def test_blend_of_one_update_is_hard(curve, end):
    positions = [0, 1, 5]
    np.testing.assert_array_equal(
        weights(Blend(1, curve=curve, end=end), positions),
        weights(Hard(end), positions),
    )


def test_hard_has_its_end_everywhere():
    np.testing.assert_array_equal(weights(Hard(), [0, 1, 99]), [1, 1, 1])
    np.testing.assert_array_equal(weights(Hard(0.25), [0, 9]), [0.25, 0.25])


@pytest.mark.parametrize("weight", [0.0, 1e-6, 0.3, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("path", PATHS)
def test_paths_follow_their_formulas(path, weight):
    expected = [
        reference.PATHS[path](a, r, weight)
        for a, r in zip(ADAPTIVE, SGD, strict=True)
    ]
    mixed = Blend(5, path=path).mix(
        tensor(ADAPTIVE), tensor(SGD), tensor(weight)
    )
    np.testing.assert_allclose(np.asarray(mixed), expected, **EXACT)


@pytest.mark.parametrize("path", PATHS)
def test_paths_end_exactly_at_both_ends(path):
    mix = Blend(5, path=path).mix
    for weight, expected in ((0.0, ADAPTIVE), (1.0, SGD)):
        mixed = mix(tensor(ADAPTIVE), tensor(SGD), tensor(weight))
        np.testing.assert_array_equal(np.asarray(mixed), expected)


@pytest.mark.parametrize("sgd", [0.0, 1e-30, 1e30])
def test_clip_at_weight_0_bounds_nothing(sgd):
    huge = tensor([0.0, 1e-300, 1.0, 1e300])
    mixed = Blend(5, path="clip").mix(huge, tensor(sgd), tensor(0.0))
    np.testing.assert_array_equal(np.asarray(mixed), np.asarray(huge))


@pytest.mark.parametrize("path", ["arithmetic", "geometric"])
def test_means_lie_between_the_two_step_sizes(path):
    low, high = np.minimum(ADAPTIVE, SGD), np.maximum(ADAPTIVE, SGD)
    previous = ADAPTIVE
    for weight in (0.1, 0.4, 0.9):
        mixed = np.asarray(
            Blend(5, path=path).mix(
                tensor(ADAPTIVE), tensor(SGD), tensor(weight)
            )
        )
        assert (mixed >= low * (1 - 1e-12)).all()
        assert (mixed <= high * (1 + 1e-12)).all()
        # Nearer to SGD's than with a smaller weight.
        farther = np.abs(mixed - SGD) - np.abs(previous - SGD)
        assert (farther <= 1e-12 * high).all()
        previous = mixed


def test_hard_mixes_arithmetically():
    mixed = Hard(0.25).mix(tensor(ADAPTIVE), tensor(SGD), tensor(0.25))
    np.testing.assert_allclose(
        np.asarray(mixed), 0.75 * ADAPTIVE + 0.25 * SGD, **EXACT
    )


# ---- Cool-downs -------------------------------------------------------------

COOLDOWN_CURVES = ["cosine", "linear", "1-sqrt"]


@pytest.mark.parametrize("final", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("curve", COOLDOWN_CURVES)
def test_cooldown_factor_of_each_update(curve, final):
    cooldown = Cooldown(curve, steps=7, final=final)
    positions = np.arange(10)
    factors = cooldown.factor(tensor(positions), tensor(99.0))
    expected = [reference.cooldown(curve, j, 7, final) for j in positions]
    np.testing.assert_allclose(np.asarray(factors), expected, **EXACT)
    assert float(factors[0]) == 1


@pytest.mark.parametrize("curve", COOLDOWN_CURVES)
def test_cooldown_without_steps_lasts_for_the_remaining_updates(curve):
    # Two groups that switched at different updates.
    factors = Cooldown(curve).factor(tensor([3.0, 3.0]), tensor([6.0, 12.0]))
    expected = [reference.cooldown(curve, 3, n) for n in (6, 12)]
    np.testing.assert_allclose(np.asarray(factors), expected, **EXACT)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize("curve", COOLDOWN_CURVES)
def test_cooldown_ends_exactly_at_its_final_value(curve, final, dtype):
    factors = Cooldown(curve, steps=7, final=final).factor(
        tensor([7, 8, 700], dtype), tensor(7, dtype)
    )
    expected = np.full(3, final, dtype)
    np.testing.assert_array_equal(np.asarray(factors), expected)


@pytest.mark.parametrize("share", [0.2, 0.5, 2.0])
def test_cooldown_over_a_share_of_what_was_before(share):
    before, left = tensor([10.0, 31.0, 0.0]), tensor([99.0, 12.0, math.inf])
    cooldown = Cooldown("linear", share=share, final=0.1)
    # Round half to even, as IEEE 754 does; no more than is left, at least one.
    lengths = [
        max(1, min(round(share * n), rest))
        for n, rest in ((10, 99), (31, 12), (0, math.inf))
    ]
    np.testing.assert_array_equal(cooldown.length(left, before), lengths)
    for j in range(14):
        np.testing.assert_allclose(
            np.asarray(cooldown.factor(tensor([float(j)] * 3), left, before)),
            [reference.cooldown("linear", j, n, 0.1) for n in lengths],
            **EXACT,
        )


def test_cooldown_whose_end_is_not_known_does_not_fall():
    factors = Cooldown().factor(tensor([0.0, 5.0, 5e6]), tensor(math.inf))
    np.testing.assert_array_equal(np.asarray(factors), 1)


@pytest.mark.parametrize("remaining", [0.0, -3.0])
def test_cooldown_after_the_end_of_the_training_is_final(remaining):
    factors = Cooldown(final=0.25).factor(tensor([1.0, 5.0]), tensor(remaining))
    np.testing.assert_allclose(np.asarray(factors), 0.25, **EXACT)


def test_cosine_cooldown_is_keras_cosine_decay():
    positions = np.arange(12, dtype="float32")
    schedule = keras.optimizers.schedules.CosineDecay(1.0, 10, alpha=0.1)
    factors = Cooldown(steps=10, final=0.1).factor(
        tensor(positions, "float32"), tensor(1.0, "float32")
    )
    np.testing.assert_allclose(
        np.asarray(factors),
        [float(schedule(p)) for p in positions],
        **reference.tolerance("float32"),
    )


# ---- Config, text, errors ---------------------------------------------------

PARTS = [
    Hard(),
    Hard(end=0.5),
    Blend(1),
    Blend(100, curve="akiba", path="clip", end=0.5),
    Cooldown(),
    Cooldown("linear", steps=10, final=0.1),
    Cooldown("1-sqrt", share=0.5),
]


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_config_survives_json(part):
    config = keras.saving.serialize_keras_object(part)
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(config))
    )
    assert type(again) is type(part)
    assert again.get_config() == part.get_config()
    assert vars(again) == vars(part)


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_repr_is_the_call_that_makes_it(part):
    again = eval(repr(part))
    assert type(again) is type(part)
    assert vars(again) == vars(part)


def test_repr_names_every_argument():
    assert repr(Hard(0.5)) == "Hard(end=0.5)"
    assert (
        repr(Blend(10, path="geometric"))
        == "Blend(steps=10, curve='linear', path='geometric', end=1.0)"
    )
    assert (
        repr(Cooldown(steps=3))
        == "Cooldown(curve='cosine', steps=3, share=None, final=0.0)"
    )


def test_the_base_transition_leaves_the_weight_open():
    with pytest.raises(NotImplementedError):
        Transition().weight(tensor(0.0))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({}, TypeError, "needs `weight`"),
        ({"end": 2.0}, ValueError, "`transition.end` must be a finite number"),
        (
            {"__init__": lambda self, steps=1: None},
            TypeError,
            "A transition of your own with arguments needs `get_config`",
        ),
    ],
)
def test_a_transition_of_ones_own_that_lacks_something(fields, error, message):
    if fields:
        fields = {"weight": lambda self, position: position, **fields}
    mine = type("Mine", (Transition,), fields)()
    with pytest.raises(error, match=message):
        HybridOptimizer(transition=mine)


@pytest.mark.slow
def test_two_classes_of_one_name_have_their_own_updates():
    def moved_by(share):
        class Mine(Transition):
            end = 0.5

            def weight(self, position):
                return 0.5 * ops.ones_like(position)

            def mix(self, adaptive, sgd, weight):
                return share * sgd

            def get_config(self):
                return {}

        optimizer = HybridOptimizer(0.01, transition=Mine())
        variable = keras.Variable(np.ones(3, "float32"))
        for _ in range(2):
            optimizer.apply([ops.ones(3)], [variable])
            if not optimizer.has_switched:
                optimizer.switch()
        return 0.99 - np.asarray(variable)

    assert np.all(moved_by(1) > 0.005)
    np.testing.assert_allclose(moved_by(0), 0, atol=1e-6)
