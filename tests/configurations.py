"""Random configurations, and what holds for each of them on every backend.

test_properties.py tries a few in every run, benchmarks/fuzz.py thousands.
"""

import copy
import inspect
import json
import math
import pickle

import keras
import ml_dtypes
import numpy as np
import pytest
import reference
from formula import PATHS, simulate
from hypothesis import strategies as st
from inside import tracing_counts
from updates import OTHERS, PLAIN, running, updater

from keras_hybrid import HybridOptimizer
from keras_hybrid.scales import (
    LearningRate,
    Momentum,
    Norm,
    Number,
    Projection,
    Scale,
    Slots,
    Swats,
)
from keras_hybrid.transitions import (
    COOLDOWN_CURVES,
    CURVES,
    Blend,
    Cooldown,
    Hard,
    Transition,
)
from keras_hybrid.triggers import (
    AnyStep,
    AtStep,
    GradientSignalToNoise,
    ProjectionConverged,
    StepTrigger,
)
from keras_hybrid.units import SCALE_SCOPES

STEPS, COPIED_AT = 8, 4

# ---- Constructor arguments --------------------------------------------------

scopes = st.sampled_from(["model", "layer", "variable"])
unit = st.floats(0, 1)
below_one = st.sampled_from([0.9, 0.0, 0.5, 0.99])
rates = st.sampled_from([1e-2, 1e-4, 0.1, 0.0])
_schedules = keras.optimizers.schedules
schedules = st.one_of(
    st.builds(
        _schedules.CosineDecay,
        st.sampled_from([0.0, 0.01]),
        st.just(6),
        warmup_target=st.just(0.05),
        warmup_steps=st.just(2),
    ),
    st.builds(_schedules.ExponentialDecay, rates, st.just(3), st.just(0.5)),
    st.builds(
        _schedules.PiecewiseConstantDecay,
        st.just([2, 5]),
        st.just([0.1, 0.0, 1.0]),
    ),
)
step_triggers = st.one_of(
    st.builds(AtStep, st.integers(1, 6)),
    st.builds(
        ProjectionConverged,
        tolerance=st.sampled_from([1e-9, 0.1, 10.0]),
        relative=st.booleans(),
        patience=st.integers(1, 3),
        min_steps=st.integers(2, 4),
        max_steps=st.sampled_from([None, 4, 6]),
        against=st.sampled_from(["past", "gamma"]),
    ),
    st.builds(
        GradientSignalToNoise,
        threshold=st.sampled_from([0.01, 100.0]),
        patience=st.integers(1, 3),
        min_steps=st.integers(1, 3),
        max_steps=st.sampled_from([None, 3, 5]),
    ),
)
triggers = st.one_of(
    step_triggers,
    st.builds(AtStep, st.just(0)),
    st.none(),
    st.recursive(
        step_triggers,
        lambda parts: st.one_of(
            st.builds(lambda a, b: a | b, parts, parts),
            st.builds(lambda a, b: a & b, parts, parts),
        ),
        max_leaves=3,
    ),
)
transitions = st.one_of(
    st.builds(Hard, end=st.one_of(st.just(1.0), unit)),
    st.builds(
        Blend,
        st.integers(1, 6),
        curve=st.sampled_from(sorted(CURVES)),
        path=st.sampled_from(sorted(PATHS)),
        end=st.one_of(st.just(1.0), unit),
    ),
)
cooldowns = st.builds(
    lambda curve, length, final: Cooldown(curve, **length, final=final),
    curve=st.sampled_from(sorted(COOLDOWN_CURVES)),
    length=st.one_of(
        st.builds(lambda n: {"steps": n}, st.integers(1, 6)),
        st.builds(lambda x: {"share": x}, st.sampled_from([0.5, 0.01, 2.0])),
        st.just({}),
    ),
    final=unit,
)
scales = st.one_of(
    st.sampled_from(["slots", "projection", "momentum", "swats", "norm"]),
    st.builds(Slots, st.sampled_from([None, *SCALE_SCOPES])),
    st.sampled_from([Projection(), Momentum(), Swats(), Norm()]),
    st.sampled_from([0.5, 20.0]),
    st.builds(Number, st.sampled_from([0.5, 20.0])),
    st.builds(LearningRate, st.one_of(st.sampled_from([1e-3, 0.1]), schedules)),
    st.builds(LearningRate, schedules, inside_momentum=st.booleans()),
)
clippings = st.sampled_from(
    [{}, {"clipnorm": 0.5}, {"clipvalue": 0.5}, {"global_clipnorm": 0.5}]
)


