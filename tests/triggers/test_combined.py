"""Triggers that are made of others."""

import keras
import numpy as np
import pytest
from hand_made import LOGS, config, fires, gammas

from keras_hybrid.triggers import (
    AtEpoch,
    AtStep,
    EpochTrigger,
    GradientSignalToNoise,
    Plateau,
    ProjectionConverged,
    StepTrigger,
)


@pytest.mark.parametrize(
    ("composite", "expected"),
    [
        (AtStep(2) | AtStep(4), [False, True, True, True, True]),
        (AtStep(2) & AtStep(4), [False, False, False, True, True]),
        (
            ProjectionConverged(1e-9, patience=1, min_steps=2) | AtStep(5),
            [False, True, True, False, True],
        ),
        (
            ProjectionConverged(1e-9, patience=1, min_steps=2) & AtStep(3),
            [False, False, True, False, False],
        ),
        (
            (ProjectionConverged(1e-9, patience=1, min_steps=2) & AtStep(3))
            | AtStep(5),
            [False, False, True, False, True],
        ),
    ],
    ids=["or", "and", "or_state", "and_state", "nested"],
)
def test_step_composites(composite, expected):
    sequence = gammas(2.0, 2.0, 2.0, 9.0, 4.0)
    assert isinstance(composite, StepTrigger)
    assert fires(composite, sequence) == expected


def test_step_composites_feed_every_member():
    """A member's patience grows while another one holds the switch back."""
    trigger = AtStep(4) & ProjectionConverged(patience=3, min_steps=2)
    assert fires(trigger, gammas(*[2.0] * 5)) == [False] * 3 + [True] * 2


def test_step_composites_keep_the_members_states_apart():
    first = ProjectionConverged(0.1, patience=2, min_steps=2, against="gamma")
    second = GradientSignalToNoise(0.5, patience=3, min_steps=1)
    sequence = gammas(1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0)
    for k, changed in enumerate(sequence):
        noisy = k not in (2, 3)
        changed["moment_square"] = [0.0 if noisy else 9.0]
    a, b = np.array(fires(first, sequence)), np.array(fires(second, sequence))
    np.testing.assert_array_equal(fires(first | second, sequence), a | b)
    np.testing.assert_array_equal(fires(first & second, sequence), a & b)
    np.testing.assert_array_equal(fires(second & first, sequence), a & b)
    assert (a != b).any()
    assert (a & b).any()


def test_step_composites_need_what_any_member_needs():
    projection, noise = ProjectionConverged(), GradientSignalToNoise()
    assert (projection | noise).needs == projection.needs | noise.needs
    assert (AtStep(3) & noise).needs == noise.needs
    assert AtStep(3).needs == frozenset()


def test_step_composites_at_the_start():
    assert (AtStep(0) | AtStep(3)).fires_at_start
    assert not (AtStep(0) & AtStep(3)).fires_at_start
    assert (AtStep(0) & AtStep(0)).fires_at_start


@pytest.mark.parametrize("operator", ["|", "&"])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (AtStep(1), AtEpoch(1)),
        (AtEpoch(1), AtStep(1)),
        (AtStep(1) | AtStep(2), Plateau()),
        (Plateau() & AtEpoch(1), AtStep(2)),
        (AtStep(1), 3),
        (AtEpoch(1), "val_loss"),
        (AtEpoch(1), None),
    ],
    ids=repr,
)
def test_composing_across_families_is_an_error(left, right, operator):
    with pytest.raises(TypeError, match="one family.*Received: ") as caught:
        left | right if operator == "|" else left & right  # noqa: B018
    assert f"{left!r} {operator} {right!r}" in str(caught.value)


def test_epoch_composites():
    losses = [1.0, 1.0, 1.0, 0.1, 0.1]
    expected = {"|": [0, 1, 1, 1, 1], "&": [0, 0, 1, 0, 1]}
    for operator in "|&":
        plateau, late = Plateau("loss", patience=1), AtEpoch(3)
        trigger = plateau | late if operator == "|" else plateau & late
        assert isinstance(trigger, EpochTrigger)
        held = [trigger.check(e, {"loss": x}) for e, x in enumerate(losses)]
        assert held == [bool(e) for e in expected[operator]]


def test_epoch_composites_feed_every_member():
    """A plateau goes on counting behind an AtEpoch that already holds."""
    plateau = Plateau("loss", patience=3)
    trigger = AtEpoch(1) | plateau
    for epoch in range(4):
        assert trigger.check(epoch, {"loss": 1.0})
    assert plateau.waited == 3
    both = AtEpoch(4) & Plateau("loss", patience=3)
    held = [both.check(epoch, {"loss": 1.0}) for epoch in range(4)]
    assert held == [False, False, False, True]


def test_epoch_composites_have_no_single_value():
    with pytest.raises(TypeError, match=r"Received: update\(0\.5\)"):
        (AtEpoch(1) | AtEpoch(2)).update(0.5)


def test_restored_composites_behave_alike():
    trigger = AtEpoch(4) & Plateau("loss", patience=1)
    again = keras.saving.deserialize_keras_object(config(trigger))
    for epoch, logs in enumerate(LOGS):
        assert again.check(epoch, logs) == trigger.check(epoch, logs)


def test_repr_shows_the_operators():
    assert repr(AtStep(3)) == "AtStep(n=3)"
    assert (
        repr(AtEpoch(1) & (AtEpoch(2) | AtEpoch(3)))
        == "(AtEpoch(n=1) & (AtEpoch(n=2) | AtEpoch(n=3)))"
    )
