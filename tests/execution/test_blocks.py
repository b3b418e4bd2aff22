"""Where an update runs: in blocks, by kernels, in a cluster, the same numbers.

And blocks copy nothing.
"""

import collections
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import slow_but

from keras_hybrid import HybridOptimizer, presets, rules, scales
from keras_hybrid.execution import blocks, clusters, functions, kernels
from keras_hybrid.execution.layouts import Layout
from keras_hybrid.formula import Formula
from keras_hybrid.transitions import Blend, Hard
from keras_hybrid.triggers import AtStep, GradientSignalToNoise
from keras_hybrid.units import Units

# Three large variables and two small ones: no size is a multiple of a block,
# one is.
SHAPES = [(65536 + 17,), (32,), (256, 300), (300,), (128, 1024)]
LARGE = {65536 + 17, 256 * 300, 128 * 1024}

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
    "variable": {"trigger": AtStep(2), "scale_scope": "variable"},
    "weight": {"trigger": AtStep(2), "scale_scope": "weight"},
    "from_zero": {"trigger": AtStep(2), "carry_momentum": False},
    "sgd": {"trigger": AtStep(0), "sgd_learning_rate": 0.1},
    "blend": {
        "trigger": AtStep(1),
        "transition": Blend(3, path="geometric"),
        "clipnorm": 0.5,
    },
    "arithmetic": {"trigger": AtStep(1), "transition": Blend(3)},
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


@pytest.fixture
def way(monkeypatch):
    """Makes every variable's update run in one of the ways, if it can."""

    def choose(name):
        can = name == "kernel"
        if not can:
            monkeypatch.setattr(kernels, "can_update", lambda *_: False)
        else:
            monkeypatch.undo()
        # Above all sizes here, or at the least for which a loop is worth it.
        least = blocks.LEAST if name == "block" else 1 << 40
        worth_it = blocks.are_large
        monkeypatch.setattr(
            blocks, "are_worth_it", lambda layouts, _: worth_it(layouts, least)
        )

    return choose


@pytest.mark.slow
# Each compiles for seconds.
@pytest.mark.parametrize("name", slow_but({"switched"}, CONFIGURATIONS))
def test_every_way_gives_the_same_numbers(name, way):
    options = CONFIGURATIONS[name]
    way("cluster")
    plain = run(HybridOptimizer(0.01, jit_compile=False, **options))
    # The kernels round beta_2 to float32 before they take it from 1: that is
    # 5e-5 of 1 - beta_2, and half of it in the root, which rho follows.
    for kind, tolerance in (
        ("cluster", 1e-6),
        ("block", 1e-6),
        ("kernel", 2.5e-5),
    ):
        way(kind)
        assert_close(run(HybridOptimizer(0.01, **options)), plain, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_every_way_in_every_precision(dtype, way):
    options = {"trigger": AtStep(3)}
    plain = run(HybridOptimizer(0.01, jit_compile=False, **options), dtype)
    tolerance = {"float64": 1e-12, "bfloat16": 8e-3, "float16": 1e-3}[dtype]
    for kind in ("cluster", "block"):
        way(kind)
        assert_close(
            run(HybridOptimizer(0.01, **options), dtype), plain, tolerance
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda jit: presets.AdaBound(jit_compile=jit),
        lambda jit: presets.RMSpropWarmup(3, jit_compile=jit),
    ],
    ids=["AdaBound", "RMSpropWarmup"],
)
def test_other_formulas_in_blocks(make, way):
    plain = run(make(False))
    way("block")
    assert_close(run(make("auto")), plain, 1e-6)


def layout(*shape, dtype="float32", **changed):
    fixed = {
        "index": 0,
        "group": 0,
        "units": Units(shape, ()),
        "dtype": dtype,
        "decay": None,
        "clip_value": None,
        "carries": True,
        "freezes": False,
    }
    return Layout(**{**fixed, **changed})