@st.composite
def configurations(draw):
    """Constructor arguments, each of them anything it may be."""
    options = {
        "learning_rate": draw(st.one_of(rates, schedules)),
        "beta_1": draw(below_one),
        "beta_2": draw(st.sampled_from([0.999, 0.9, 0.0])),
        "epsilon": draw(st.sampled_from([1e-7, 1e-8, 1e-2])),
        "amsgrad": draw(st.booleans()),
        "momentum": draw(st.one_of(st.none(), below_one)),
        "nesterov": draw(st.booleans()),
        "carry_momentum": draw(st.sampled_from([True, False])),
        "trigger": draw(triggers),
        "transition": draw(transitions),
        "scope": draw(scopes),
        "scale_scope": draw(st.sampled_from(["unit", *SCALE_SCOPES])),
        "cooldown": draw(st.one_of(st.none(), cooldowns)),
        "scale_multiplier": draw(st.sampled_from([1.0, 1.0, 0.5])),
        "skip_nonfinite": draw(st.booleans()),
        "weight_decay": draw(st.sampled_from([None, 0.0, 0.1])),
        "loss_scale_factor": draw(st.sampled_from([None, 8.0])),
        "gradient_accumulation_steps": draw(
            st.sampled_from([None, None, 2, 3])
        ),
        "use_ema": draw(st.booleans()),
        "ema_momentum": draw(st.one_of(st.just(0.99), unit)),
        "ema_overwrite_frequency": draw(st.sampled_from([None, 1, 3])),
    }
    if draw(st.booleans()):
        options["sgd_scale"] = draw(scales)
    elif draw(st.booleans()):
        rate = st.one_of(st.sampled_from([1e-3, 0.1]), schedules)
        options["sgd_learning_rate"] = draw(rate)
    return options | draw(clippings)


# ---- Trainings --------------------------------------------------------------

layouts = st.lists(
    st.tuples(
        st.sampled_from(
            ["a/kernel", "b/kernel", "a/bias", "b/embeddings", "kernel"]
        ),
        st.sampled_from([(2,), (), (1,), (2, 2), (3, 1, 2), (2, 2, 1)]),
        st.sampled_from(
            ["float32", "float32", "float32", "float64", "bfloat16", "float16"]
        ),
    ),
    min_size=1,
    max_size=3,
)
# Most in the quickest way, to try more of them in the time that there is.
modes = st.sampled_from([PLAIN] * 12 + OTHERS)
trainings = {
    "options": configurations(),
    "layout": layouts,
    "seed": st.integers(0, 2**32 - 1),
    "gradients": st.sampled_from(["steady", "wild", "sparse", "not finite"]),
    "rounded": st.sampled_from([None, "bfloat16", "float16"]),
    "way": st.sampled_from([None, "deepcopy", "pickle", "store"]),
    "mode": modes,
}


def make_gradients(layout, seed, gradients, rounded=None):
    """Gradients of every step.

    "steady": positive. "wild": of sizes from a hundredth to a hundred, which
    change every step. "sparse": so, and some weights never have any. "not
    finite": steady but for one entry of two steps.
    """
    rng = np.random.default_rng(seed)
    kept = [rng.random(shape) < 0.5 for _, shape, _ in layout]
    every = []
    for step in range(STEPS):
        row = []
        for (_, shape, dtype), mask in zip(layout, kept, strict=True):
            g = rng.uniform(0.5, 1.5, shape)
            # Its squares, and 1 / epsilon, are not float16's.
            if gradients in ("wild", "sparse") and dtype != "float16":
                g = rng.normal(size=shape) * 10.0 ** rng.integers(-2, 3)
            if gradients == "sparse":
                g = g * mask
            row.append(g)
        if gradients == "not finite" and step in (2, 5):
            row[-1] = row[-1] + rng.choice([np.inf, -np.inf, np.nan])
        every.append(
            [
                _tensor(g, dtype, rounded)
                for g, (_, _, dtype) in zip(row, layout, strict=True)
            ]
        )
    return every


def _tensor(value, dtype, rounded=None):
    value = np.asarray(value)
    if rounded is not None:
        value = value.astype(getattr(ml_dtypes, rounded, rounded))
    value = value.astype(getattr(ml_dtypes, dtype, dtype))
    return keras.ops.convert_to_tensor(value, dtype)


