"""What the presets refuse, and what they say then."""

import functools
import inspect

import keras
import pytest

from keras_hybrid import HybridOptimizer, presets


def refused(name, error, received, **arguments):
    """A row of the table, named after what is wrong."""
    label = f"{name}-" + ",".join(f"{k}={v}" for k, v in arguments.items())
    return pytest.param(name, arguments, error, received, id=label[:60])


STEP_30 = {"switch_step": 30}
SCHEDULE = keras.optimizers.schedules.InverseTimeDecay(0.1, 10, 0.5)


class Nameless(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule without an initial learning rate."""

    def __call__(self, step):
        return 0.1

    def __repr__(self):
        # Without an address: names of tests must be alike in each process.
        return "Nameless()"


REFUSED = [
    refused("SWATS", ValueError, "tolerance=0", tolerance=0),
    refused("SWATS", TypeError, "tolerance='1e-9'", tolerance="1e-9"),
    refused("SWATS", TypeError, "relative=1", relative=1),
    refused("SWATS", TypeError, "carry_momentum=None", carry_momentum=None),
    refused("SWATS", ValueError, "scope='tensor'", scope="tensor"),
    refused("SWATS", ValueError, "learning_rate=-1", learning_rate=-1),
    refused("GNMT", TypeError, "switch_step=0.5", switch_step=0.5),
    refused("GNMT", ValueError, "switch_step=-1", switch_step=-1),
    refused("GNMT", ValueError, "sgd_learning_rate=0", sgd_learning_rate=0),
    refused("GNMT", ValueError, "decay_rate=1.5", decay_rate=1.5),
    refused("GNMT", ValueError, "decay_rate=0", decay_rate=0),
    refused("GNMT", TypeError, "decay_steps=1.5", decay_steps=[1.5]),
    refused("GNMT", TypeError, "decay_steps=9", decay_steps=9),
    refused("GNMT", TypeError, "decay_steps=None", decay_steps=None),
    refused(
        "GNMT",
        ValueError,
        "decay_steps=[30], switch_step=30",
        decay_steps=[30],
        **STEP_30,
    ),
    refused(
        "GNMT",
        ValueError,
        "decay_steps=(50, 40), switch_step=30",
        decay_steps=(50, 40),
        **STEP_30,
    ),
    refused("Grafted", ValueError, "switch_step=0", switch_step=0),
    refused("Grafted", TypeError, "switch_step=None", switch_step=None),
    refused(
        "Grafted", ValueError, "scale_scope='all'", scale_scope="all", **STEP_30
    ),
    refused("RMSpropWarmup", ValueError, "warmup_steps=0", warmup_steps=0),
    refused("RMSpropWarmup", TypeError, "warmup_steps='9'", warmup_steps="9"),
    refused(
        "RMSpropWarmup",
        ValueError,
        "sgd_learning_rate=-0.1",
        warmup_steps=9,
        sgd_learning_rate=-0.1,
    ),
    refused(
        "RMSpropWarmup",
        TypeError,
        "sgd_learning_rate=None",
        warmup_steps=9,
        sgd_learning_rate=None,
    ),
    refused(
        "RMSpropWarmup", ValueError, "momentum=1", warmup_steps=9, momentum=1
    ),
    refused(
        "RMSpropWarmup",
        ValueError,
        "learning_rate=0",
        warmup_steps=9,
        learning_rate=0,
    ),
    refused("RMSpropWarmup", ValueError, "beta_2=1", warmup_steps=9, beta_2=1),
    refused(
        "RMSpropWarmup", ValueError, "epsilon=0", warmup_steps=9, epsilon=0
    ),
    refused(
        "RMSpropWarmup",
        ValueError,
        "Received: amsgrad=True",
        warmup_steps=9,
        amsgrad=True,
    ),
    refused(
        "RMSpropWarmup",
        ValueError,
        "Received: nesterov=True",
        warmup_steps=9,
        nesterov=True,
    ),
    refused("AdaBound", ValueError, "gamma=0", gamma=0),
    refused("AdaBound", ValueError, "gamma=2", gamma=2),
    refused("AdaBound", ValueError, "gamma=1e-310", gamma=1e-310),
    refused("AdaBound", TypeError, "gamma=None", gamma=None),
    refused(
        "AdaBound",
        ValueError,
        "final_learning_rate=0",
        final_learning_rate=0,
    ),
    refused("AdaBound", TypeError, "amsgrad=1", amsgrad=1),
    refused("AdaBound", ValueError, "epsilon=-1", epsilon=-1),
    refused("AdaBound", TypeError, "Nameless", learning_rate=Nameless()),
    refused("AMSBound", ValueError, "gamma=0", gamma=0),
    refused("AMSBound", TypeError, "Received: amsgrad=False", amsgrad=False),
    refused("DSTAdam", ValueError, "training_steps=1", training_steps=1),
    refused("DSTAdam", TypeError, "training_steps=9.5", training_steps=9.5),
    refused("DSTAdam", ValueError, "upper=0", training_steps=9, upper=0),
    refused("DSTAdam", ValueError, "lower=-1", training_steps=9, lower=-1),
    refused("DSTAdam", ValueError, "beta_1=1", training_steps=9, beta_1=1),
    refused(
        "DSTAdam",
        TypeError,
        "InverseTimeDecay",
        training_steps=9,
        learning_rate=SCHEDULE,
    ),
    refused("Padam", ValueError, "partial=0", partial=0),
    refused("Padam", ValueError, "partial=0.6", partial=0.6),
    refused("Padam", TypeError, "partial='1/8'", partial="1/8"),
    refused("MAS", ValueError, "sgd_weight=1.5", sgd_weight=1.5),
    refused("MAS", ValueError, "sgd_learning_rate=0", sgd_learning_rate=0),
    refused(
        *("MAS", ValueError, "learning_rate=CosineDecay, 0 at 0"),
        learning_rate=keras.optimizers.schedules.CosineDecay(
            0.0, 10, warmup_target=0.1, warmup_steps=5
        ),
    ),
    refused("MAS", TypeError, "sgd_learning_rate=None", sgd_learning_rate=None),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [("nesterov", True), ("amsgrad", True), ("sgd_scale", "norm")],
)
@pytest.mark.parametrize("updates", [0, 1])
def test_what_a_form_lacks_cannot_be_assigned(name, value, updates):
    optimizer = presets.RMSpropWarmup(10)
    variable = keras.Variable([1.0])
    for _ in range(updates):
        optimizer.apply([keras.ops.ones(1)], [variable])
    with pytest.raises(ValueError, match=f"^`{name}`"):
        setattr(optimizer, name, value)
        optimizer.apply([keras.ops.ones(1)], [variable])


@pytest.mark.parametrize(("name", "arguments", "error", "received"), REFUSED)
def test_refused_arguments(name, arguments, error, received):
    with pytest.raises(error) as raised:
        presets.by_name(name, **arguments)
    # An argument's message names it and ends with what was received.
    text = str(raised.value)
    assert received in text[text.index("Received: ") :]


REQUIRED = {
    "Grafted": {"switch_step": 30},
    "RMSpropWarmup": {"warmup_steps": 9},
    "DSTAdam": {"training_steps": 9},
}

# What a preset has decided cannot be given again.
DECIDED = {
    "SWATS": {"scale_scope": "layer", "sgd_scale": "norm"},
    "GNMT": {"momentum": 0.9},
    "Grafted": {"sgd_scale": 1.0},
    "RMSpropWarmup": {"beta_1": 0.5},
    "AdaBound": {"sgd_scale": 1.0},
    "DSTAdam": {"momentum": 0.5, "sgd_learning_rate": 0.1},
    "Padam": {"sgd_scale": 1.0},
    "MAS": {"momentum": 0.5},
}


def own_arguments(name):
    return list(inspect.signature(presets.PRESETS[name]).parameters)[:-1]


def test_an_argument_of_another_preset_is_an_error():
    # Every pair of them, called by name and called directly.
    all_own = {n: own_arguments(n) for n in presets.PRESETS}
    general = set(HybridOptimizer().get_config())
    checked = 0
    for name, own in all_own.items():
        if name == "AMSBound":  # Its arguments are AdaBound's.
            own = all_own["AdaBound"]
        foreign = {a for other in all_own.values() for a in other}
        for argument in foreign - set(own) - general:
            for make in (
                functools.partial(presets.by_name, name),
                presets.PRESETS[name],
            ):
                with pytest.raises(TypeError) as raised:
                    make(**REQUIRED.get(name, {}), **{argument: 0.125})
                text = str(raised.value)
                assert text.endswith(f"Received: {argument}=0.125")
                assert " takes " + ", ".join(own) in text
                checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [(n, a, v) for n, taken in DECIDED.items() for a, v in taken.items()],
)
def test_what_a_preset_decides_cannot_be_given(name, argument, value):
    with pytest.raises(TypeError) as raised:
        presets.by_name(name, **REQUIRED.get(name, {}), **{argument: value})
    text = str(raised.value)
    assert argument in text[: text.index("which it sets itself")]
    assert text.endswith(f"Received: {argument}={value!r}")


@pytest.mark.parametrize("name", ["Adam", "swats", "Swats", "", None, 3])
def test_unknown_names_list_the_choices(name):
    with pytest.raises(ValueError) as raised:
        presets.by_name(name)
    for choice in presets.PRESETS:
        assert repr(choice) in str(raised.value)
    assert str(raised.value).endswith(f"Received: name={name!r}")


def test_by_name_passes_keras_name_and_the_rest_on():
    optimizer = presets.by_name(
        "AdaBound", name="bound", clipnorm=1.0, beta_1=0.8
    )
    assert optimizer.name == "bound"
    assert optimizer.clipnorm == 1.0
    assert optimizer.beta_1 == 0.8
    direct = presets.AdaBound(name="bound", clipnorm=1.0, beta_1=0.8)
    assert optimizer.get_config() == direct.get_config()


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_argument_is_named(name):
    (missing,) = REQUIRED[name]
    with pytest.raises(TypeError, match=missing):
        presets.by_name(name)
