"""How fast: each estimate of rho against its formula in float64."""

import keras
import numpy as np
import pytest
import reference
from keras import ops
from small import slow_but
from vectors import (
    BETA_1,
    BETA_2,
    EPSILON,
    GRADS,
    W0,
    assert_close,
    settings,
    tensor,
)

from keras_hybrid import HybridOptimizer, rules, scales
from keras_hybrid.groups import Groups, grouped
from keras_hybrid.scales import short_forms
from keras_hybrid.triggers import AtStep
from keras_hybrid.units import Units, split, spread, units_of

# ---- Averaged over the updates before the switch ----------------------------


def scale_trace(kind, grads):
    """The estimate of rho after each update, from the parts of each."""
    m, v = tensor(np.zeros(5)), tensor(np.zeros(5))
    scale = short_forms.NAMES[kind]()
    state = [tensor(x) for x in scale.init(1)]
    one, trace = Groups(["all"], [0]), []
    for index, g in enumerate(grads):
        g = tensor(g)
        m = rules.moving_average(m, g, BETA_1)
        v = rules.moving_average(v, g * g, BETA_2)
        p = m / rules.adaptive_root(v, settings(index), EPSILON)
        terms = {
            "step_square": p * p,
            "step_descent": p * g,
            "step_moment": p * m,
            "moment_square": m * m,
        }
        # One group, and the model.
        sums = {name: ops.stack([ops.sum(x)] * 2) for name, x in terms.items()}
        state = scale.update(state, sums, tensor([1, 1]) > 0, BETA_2)
        trace.append(float(state[0][0] / state[1][0]))
        if trace[-1] > 0:
            rho, exists = scale.estimate(state, one)
            assert exists[0] and float(rho[0]) == trace[-1]
    return np.array(trace)


def test_norm_scale_is_the_grafted_learning_rate():
    expected = reference.norm_scale(GRADS, BETA_1, BETA_2, EPSILON)
    assert_close(scale_trace("norm", GRADS), expected)


def test_projection_scale_averages_both_parts():
    expected = reference.projection_scale(GRADS, BETA_1, BETA_2, EPSILON)
    np.testing.assert_allclose(
        scale_trace("projection", GRADS), expected, rtol=1e-10
    )


def test_momentum_scale_projects_on_the_momentum():
    expected = reference.momentum_scale(GRADS, BETA_1, BETA_2, EPSILON)
    np.testing.assert_allclose(
        scale_trace("momentum", GRADS), expected, rtol=1e-10
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "factor", [1, pytest.param(100, marks=pytest.mark.slow)]
)
def test_gradient_noise_lowers_the_projection_but_not_the_momentum_scale(
    factor,
):
    """Of pure noise E[p.p] / E[-p.g] is P / (1 + beta_1), for any P.

    E[m.m] = (1 - beta_1) / (1 + beta_1) and E[m.g] = 1 - beta_1 for unit
    variance.
    """
    grads = factor * np.random.default_rng(0).normal(size=(400, 5))
    size = 1 / np.sqrt((grads**2).mean())
    momentum = scale_trace("momentum", grads)[-1]
    projection = scale_trace("projection", grads)[-1]
    assert momentum == pytest.approx(size, rel=0.1)
    assert projection == pytest.approx(size / (1 + BETA_1), rel=0.1)


def test_swats_scale_is_the_papers_lambda():
    run = reference.swats(
        GRADS, W0, 1.0, BETA_1, BETA_2, EPSILON, tolerance=1e-300
    )
    np.testing.assert_allclose(
        scale_trace("swats", GRADS), run.corrected, rtol=1e-10
    )


def test_swats_scale_stays_where_the_gradient_is_zero():
    grads = [GRADS[0], 0 * GRADS[1], *GRADS[2:6]]
    run = reference.swats(
        grads, W0, 1.0, BETA_1, BETA_2, EPSILON, tolerance=1e-300
    )
    assert np.isnan(run.gamma[1])
    # What is averaged stays; its weight does not: Lambda = lam / (1 - b2^k).
    trace = scale_trace("swats", grads)
    assert_close(trace[1], trace[0] * (1 - BETA_2) / (1 - BETA_2**2))
    np.testing.assert_allclose(trace[2:], run.corrected[2:], rtol=1e-10)