def starts(layout):
    """Weights that every precision has exactly."""
    sizes = [math.prod(shape) for _, shape, _ in layout]
    return [
        (0.5 + np.arange(size) / 16).reshape(shape)
        for size, (_, shape, _) in zip(sizes, layout, strict=True)
    ]


def make_variables(layout):
    variables = []
    for start, (path, _, dtype) in zip(starts(layout), layout, strict=True):
        variables.append(keras.Variable(start, dtype=dtype, name="v"))
        variables[-1]._path = path
    return variables


def numbers(values):
    """Variables or tensors in float64."""
    # TensorFlow makes no array of one bfloat16.
    wider = [
        keras.ops.cast(v, "float32") if _is_half(v.dtype) else v for v in values
    ]
    return [keras.ops.convert_to_numpy(v).astype("float64") for v in wider]


def _is_half(dtype):
    return keras.backend.standardize_dtype(dtype) in ("bfloat16", "float16")


def values(optimizer, variables):
    return [v.numpy() for v in [*variables, *optimizer.variables]]


def duplicated(optimizer, way, variables):
    if way == "deepcopy":
        return copy.deepcopy(optimizer)
    if way == "pickle":
        return pickle.loads(pickle.dumps(optimizer))
    other = HybridOptimizer.from_config(optimizer.get_config())
    other.build(variables)
    store = {}
    optimizer.save_own_variables(store)
    other.load_own_variables(store)
    return other


def made(options, mode):
    """An optimizer, which knows how long the training is if it needs to."""
    jit_compile = "auto" if mode == "compiled" else False
    optimizer = HybridOptimizer(**options, jit_compile=jit_compile)
    cooldown = options.get("cooldown")
    if cooldown is not None and cooldown.ends_with_training:
        optimizer.training_steps = STEPS
    return optimizer


def steps_of(optimizer):
    """Each variable's first SGD update, infinite where it waits."""
    steps = list(optimizer.switch_steps.values())
    return [
        math.inf if steps[i] is None else steps[i]
        for i in optimizer.state.groups.of
    ]


# ---- What must hold ---------------------------------------------------------


def scale_in(options):
    """How fast, as an object."""
    if options.get("sgd_learning_rate") is not None:
        return LearningRate(options["sgd_learning_rate"])
    scale = options.get("sgd_scale", "slots")
    if isinstance(scale, float):
        return Number(scale)
    named = {"slots": Slots, "projection": Projection, "momentum": Momentum}
    named |= {"swats": Swats, "norm": Norm}
    return scale if isinstance(scale, Scale) else named[scale]()


def is_refused(options):
    """Whether arguments exclude each other."""
    scale, transition = scale_in(options), options.get("transition", Hard())
    trigger, cooldown = options.get("trigger"), options.get("cooldown")
    starts = trigger is not None and trigger.fires_at_start
    if starts and cooldown is not None and cooldown.share is not None:
        return True
    if scale.inside_momentum and repr(transition) != repr(Hard()):
        return True
    if not scale.estimated:
        return options.get("scale_multiplier", 1.0) != 1
    return starts


def check(
    options,
    layout,
    seed=0,
    gradients="steady",
    rounded=None,
    way=None,
    mode=PLAIN,
):
    """Trains, and checks all that holds for any training."""
    if is_refused(options):
        with pytest.raises(ValueError, match="Received: "):
            HybridOptimizer(**options)
        return
    if gradients == "not finite" and not options.get("skip_nonfinite"):
        gradients = "steady"
    wide = any(dtype == "float64" for _, _, dtype in layout)
    with running(mode, wide):
        rows = make_gradients(layout, seed, gradients, rounded)
        optimizer, weights = checked_run(options, layout, rows, way, mode)
        check_answers(optimizer)
        steps = steps_of(optimizer)
        trigger = options.get("trigger")
        sure = gradients == "steady" or not optimizer.scale.estimated
        fixed = isinstance(trigger, AtStep) and gradients != "not finite"
        if fixed and sure:
            updates = STEPS // (options.get("gradient_accumulation_steps") or 1)
            n = trigger.n if trigger.n <= updates else math.inf
            assert steps == [n] * len(layout)
        rows = [numbers(row) for row in rows]
    # Without memory an average a + (g - a) of gradients that shrink a
    # thousandfold keeps few digits of g, as in Keras' Adam.
    betas = (options.get(b) for b in ("beta_1", "beta_2", "momentum"))
    loses = 0.0 in betas and gradients in ("wild", "sparse")
    if loses or any(_is_half(dtype) for _, _, dtype in layout):
        return
    expected, tolerance = expectation(options, layout, rows, steps)
    assert_near(weights, expected, tolerance)
    if mode == PLAIN:
        return
    with running(PLAIN, wide):
        rows = make_gradients(layout, seed, gradients, rounded)
        optimizer, plain = checked_run(options, layout, rows, None, PLAIN)
        # A trigger that watches may be near its threshold.
        if fixed or steps_of(optimizer) == steps:
            assert_near(weights, plain, tolerance)


