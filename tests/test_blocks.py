"""The update in blocks: the plain update's numbers, and no copies."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_hybrid import HybridOptimizer, blocks, presets
from keras_hybrid.transitions import Blend, Hard
from keras_hybrid.triggers import AtStep, GradientSignalToNoise

# Three large variables and two small ones: no size is a multiple of a block,
# one is (`test_block_size`), and both parts get a large one.
SHAPES = [(65536 + 17,), (32,), (256, 300), (300,), (128, 1024)]

CONFIGURATIONS = {
    "adam": {},
    "estimate_none": {"sgd_scale": 0.5},
    "norm": {"sgd_scale": "norm"},
    "swats": {"sgd_scale": "swats"},
    "momentum": {"sgd_scale": "momentum"},
    "amsgrad": {"amsgrad": True},
    "decay": {"weight_decay": 0.1},
    "clipnorm": {"clipnorm": 0.5},
    "global_clipnorm": {"global_clipnorm": 0.5, "weight_decay": 0.1},
    "clipvalue": {"clipvalue": 0.01},
    "switched": {"trigger": AtStep(2), "nesterov": True},
    "from_zero": {"trigger": AtStep(2), "carry_momentum": False},
    "sgd": {"trigger": AtStep(0), "sgd_learning_rate": 0.1},
    "blend": {
        "trigger": AtStep(1),
        "transition": Blend(3, path="geometric"),
        "clipnorm": 0.5,
    },
    "half": {"trigger": AtStep(1), "transition": Hard(end=0.5)},
    "signal": {
        "trigger": GradientSignalToNoise(threshold=0.9),
        "sgd_scale": 0.5,
    },
    "layers": {"trigger": AtStep(2), "scope": "variable"},
}


def gradients(dtype="float32", steps=5):
    rng = np.random.default_rng(0)
    return [
        [rng.normal(scale=0.1, size=s).astype(dtype) for s in SHAPES]
        for _ in range(steps)
    ]


def run(optimizer, dtype="float32"):
    """Returns all values after five updates."""
    rng = np.random.default_rng(1)
    variables = [
        keras.Variable(rng.normal(size=s), dtype=dtype, name=f"w{i}")
        for i, s in enumerate(SHAPES)
    ]
    for grads in gradients(dtype):
        optimizer.apply([tf.constant(g) for g in grads], variables)
    both = [*variables, *optimizer.variables]
    return [v.numpy().astype("float64") for v in both]


def assert_close(got, expected, tolerance):
    for a, b in zip(got, expected, strict=True):
        scale = max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)


# Each compiles for seconds: the others run with the slow tests.
SOME = {"adam", "amsgrad", "blend", "layers", "switched"}


@pytest.mark.parametrize(
    "name",
    [
        name if name in SOME else pytest.param(name, marks=pytest.mark.slow)
        for name in CONFIGURATIONS
    ],
)
def test_blocks_are_the_plain_update(name):
    options = CONFIGURATIONS[name]
    plain = run(HybridOptimizer(0.01, jit_compile=False, **options))
    assert_close(run(HybridOptimizer(0.01, **options)), plain, 1e-6)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_blocks_in_every_precision(dtype):
    plain = run(HybridOptimizer(0.01, jit_compile=False), dtype)
    tolerance = {"float64": 1e-12, "bfloat16": 8e-3, "float16": 1e-3}[dtype]
    assert_close(run(HybridOptimizer(0.01), dtype), plain, tolerance)


@pytest.mark.parametrize(
    "make",
    [
        lambda jit: presets.AdaBound(jit_compile=jit),
        pytest.param(
            lambda jit: presets.RMSpropWarmup(3, jit_compile=jit),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["AdaBound", "RMSpropWarmup"],
)
def test_blocks_of_other_formulas(make):
    assert_close(run(make("auto")), run(make(False)), 1e-6)


def test_one_part_is_the_same(monkeypatch):
    several = run(HybridOptimizer(0.01))
    monkeypatch.setattr(blocks, "_cores", lambda: 1)
    for a, b in zip(run(HybridOptimizer(0.01)), several, strict=True):
        np.testing.assert_array_equal(a, b)


def test_not_on_an_accelerator(monkeypatch):
    large = keras.Variable(np.zeros(SHAPES[0]))
    assert blocks.are_worth_it(large)
    devices = tf.config.list_physical_devices()
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda: [*devices, gpu]
    )
    assert not blocks.are_worth_it(large)


def test_small_variables_are_updated_whole():
    assert not blocks.are_worth_it(keras.Variable(np.zeros(65535)))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([8], False), ([8, 8], True), ([5, 2, 1], True), ([9, 1], False)],
)
def test_balanced(sizes, expected, monkeypatch):
    monkeypatch.setattr(blocks, "_cores", lambda: 2)
    assert blocks.balanced([np.zeros(n) for n in sizes]) is expected


@pytest.mark.parametrize("options", [{}, {"sgd_scale": 0.5}], ids=str)
def test_one_variable_alone(options):
    def updated(jit_compile):
        optimizer = HybridOptimizer(
            0.01, trigger=AtStep(2), jit_compile=jit_compile, **options
        )
        w = keras.Variable(np.ones(SHAPES[0]))
        for grads in gradients():
            optimizer.apply([tf.constant(grads[0])], [w])
        return [w.numpy()]

    assert_close(updated("auto"), updated(False), 1e-6)


def test_block_size():
    assert blocks.block_size(1 << 20) == 4096
    assert blocks.block_size(784 * 512) % 16 == 0
    assert 784 * 512 % blocks.block_size(784 * 512) == 0
    # No divisor: the rest is an update of its own.
    assert blocks.block_size(65537) == blocks.BLOCK


@pytest.mark.parametrize("cores", [1, 2, 3, 64])
def test_parts_hold_every_variable_once(cores, monkeypatch):
    monkeypatch.setattr(blocks, "_cores", lambda: cores)
    variables = [np.zeros(n) for n in (10, 1, 7, 3, 3, 2)]
    parts = blocks.parts(variables)
    assert sorted(sum(parts, [])) == list(range(6))
    assert len(parts) == min(cores, 6)
    assert all(parts)
    if cores == 2:
        # 26 weights in all.
        loads = [sum(len(variables[i]) for i in part) for part in parts]
        assert loads == [13, 13]


@pytest.mark.parametrize(
    "name", ["adam", "amsgrad", "decay", "blend", "sgd", "RMSpropWarmup"]
)
def test_nothing_is_copied(name):
    """XLA copies a whole variable where it cannot update it in place.

    That is what makes a step a hundred times slower, and no number shows it.
    """
    optimizer = (
        presets.RMSpropWarmup(3)
        if name == "RMSpropWarmup"
        else HybridOptimizer(0.01, **CONFIGURATIONS[name])
    )
    run(optimizer)
    large = {65536 + 17, 256 * 300, 128 * 1024}
    seen = 0
    for key, function in optimizer._functions._functions.items():
        if len(key) != 3 or key[2] == "finish":
            continue
        indices, phase, number = key
        members = blocks.parts(optimizer._trainable_variables)[number]
        arguments = (
            [tf.zeros(SHAPES[i]) for i in members],
            [tf.constant(1.0) if optimizer.clipnorm else None for _ in members],
            tf.constant(0.01),
            tf.constant(3, optimizer._switch_steps.dtype),
        )
        text = function.experimental_get_compiler_ir(*arguments)(
            stage="optimized_hlo"
        )
        entry = text[text.index("\nENTRY") :]
        whole = [
            line.strip()
            for line in entry.splitlines()
            if any(f"[{size}]" in line.split("(")[0] for size in large)
        ]
        copies = [
            line
            for line in [*whole, *text.splitlines()]
            if " copy(" in line
            and any(f"[{size}]" in line.split(" copy(")[0] for size in large)
        ]
        # Outside the loop nothing is written: what is, is written whole.
        copies += [line for line in whole if " fusion(" in line]
        assert "while(" in text
        assert not copies, (phase, copies[:3])
        seen += 1
    assert seen >= 2


def test_with_functions_that_run_eagerly():
    expected = run(HybridOptimizer(0.01))
    tf.config.run_functions_eagerly(True)
    try:
        got = run(HybridOptimizer(0.01))
    finally:
        tf.config.run_functions_eagerly(False)
    assert_close(got, expected, 1e-6)