def test_not_on_an_accelerator(monkeypatch):
    large = [layout(65536), layout(65536)]
    assert blocks.are_worth_it(large, 65536) == [True, True]
    assert blocks.are_worth_it(large, 65537) == [False, False]
    devices = tf.config.list_physical_devices()
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda: [*devices, gpu]
    )
    assert blocks.are_worth_it(large, 65536) == [False, False]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([8], [False]),
        ([8, 8], [True, True]),
        ([5, 2, 1], [True, True, False]),
        ([9, 1], [False, False]),
    ],
)
def test_one_variable_that_holds_most_is_not_a_loop(
    sizes, expected, monkeypatch
):
    monkeypatch.setattr(blocks, "_cores", lambda: 2)
    assert blocks.are_worth_it([layout(n) for n in sizes], 2) == expected


@pytest.mark.parametrize(
    ("units", "matrix"),
    [
        (Units((3, 3, 64, 128), (3,)), (576, 128)),
        (Units((3, 3, 64, 2), (2, 3)), (9, 128)),
        (Units((5000, 32), (0,)), (5000, 32)),
        (Units((5000, 32), ()), (5000, 32)),
        (Units((70000,), ()), (70000, 1)),
        (Units((70000,), (0,)), (70000, 1)),
    ],
)
def test_a_block_is_whole_rows(units, matrix):
    assert blocks.matrix(units) == matrix
    rows, columns = matrix
    count = blocks.rows_a_block(rows, columns)
    assert 1 <= count <= rows
    assert count * columns <= max(2 * blocks.BLOCK, columns)
    # A divisor where one is near: the last block then has no old rows.
    assert rows % count == 0


def test_rows_without_a_near_divisor():
    assert blocks.rows_a_block(65537, 1) == blocks.BLOCK


@pytest.mark.parametrize(
    ("formula", "phase", "changed", "can"),
    [
        ({}, "adaptive", {}, True),
        ({}, "adaptive", {"dtype": "float64"}, True),
        ({}, "adaptive", {"dtype": "bfloat16"}, False),
        ({"root": rules.corrected_root}, "adaptive", {}, False),
        ({}, "mixed", {}, True),
        ({"nesterov": True}, "mixed", {}, False),
        ({}, "mixed", {"carries": False}, False),
        ({"transition": Blend(4, path="clip")}, "mixed", {}, False),
        ({"nesterov": True}, "sgd", {"carries": False}, True),
        ({}, "sgd", {"freezes": True}, False),
    ],
)
def test_what_kernels_can_update(formula, phase, changed, can):
    arguments = {
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "nesterov": False,
        "transition": Hard(),
    }
    made = Formula(**{**arguments, **formula})
    assert kernels.can_update(made, phase, layout(3, **changed)) is can


@pytest.mark.slow
def test_a_function_serves_every_model_of_its_shapes(way):
    way("block")
    run(HybridOptimizer(0.01))
    before = len(functions.shared_functions())
    counts = [
        f.experimental_get_tracing_count()
        for f in functions.shared_functions().values()
    ]
    # Another model, another learning rate: nothing is traced again.
    run(HybridOptimizer(0.02))
    assert len(functions.shared_functions()) == before
    assert counts == [
        f.experimental_get_tracing_count()
        for f in functions.shared_functions().values()
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "scale",
    ["slots", pytest.param(scales.Projection(), marks=pytest.mark.slow)],
    ids=["slots", "projection"],
)
def test_functions_hold_on_to_no_model(scale, way):
    way("block")
    optimizer = HybridOptimizer(0.01, sgd_scale=scale)
    run(optimizer)
    alive = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert alive() is None