def checked_run(options, layout, rows, way, mode):
    """Trains, with a copy that goes on; returns optimizer and weights."""
    optimizer = made(options, mode)
    config = optimizer.get_config()
    text = json.dumps(config, sort_keys=True)
    again = HybridOptimizer.from_config(json.loads(text))
    assert json.dumps(again.get_config(), sort_keys=True) == text

    variables = make_variables(layout)
    update = updater(optimizer, variables, mode)
    for gradient in rows[:COPIED_AT]:
        update(gradient)
    if way is not None:
        others = make_variables(layout)
        for mine, theirs in zip(others, variables, strict=True):
            mine.assign(theirs)
        duplicate = duplicated(optimizer, way, others)
    for gradient in rows[COPIED_AT:]:
        update(gradient)
    end = values(optimizer, variables)
    assert all(np.isfinite(value.astype("float64")).all() for value in end)
    if way is not None:
        update = updater(duplicate, others, mode)
        for gradient in rows[COPIED_AT:]:
            update(gradient)
        for a, b in zip(end, values(duplicate, others), strict=True):
            np.testing.assert_array_equal(a, b)
    assert json.dumps(optimizer.get_config(), sort_keys=True) == text
    return optimizer, numbers(variables)


def check_answers(optimizer):
    """What can be asked of an optimizer is what it may be."""
    assert 0 <= optimizer.sgd_fraction <= 1
    assert 0 <= optimizer.cooldown_factor <= 1
    rate = optimizer.sgd_learning_rate_equivalent
    assert rate is None or (math.isfinite(rate) and rate >= 0)
    if optimizer.has_switched:
        assert 0 <= optimizer.switch_step <= STEPS
        assert optimizer.switch_step == max(optimizer.switch_steps.values())
    assert set(tracing_counts(optimizer).values()) <= {0, 1}


# ---- Refusals ----------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
anything = st.sampled_from(
    [
        *(NAN, INF, -INF, -1, 0, 1, 2, -0.5, 0.5, 1.5, 1e-320, 1e308, 10**400),
        *(None, True, False, "", "auto", "model", "unit", b"slots", 1j),
        *([], [1], (), {}, {"a": 1}, set(), object, len, float, "nan"),
        *(np.float32(0.5), np.int64(3), np.float64("nan"), np.array(2)),
        *(np.array([0.5]), np.array([1, 2]), np.array(None), AtStep(2)),
        *(AtStep, Hard(), Cooldown(), Slots(), Number(2.0), Blend),
    ]
)
BASE_ARGUMENTS = (
    *("name", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm"),
    *("use_ema", "ema_momentum", "ema_overwrite_frequency"),
    *("loss_scale_factor", "gradient_accumulation_steps"),
)


def _arguments(kind):
    return [n for n in inspect.signature(kind).parameters if n != "kwargs"]


# What has arguments, and those that it must be given.
PARTS = {
    HybridOptimizer: {},
    AtStep: {"n": 2},
    ProjectionConverged: {},
    GradientSignalToNoise: {},
    AnyStep: {"triggers": [AtStep(2)]},
    Hard: {},
    Blend: {"steps": 2},
    Cooldown: {},
    Slots: {},
    Number: {"rho": 2.0},
    LearningRate: {"learning_rate": 0.1},
}
ARGUMENTS = {kind.__name__: _arguments(kind) for kind in PARTS}
ARGUMENTS["HybridOptimizer"] += BASE_ARGUMENTS
refusals = {
    "arguments": st.sampled_from(sorted(ARGUMENTS)).flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            st.dictionaries(
                st.sampled_from(ARGUMENTS[kind]), anything, max_size=2
            ),
        )
    )
}


