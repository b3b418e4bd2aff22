"""skip_nonfinite: an update with a NaN in any gradient leaves no trace."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import ROOT

from keras_hybrid import HybridOptimizer
from keras_hybrid.execution import blocks
from keras_hybrid.transitions import Blend
from keras_hybrid.triggers import AtStep, ProjectionConverged

SHAPES = [(3, 2), (2,)]
BLEND = {"trigger": AtStep(3), "transition": Blend(3), "sgd_scale": "norm"}
# Updates with a NaN in each phase of BLEND.
POISONED = (1, 4, 8)
COUNTED = ("iteration", "skipped_steps")


def variables_of(shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    return [
        keras.Variable(rng.normal(size=s).astype("float32")) for s in shapes
    ]


def gradients_of(step, shapes=SHAPES, bad=None):
    rng = np.random.default_rng(100 + step)
    grads = [rng.normal(size=s).astype("float32") for s in shapes]
    if bad is not None:
        # In one entry of the last variable: the decision is for all.
        grads[-1].flat[-1] = bad
    return [tf.constant(g) for g in grads]


def state_of(optimizer, variables):
    return {
        v.path: v.numpy()
        for v in [*optimizer.variables, *variables]
        if v.name not in COUNTED
    }


def run(surround, shapes=SHAPES, bad=np.nan, **options):
    """Ten updates, three of them poisoned; checks each; returns the weights."""
    variables = variables_of(shapes)
    optimizer = HybridOptimizer(0.01, skip_nonfinite=True, **options)
    optimizer.build(variables)

    def update(grads):
        optimizer.apply(grads, variables)

    if surround != "eager":
        update = tf.function(update, jit_compile=surround == "xla")
    for step in range(10):
        poison = bad if step in POISONED else None
        before = state_of(optimizer, variables)
        update(gradients_of(step, shapes, poison))
        after = state_of(optimizer, variables)
        changed = {
            name
            for name in before
            if not np.array_equal(before[name], after[name])
        }
        if step in POISONED:
            assert not changed, (step, changed)
        else:
            assert {v.path for v in variables} <= changed
        assert optimizer.skipped_steps == sum(p <= step for p in POISONED)
        assert int(optimizer.iterations.numpy()) == step + 1
    return [v.numpy() for v in variables]


@pytest.mark.parametrize(
    ("surround", "options"),
    [
        ("eager", {}),
        ("eager", {"jit_compile": False}),
        ("function", {"global_clipnorm": 1.0, "weight_decay": 0.1}),
        ("xla", {}),
    ],
    ids=["eager", "plain", "function", "xla"],
)
def test_a_poisoned_update_changes_nothing(surround, options):
    run(surround, **BLEND, **options)


def test_infinity_is_skipped_before_it_is_clipped():
    # clipvalue would make a number of it.
    run("eager", bad=np.inf, clipvalue=0.5)


def test_large_variables_too():
    # Updated in blocks and in parts.
    run("eager", [(blocks.LEAST + 7,), (2,)], **BLEND)


def test_where_functions_run_eagerly():
    tf.config.run_functions_eagerly(True)
    try:
        run("eager", **BLEND)
    finally:
        tf.config.run_functions_eagerly(False)


def test_without_poison_the_option_changes_nothing():
    results = []
    for skip in (False, True):
        variables = variables_of()
        optimizer = HybridOptimizer(0.01, skip_nonfinite=skip, **BLEND)
        for step in range(8):
            optimizer.apply(gradients_of(step), variables)
        results.append([v.numpy() for v in variables])
        assert optimizer.skipped_steps == 0
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_steps_are_those_of_a_training_without_poison(jit_compile):
    def weights(poisoned):
        variables = variables_of()
        optimizer = HybridOptimizer(
            0.1, skip_nonfinite=True, jit_compile=jit_compile
        )
        for step in range(-poisoned, 4):
            bad = np.nan if step < 0 else None
            optimizer.apply(gradients_of(step, bad=bad), variables)
        assert optimizer.skipped_steps == poisoned
        return [v.numpy() for v in variables]

    for ours, expected in zip(weights(3), weights(0), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_blend_goes_on_behind_a_poisoned_update():
    optimizer = HybridOptimizer(
        sgd_scale=1.0,
        trigger=AtStep(0),
        transition=Blend(4),
        skip_nonfinite=True,
        jit_compile=False,
    )
    variables, fractions = variables_of(), []
    for step in range(4):
        bad = np.nan if step == 1 else None
        optimizer.apply(gradients_of(step, bad=bad), variables)
        fractions.append(optimizer.sgd_fraction)
    # Of the next update, the skipped one counted.
    assert fractions == [0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("poisoned", [0, 1, 3])
def test_a_trigger_counts_what_it_has_seen(poisoned):
    optimizer = HybridOptimizer(
        1e-3,
        trigger=ProjectionConverged(
            0.01, patience=1, min_steps=2, against="gamma"
        ),
        skip_nonfinite=True,
        jit_compile=False,
    )
    variable = keras.Variable(np.ones(50), dtype="float64")
    rng = np.random.default_rng(0)
    for _ in range(poisoned):
        optimizer.apply([tf.fill([50], tf.cast(np.nan, "float64"))], [variable])
    for _ in range(30):
        optimizer.apply([tf.constant(rng.normal(size=50))], [variable])
    assert optimizer.switch_step - poisoned == 23


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_norm_that_overflows_is_skipped(jit_compile):
    variable = keras.Variable([1.0, 1.0])
    optimizer = HybridOptimizer(
        0.1,
        skip_nonfinite=True,
        global_clipnorm=1.0,
        jit_compile=jit_compile,
    )
    optimizer.apply([tf.constant([1e20, 1.0])], [variable])
    np.testing.assert_array_equal(variable.numpy(), [1.0, 1.0])
    assert optimizer.skipped_steps == 1
    optimizer.apply([tf.constant([1e10, 1.0])], [variable])
    assert optimizer.skipped_steps == 1
    assert np.isfinite(variable.numpy()).all()


def test_without_the_option_the_poison_stays():
    variables = variables_of()
    optimizer = HybridOptimizer(0.01)
    optimizer.apply(gradients_of(0, bad=np.nan), variables)
    assert np.isnan(variables[-1].numpy()).any()
    assert optimizer.skipped_steps == 0


def test_the_accumulated_gradient_counts():
    variables = variables_of()
    optimizer = HybridOptimizer(
        0.01, skip_nonfinite=True, gradient_accumulation_steps=2
    )
    start = [v.numpy() for v in variables]
    for step in range(4):
        # The second micro-batch of the first update is fine.
        bad = np.nan if step == 0 else None
        optimizer.apply(gradients_of(step, bad=bad), variables)
        moved = not np.array_equal(variables[0].numpy(), start[0])
        assert moved == (step == 3)
    assert optimizer.skipped_steps == 1
    assert np.isfinite(variables[-1].numpy()).all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_fit(jit_compile):
    x = np.ones((32, 3), "float32")
    x[9] = np.nan
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(
        HybridOptimizer(skip_nonfinite=True), "mse", jit_compile=jit_compile
    )
    model.fit(x, np.ones((32, 1)), batch_size=8, shuffle=False, verbose=0)
    assert model.optimizer.skipped_steps == 1
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.slow
def test_the_count_is_saved(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(HybridOptimizer(skip_nonfinite=True), "mse")
    grads = [tf.fill(v.shape, np.nan) for v in model.trainable_variables]
    model.optimizer.apply(grads, model.trainable_variables)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert again.skip_nonfinite
    assert again.skipped_steps == 1


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_the_option_is_true_or_false(value):
    with pytest.raises(TypeError, match="`skip_nonfinite` .* Received: skip"):
        HybridOptimizer(skip_nonfinite=value)


def test_the_option_adds_no_variable():
    # Or a file saved with it would not load without it.
    counts = set()
    for skip in (False, True):
        optimizer = HybridOptimizer(skip_nonfinite=skip)
        assert optimizer.skipped_steps == 0
        optimizer.build(variables_of())
        counts.add(len(optimizer.variables))
    assert len(counts) == 1


SCRIPT = """
import json
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
from keras_hybrid import HybridOptimizer

with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(
        HybridOptimizer(0.1, skip_nonfinite=True, clipvalue=0.5), "mse"
    )
x, y = np.ones((8, 3), "float32"), np.zeros((8, 2), "float32")
bad = y.copy()
# On one replica alone; a gradient of minus infinity.
bad[0] = np.inf
results = []
for target in (y, bad, y):
    model.fit(x, target, batch_size=8, verbose=0)
    state = model.weights + model.optimizer.variables
    results.append([
        np.array(v).ravel().tolist() for v in state
        if v.name not in ("iteration", "skipped_steps")
    ])
print("RESULT " + json.dumps({
    "unchanged": [results[1] == results[0], results[2] == results[1]],
    "skipped": model.optimizer.skipped_steps,
    "finite": bool(np.isfinite(np.concatenate(
        [w.ravel() for w in model.get_weights()]
    )).all()),
}))
"""


@pytest.mark.slow
def test_under_a_strategy():
    # Logical devices must be configured before TensorFlow starts.
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    last = process.stdout.splitlines()[-1:]
    assert last and last[0].startswith("RESULT "), process.stderr[-3000:]
    assert json.loads(last[0].removeprefix("RESULT ")) == {
        "unchanged": [True, False],
        "skipped": 1,
        "finite": True,
    }