# ---- From the slots at the switch -------------------------------------------

SHAPES = [(3, 4), (4,), (5, 2)]
NAMES = ["dense/kernel", "dense/bias", "embedding/embeddings"]


def variables(dtype="float64"):
    rng = np.random.default_rng(3)
    made = []
    for shape, name in zip(SHAPES, NAMES, strict=True):
        variable = keras.Variable(rng.normal(size=shape), dtype=dtype)
        variable._path = name
        made.append(variable)
    return made


def state_of(optimizer, name):
    """The values of the optimizer's variables whose names end so."""
    found = [v.numpy() for v in optimizer.variables if v.name.endswith(name)]
    return found[0] if len(found) == 1 else found


def gradients(steps=7):
    rng = np.random.default_rng(4)
    return [[rng.normal(size=s) for s in SHAPES] for _ in range(steps)]


def switched(**options):
    """An optimizer that made seven updates of Adam, then switched."""
    optimizer = HybridOptimizer(0.01, **options)
    own = variables()
    for row in gradients():
        optimizer.apply([tensor(g) for g in row], own)
    optimizer.switch()
    return optimizer


KEPT = {
    "unit": [(1,), (0,), (0,)],
    "variable": [(), (), ()],
    "weight": [(), (), ()],
}


@pytest.mark.parametrize("scope", KEPT)
def test_slots_are_the_reference(scope):
    expected = [
        reference.slots_scale([row[i] for row in gradients()], kept)
        for i, kept in enumerate(KEPT[scope])
    ]
    scale = scales.Slots(scope)
    for optimizer in (
        switched(scale_scope=scope),
        switched(sgd_scale=scale, scale_scope="model"),
        switched(scale_scope=scope, jit_compile=False),
    ):
        np.testing.assert_allclose(
            state_of(optimizer, "sgd_scale"),
            np.concatenate(expected),
            rtol=1e-11,
        )


@pytest.mark.parametrize(
    ("scope", "of"), [("layer", [0, 0, 1]), ("model", [0, 0, 0])]
)
def test_slots_of_groups_are_the_reference(scope, of):
    rho = state_of(switched(scale_scope=scope), "sgd_scale")
    for i in range(3):
        # A group's variables, one behind the other.
        together = [
            np.concatenate([row[k].ravel() for k in range(3) if of[k] == of[i]])
            for row in gradients()
        ]
        expected = reference.slots_scale(together, ())
        np.testing.assert_allclose(rho[i], expected[0], rtol=1e-11)


def test_slots_at_a_trigger_are_those_of_a_call():
    # AtStep(7) fires in the update that `switch()` follows.
    optimizer = HybridOptimizer(0.01, trigger=AtStep(7))
    own = variables()
    for row in gradients():
        optimizer.apply([tensor(g) for g in row], own)
    assert optimizer.switch_step == 7
    np.testing.assert_allclose(
        state_of(optimizer, "sgd_scale"),
        state_of(switched(), "sgd_scale"),
        rtol=1e-12,
    )


def test_slots_need_nothing_before_the_switch():
    assert scales.Slots().needs == frozenset()
    assert scales.Slots().init(3) == []
    optimizer = HybridOptimizer()
    optimizer.build(variables())
    assert not any("scale_state" in v.path for v in optimizer.variables)


def test_slots_lie_between_the_smallest_and_the_largest_step_size():
    # sum(P^2 m^2) / sum(P m^2) is a mean of P.
    weights = switched(scale_scope="weight")
    m, v = (state_of(weights, n)[0] for n in ("first_moment", "second_moment"))
    sizes = np.sqrt(1 - 0.999**7) / (1 - 0.9**7) / (np.sqrt(v) + 1e-7)
    assert m.shape == sizes.shape == (3, 4)
    rho = state_of(switched(), "sgd_scale")[:4]
    assert (sizes.min(0) < rho).all() and (rho < sizes.max(0)).all()