def check_refusal(arguments):
    """Whatever an argument is: an error at once that says so, or none."""
    name, changed = arguments
    (kind,) = (k for k in PARTS if k.__name__ == name)
    try:
        part = kind(**PARTS[kind] | changed)
        if isinstance(part, StepTrigger):
            part = HybridOptimizer(trigger=part)
        elif isinstance(part, Transition):
            part = HybridOptimizer(trigger=AtStep(1), transition=part)
        elif isinstance(part, Cooldown):
            part = HybridOptimizer(trigger=AtStep(1), cooldown=part)
        elif isinstance(part, Scale):
            part = HybridOptimizer(trigger=AtStep(1), sgd_scale=part)
    except (TypeError, ValueError) as error:
        assert str(error)
        return
    json.dumps(part.get_config())
    part.training_steps = 3
    with running(PLAIN):
        variables = make_variables([("a/kernel", (2,), "float32")])
        update = updater(part, variables, PLAIN)
        for _ in range(3):
            update([_tensor([1.0, 2.0], "float32")])


# ---- The numbers ------------------------------------------------------------


def assert_near(got, expected, tolerance):
    for a, b, largest in zip(got, expected, tolerance, strict=True):
        np.testing.assert_array_less(np.abs(a - b), largest)


def expectation(options, layout, rows, steps):
    """The weights at the end, and how far from them rounding may lead.

    That is the tolerance of the narrowest precision, and what the formula
    itself makes of gradients, betas and weights that differ in their last bit.
    """
    dtypes = {dtype for _, _, dtype in layout}
    # Keras' schedules, and its average of the weights, compute in float32.
    narrow = (
        callable(options.get("learning_rate"))
        or callable(getattr(scale_in(options), "learning_rate", None))
        or options.get("use_ema")
        or "float32" in dtypes
    )
    dtype = "float32" if narrow else "float64"
    expected = simulated(options, layout, rows, steps)
    rng = np.random.default_rng(0)
    last_bit = float(np.finfo(dtype).eps)
    moved = [0 * w for w in expected]
    for _ in range(2):
        rounded = [
            [g * (1 + last_bit * rng.uniform(-1, 1, g.shape)) for g in row]
            for row in rows
        ]
        betas = {
            name: options.get(name, default) * (1 - last_bit)
            for name, default in (("beta_1", 0.9), ("beta_2", 0.999))
        }
        other = simulated(options | betas, layout, rounded, steps)
        moved = [
            np.maximum(x, np.abs(a - b))
            for x, a, b in zip(moved, expected, other, strict=True)
        ]
    rtol = reference.tolerance(dtype)["rtol"]
    return expected, [
        rtol * (1 + np.abs(w)) + 8 * x.max()
        for w, x in zip(expected, moved, strict=True)
    ]


def simulated(options, layout, rows, steps):
    """The weights at the end, by the formula in float64."""
    options = {
        "learning_rate": 1e-3,
        "transition": Hard(),
        "scale_scope": "unit",
    } | options
    every = options.get("gradient_accumulation_steps") or 1
    scale, transition = scale_in(options), options["transition"]
    scope = scale.granularity(options["scale_scope"])
    wide = any(dtype == "float64" for _, _, dtype in layout)
    precision = float if wide else lambda x: float(np.float32(x))
    paths = [path for path, _, _ in layout]
    coarse = {
        # What has no layer is one.
        "layer": [
            path.rpartition("/")[0] or f"{path}:{i}"
            for i, path in enumerate(paths)
        ],
        "model": ["model"] * len(paths),
    }
    kept = ("amsgrad", "beta_1", "beta_2", "epsilon", "momentum", "nesterov")
    history, _ = simulate(
        starts(layout),
        _averaged(options, rows, every),
        switch_at=steps,
        learning_rate=_rate(options["learning_rate"], every),
        scale_scope=scope,
        scale_groups=coarse.get(scope),
        sgd_scale={
            Slots: "slots",
            Projection: "projection",
            Swats: "swats",
        }.get(type(scale), type(scale).__name__.lower())
        if scale.estimated
        else scale.rho,
        sgd_learning_rate=_sgd_rate(scale),
        inside=scale.inside_momentum,
        carry_momentum=options.get("carry_momentum", True),
        # The exponential curve ends at 1 - 1e-8, in float32 at 1.
        weight=lambda j: precision(_weight(transition, j)),
        mix=PATHS[getattr(transition, "path", "arithmetic")],
        factor=[_factor(options.get("cooldown"), step) for step in steps],
        summed=[_summed(path, shape) for path, shape, _ in layout],
        weight_decay=options.get("weight_decay") or 0.0,
        multiplier=options.get("scale_multiplier", 1.0),
        after=_ema(options, layout, every),
        **{name: options[name] for name in kept if name in options},
    )
    return history[-1]