def test_the_functions_are_bounded(monkeypatch):
    monkeypatch.setattr(functions, "_SHARED", collections.OrderedDict())
    monkeypatch.setattr(functions, "_MOST_SHARED", 2)
    for key in ("a", "b", "a", "c"):
        functions.shared(key, lambda: None)
    assert list(functions.shared_functions()) == ["a", "c"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    slow_but(
        {"blend"}, ("adam", "amsgrad", "decay", "blend", "sgd", "switched")
    ),
)
def test_nothing_is_copied(name, way, monkeypatch):
    """XLA copies a whole variable where it cannot update it in place.

    That is what makes a step a hundred times slower, and no number shows it.
    """
    way("block")
    calls = {}
    shared = functions.shared

    def watched(key, function):
        made = shared(key, function)

        def call(*arguments):
            calls.setdefault(key, (made, len(arguments[0]), arguments))
            return made(*arguments)

        return call

    monkeypatch.setattr(functions, "shared", watched)
    run(HybridOptimizer(0.01, **CONFIGURATIONS[name]))
    looked = 0
    for key, (function, count, arguments) in calls.items():
        if key[0] != "blocks":
            continue
        shape = key[3].shape
        values = [tf.Variable(tf.zeros(shape)) for _ in range(count)]
        settings = arguments[2]._replace(
            **{
                field: tf.zeros(x.shape, x.dtype)
                for field, x in arguments[2]._asdict().items()
                if isinstance(x, tf.Tensor)
            }
        )
        text = function.experimental_get_compiler_ir(
            [v.handle for v in values],
            tf.zeros(shape),
            settings,
            tf.constant(0),
        )(stage="optimized_hlo")
        size = int(np.prod(shape))
        assert size in LARGE
        rows, columns = blocks.matrix(key[3])
        whole = [f"[{size}]", f"[{rows},{columns}]", f"[{rows}]"]
        entry = text[text.index("\nENTRY") :]
        copies = [
            line
            for line in text.splitlines()
            if " copy(" in line
            and any(mark in line.split(" copy(")[0] for mark in whole)
        ]
        # Outside the loop nothing is written: what is, is written whole.
        copies += [
            line
            for line in entry.splitlines()
            if " fusion(" in line
            and any(mark in line.split("(")[0] for mark in whole)
        ]
        assert "while(" in text
        assert not copies, (key[2], copies[:3])
        looked += 1
    assert looked >= 3


def test_with_functions_that_run_eagerly():
    expected = run(HybridOptimizer(0.01))
    tf.config.run_functions_eagerly(True)
    try:
        got = run(HybridOptimizer(0.01))
    finally:
        tf.config.run_functions_eagerly(False)
    assert_close(got, expected, 1e-6)


@pytest.mark.slow
def test_on_a_gpu_one_function_updates_after_the_switch(monkeypatch):
    def functions_of(phase):
        return {
            key
            for key in functions.shared_functions()
            if key[0] == "cluster" and key[2] == phase
        }

    def trained():
        optimizer = HybridOptimizer(0.01, trigger=AtStep(2), beta_2=0.99)
        return run(optimizer)

    on_cpu = trained()
    monkeypatch.setattr(blocks, "only_cpus", lambda: False)
    # The other tests of the process have left theirs.
    monkeypatch.setattr(functions, "_SHARED", collections.OrderedDict())
    assert_close(trained(), on_cpu, 1e-6)
    assert functions_of("sgd")
    assert not functions_of("adaptive")


def test_uncompiled_the_large_variables_wait_for_each_other(monkeypatch):
    """Or all of them would hold what they compute at the same time."""
    graphs = []
    update = clusters.update

    def watched(*arguments):
        update(*arguments)
        graphs.append(tf.compat.v1.get_default_graph())

    monkeypatch.setattr(clusters, "update", watched)
    blend = {"trigger": AtStep(1), "transition": Blend(3, path="geometric")}
    run(HybridOptimizer(0.01, jit_compile=False, **blend))
    assert graphs
    for graph in graphs:
        waits = [
            any(x.type == "AssignVariableOp" for x in operation.control_inputs)
            for operation in graph.get_operations()
            if operation.type == "ReadVariableOp"
        ]
        # The weight, m and v of each; the first is large. Then the estimate's.
        count = 3 * len(SHAPES)
        assert waits[:count] == [False] * 3 + [True] * (count - 3)