def test_a_ratio_of_denormal_sums_is_none():
    one = Groups(["a", "b"], [0, 1])
    units = [Units((2,), ()), Units((2,), ())]
    least = np.finfo("float64").tiny
    rho, exists = scales.Slots().estimate(
        [tensor([least / 4]), tensor([6.0])],
        [tensor([least / 8]), tensor([2.0])],
        units,
        one,
    )
    # The first takes the model's.
    np.testing.assert_allclose(rho, [3.0, 3.0])
    assert list(np.asarray(exists)) == [True, True]


# ---- Units ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "counts"),
    [
        (keras.layers.Dense(6), (None, 5), [6, 6]),
        (keras.layers.Conv2D(6, 3), (None, 8, 8, 5), [6, 6]),
        (keras.layers.DepthwiseConv2D(3), (None, 8, 8, 5), [5, 5]),
        (
            keras.layers.DepthwiseConv2D(
                3, depth_multiplier=2, name="depthwise"
            ),
            (None, 8, 8, 5),
            [10, 10],
        ),
        (
            keras.layers.SeparableConv2D(6, 3, depth_multiplier=2),
            (None, 8, 8, 5),
            [10, 6, 6],
        ),
        (keras.layers.Conv2DTranspose(2, 3), (None, 8, 8, 5), [2, 2]),
        (keras.layers.Conv1DTranspose(2, 3), (None, 8, 5), [2, 2]),
        (keras.layers.Conv2D(4, 3, name="value"), (None, 8, 8, 5), [4, 4]),
        (keras.layers.Embedding(7, 3), (None, 2), [7]),
        (
            keras.layers.ReversibleEmbedding(7, 3, tie_weights=False),
            (None, 2),
            [7, 7],
        ),
        (keras.layers.BatchNormalization(), (None, 5), [5, 5]),
        (keras.layers.LSTM(3), (None, 4, 5), [12, 12, 12]),
        # Kernels and biases of query, key and value; of the output.
        (
            keras.layers.MultiHeadAttention(2, 3),
            ((None, 4, 5), (None, 4, 5)),
            [6, 6, 6, 6, 6, 6, 5, 5],
        ),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_units_of_layers(layer, shape, counts):
    layer.build(*shape) if isinstance(shape[0], tuple) else layer.build(shape)
    found = [units_of(v, "unit") for v in layer.trainable_variables]
    assert [u.count for u in found] == counts
    for variable, units in zip(layer.trainable_variables, found, strict=True):
        numbers = ops.reshape(ops.arange(units.count), units.broadcast)
        whole = np.broadcast_to(numbers, variable.shape)
        # One number for as many weights as a unit has.
        assert (np.bincount(whole.ravel()) == units.weights).all()
        sums = units.sum(ops.ones(variable.shape))
        np.testing.assert_array_equal(sums, [units.weights] * units.count)


def test_split_and_spread_are_in_the_same_order():
    units = [Units((3, 2), (1,)), Units((4,), ()), Units((), ())]
    values = spread(ops.convert_to_tensor([5.0, 6.0, 7.0]), units)
    np.testing.assert_array_equal(values, [5, 5, 6, 7])
    parts = [np.asarray(x).tolist() for x in split(values, units)]
    assert parts == [[5, 5], [6], [7]]


def test_a_units_memory_is_small():
    # Of a ResNet-like net under 2 % of the weights.
    net = keras.Sequential(
        [
            keras.Input((8, 8, 32)),
            keras.layers.Conv2D(64, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(64, 3, use_bias=False),
            keras.layers.BatchNormalization(),
        ]
    )
    counts = [units_of(v, "unit").count for v in net.trainable_variables]
    assert sum(counts) < 0.02 * net.count_params()


# ---- Objects, strings and errors --------------------------------------------


@pytest.mark.parametrize("name", slow_but({"slots"}, short_forms.NAMES))
def test_a_string_is_the_short_form(name):
    scale = short_forms.NAMES[name]()
    one, other = (
        switched(sgd_scale=s, scale_scope="variable") for s in (name, scale)
    )
    np.testing.assert_array_equal(
        state_of(one, "sgd_scale"), state_of(other, "sgd_scale")
    )


@pytest.mark.parametrize(
    ("scale", "short"),
    [
        (scales.Number(3.0), {"sgd_scale": 3.0}),
        (scales.LearningRate(0.1), {"sgd_learning_rate": 0.1}),
        (
            scales.LearningRate(
                keras.optimizers.schedules.CosineDecay(0.1, 20)
            ),
            {
                "sgd_learning_rate": keras.optimizers.schedules.CosineDecay(
                    0.1, 20
                )
            },
        ),
    ],
    ids=["number", "rate", "schedule"],
)
def test_what_is_given_is_the_short_form(scale, short):
    def weights(**options):
        optimizer = HybridOptimizer(0.01, trigger=AtStep(3), **options)
        own = variables()
        for row in gradients():
            optimizer.apply([tensor(g) for g in row], own)
        return [v.numpy() for v in own]

    for a, b in zip(weights(sgd_scale=scale), weights(**short), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "scale",
    [
        scales.Slots(),
        scales.Slots("variable"),
        scales.Projection(),
        scales.Momentum(),
        scales.Swats(),
        scales.Norm(),
        scales.Number(2.0),
        scales.LearningRate(0.5),
        scales.LearningRate(keras.optimizers.schedules.CosineDecay(0.1, 9)),
    ],
    # Not their texts: a schedule's has its address.
    ids=[
        *("slots", "slots-variable", "projection", "momentum", "swats"),
        *("norm", "number", "rate", "schedule"),
    ],
)
def test_scales_come_back_from_their_config(scale):
    optimizer = HybridOptimizer(sgd_scale=scale)
    other = HybridOptimizer.from_config(optimizer.get_config())
    assert type(other.sgd_scale) is type(scale)
    assert other.sgd_scale.get_config() == scale.get_config()
    text = repr(scales.Slots("variable"))
    assert text == "Slots(scope='variable')"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: scales.Slots("units"),
            ValueError,
            "`scope` must be one of 'weight', 'unit', 'variable', 'layer', "
            "'model'. Received: scope='units'",
        ),
        (
            lambda: scales.Number(0),
            ValueError,
            "`rho` must be a finite number > 0. Received: rho=0",
        ),
        (
            lambda: scales.Number("1"),
            TypeError,
            "`rho` must be a finite number > 0. Received: rho='1'",
        ),
        (
            lambda: scales.LearningRate(-1.0),
            ValueError,
            "`learning_rate` must be a finite number > 0. Received: "
            "learning_rate=-1.0",
        ),
        (
            lambda: scales.LearningRate(None),
            TypeError,
            "`learning_rate` must be a finite number > 0. Received: "
            "learning_rate=None",
        ),
    ],
)
def test_errors_say_what_is_allowed(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message


def test_a_scale_that_fits_the_state_can_be_assigned():
    optimizer = HybridOptimizer(0.01)
    optimizer.build(variables())
    optimizer.sgd_scale = scales.Slots("unit")
    optimizer.sgd_scale = 2.0
    for other in ("projection", scales.Slots("variable")):
        with pytest.raises(ValueError, match="`sgd_scale` decides which"):
            optimizer.sgd_scale = other


def test_scale_groups_of_nothing_finer_than_a_variable():
    for scale in (scales.Projection(), scales.Norm(), scales.Swats()):
        assert scale.granularity("unit") == "variable"
        assert scale.granularity("layer") == "layer"
    assert scales.Slots("layer").granularity("unit") == "layer"
    assert grouped(variables(), "layer").of == [0, 0, 1]