@np.errstate(invalid="ignore")  # Of gradients that are not finite.
def _averaged(options, rows, every):
    """The gradients of each update: unscaled, accumulated, clipped."""
    factor = options.get("loss_scale_factor") or 1.0
    updates = []
    for at in range(0, len(rows) - every + 1, every):
        parts = zip(*rows[at : at + every], strict=True)
        mean = [sum(part) / factor / every for part in parts]
        norms = [np.sqrt((g**2).sum()) for g in mean]
        limit = options.get("global_clipnorm")
        if options.get("clipnorm"):
            limit = options["clipnorm"]
        else:
            norms = [np.sqrt(sum(x**2 for x in norms))] * len(mean)
        if limit:
            mean = [
                g * limit / max(norm, limit)
                for g, norm in zip(mean, norms, strict=True)
            ]
        if options.get("clipvalue"):
            limit = options["clipvalue"]
            mean = [np.clip(g, -limit, limit) + 0 * g for g in mean]
        updates.append(mean)
    return updates


def _rate(rate, every):
    """Of update t; schedules count gradients."""
    if callable(rate):
        return lambda t: float(rate(t * every + every - 1))
    return float(np.float32(rate))  # Keras keeps it so.


def _sgd_rate(scale):
    rate = getattr(scale, "learning_rate", None)
    return (lambda j: float(rate(float(j)))) if callable(rate) else rate


def _weight(transition, j):
    if isinstance(transition, Hard):
        return transition.end
    curve = reference.CURVES[transition.curve]
    return transition.end * curve((j + 1) / transition.steps)


def _factor(cooldown, switch_step):
    if cooldown is None or switch_step == math.inf:
        return lambda j: 1.0
    length = cooldown.steps
    if length is None:
        length = STEPS - switch_step
    if cooldown.share is not None:
        length = round(cooldown.share * switch_step)
    length = max(length, 1)
    return lambda j: reference.cooldown(
        cooldown.curve, j, length, cooldown.final
    )


def _summed(path, shape):
    """The axes that a unit spans: not those that tell units apart."""
    axes = range(len(shape))
    if path.endswith("bias"):
        return ()
    if path.endswith("embeddings") and len(shape) == 2:
        return (1,)
    apart = 2 if len(shape) > 2 and shape[-1] == 1 else 1
    return tuple(axes[:-apart])


def _ema(options, layout, every):
    """What Keras' average of the weights does to them."""
    frequency = options.get("ema_overwrite_frequency")
    if not options.get("use_ema") or frequency is None:
        return lambda t, w: w
    momentum = options.get("ema_momentum", 0.99)
    average = starts(layout)

    def after(t, w):
        # Of the gradients up to the next update; the first is the start.
        for n in range((t + 1) * every - 1, (t + 2) * every - 1):
            update = n // every  # As Keras' `iterations` counts.
            keeps = momentum if update else 0.0
            for i, x in enumerate(w):
                average[i] = keeps * average[i] + (1 - keeps) * x
            if (update + 1) % frequency == 0 and n < STEPS:
                w = [x.copy() for x in average]
        return w

    return after


# ---- As Python's source -----------------------------------------------------


def source(value):
    """Python's expression of what a training is made of."""
    if isinstance(value, dict):
        items = (f"{k!r}: {source(v)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, _schedules.LearningRateSchedule):
        kind = type(value).__name__
        arguments = ", ".join(
            f"{k}={v!r}" for k, v in value.get_config().items()
        )
        return f"keras.optimizers.schedules.{kind}({arguments})"
    if isinstance(value, LearningRate):
        rate = source(value.learning_rate)
        return f"LearningRate({rate}, inside_momentum={value.inside_momentum})"
    return repr(value)


def shortened(options):
    """The options that are not the defaults."""
    defaults = {"use_ema": False, "ema_momentum": 0.99} | {
        name: parameter.default
        for name, parameter in inspect.signature(
            HybridOptimizer
        ).parameters.items()
    }
    return {
        name: value
        for name, value in options.items()
        if value is not None
        and repr(value) not in (repr(defaults.get(name)), "Hard(end=1.0)")
    }
