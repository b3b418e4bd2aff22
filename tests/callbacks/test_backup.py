"""ExactBackup: stopped anywhere, in any order of callbacks, bit for bit."""

import functools
import itertools
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import slow_but

from keras_hybrid import ExactBackup, HybridOptimizer, SwitchCallback
from keras_hybrid.callbacks import generators
from keras_hybrid.callbacks.snapshot import DamagedSnapshot
from keras_hybrid.transitions import Blend, Cooldown
from keras_hybrid.triggers import AtEpoch, Plateau

EPOCHS, STEPS = 6, 4
X = np.random.default_rng(0).normal(size=(8 * STEPS, 3)).astype("float32")
Y = X[:, :1] * X[:, 1:2]


@functools.cache
def compiled(**kwargs):
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    options = {
        "transition": Blend(6),
        "cooldown": Cooldown(),
        "jit_compile": False,
        **kwargs,
    }
    model.compile(HybridOptimizer(0.01, **options), "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    variables = model.variables + model.optimizer.variables
    return model, variables, [v.numpy() for v in variables]


def new_model(**kwargs):
    """As a new process would make it, but compiled once."""
    model, variables, values = compiled(**kwargs)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    # An interrupted one of another test leaves it behind.
    model._initial_epoch = None
    return model


class Interrupted(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Fails at a moment of an epoch."""

    def __init__(self, moment, epoch):
        super().__init__()
        self.moment, self.fatal, self.epoch = moment, epoch, None

    def now(self, moment):
        if (moment, self.epoch) == (self.moment, self.fatal):
            raise Interrupted

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.now("begin")

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2:
            self.now("batch")

    def on_test_end(self, logs=None):
        self.now("test")

    def on_epoch_end(self, epoch, logs=None):
        self.now("end")


def decayed(epoch, rate):
    """Of the rate before: to begin an epoch twice is to decay twice."""
    return 0.9 * rate


def fit(callbacks, epochs=EPOCHS, **kwargs):
    model = new_model(**kwargs)
    model.fit(
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(8),
        validation_data=(X, Y),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    # Read before the next `new_model` resets them.
    state = [v.numpy() for v in model.variables + model.optimizer.variables]
    return state, model.history


def run(path, moment=None, epoch=None, order=(0, 1, 2, 3), **kwargs):
    steady = Plateau("val_loss", patience=2, min_delta=10.0)
    callbacks = [
        ExactBackup(path, **kwargs),
        SwitchCallback(steady | AtEpoch(4), verbose=0),
        keras.callbacks.LearningRateScheduler(decayed),
        Interrupt(moment, epoch),
    ]
    return fit([callbacks[i] for i in order])


@functools.cache
def unbroken():
    steady = Plateau("val_loss", patience=2, min_delta=10.0)
    rate = keras.callbacks.LearningRateScheduler(decayed)
    return fit([SwitchCallback(steady | AtEpoch(4), verbose=0), rate])


def assert_same(run, expected):
    for mine, other in zip(run[0], expected[0], strict=True):
        np.testing.assert_array_equal(mine, other)
    # NaN equals NaN; the order of the names is that of the callbacks.
    mine, other = (sorted(h.history.items()) for _, h in (run, expected))
    assert repr(mine) == repr(other)
    assert run[1].epoch == expected[1].epoch == list(range(EPOCHS))


ORDERS = list(itertools.permutations(range(4)))
# The switch is at the end of epoch 2, the blend until the end of epoch 4.
MOMENTS = [
    ("begin", 0),
    ("batch", 1),
    ("test", 2),
    ("end", 2),
    ("begin", 3),
    ("batch", 3),
    ("end", 5),
]


@pytest.mark.slow
def test_the_run_switches_on_the_way():
    history = unbroken()[1].history
    assert history["switch_step"] == [-1] * 3 + [3 * STEPS] * 3
    assert 0 < history["sgd_fraction"][3] < history["sgd_fraction"][4] == 1


@pytest.mark.parametrize("number", slow_but({5}, range(len(MOMENTS))))
def test_stopped_anywhere_in_any_order(tmp_path, number):
    # Another order at each moment.
    stopped_and_resumed(tmp_path, MOMENTS[number], ORDERS[7 * number % 24])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MOMENTS)))
def test_stopped_anywhere_in_every_order(tmp_path, number):
    # Every second order at a moment, the others at the next.
    for order in ORDERS[number % 2 :: 2]:
        stopped_and_resumed(tmp_path, MOMENTS[number], order)


def stopped_and_resumed(tmp_path, moment, order):
    path = tmp_path / "new" / "backup.npz"
    with pytest.raises(Interrupted):
        run(path, *moment, order)
    assert_same(run(path, order=order), unbroken())
    assert not path.exists()


@pytest.mark.slow
def test_stopped_twice_and_where_a_write_was_cut_off(tmp_path):
    path = tmp_path / "backup.npz"
    for epoch in (2, 2, 4):
        with pytest.raises(Interrupted):
            run(path, "batch", epoch)
        cut_off = tmp_path / "backup.npz.77.partial"
        cut_off.write_bytes(path.read_bytes()[:99])
    assert_same(run(path), unbroken())
    assert list(tmp_path.iterdir()) == []


def test_kept_after_the_end_it_restores_the_end(tmp_path):
    path = tmp_path / "backup.npz"
    run(path, delete_checkpoint=False)
    trained = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: trained.append(epoch)
    )
    again = fit([ExactBackup(path, delete_checkpoint=False), watch])
    assert trained == []
    assert_same(again, unbroken())


@pytest.mark.slow
def test_average_of_weights(tmp_path):
    """`use_ema` puts the average into the weights when `fit` ends."""
    path = tmp_path / "backup.npz"
    options = {"use_ema": True, "ema_momentum": 0.5, "cooldown": None}
    whole = fit([], **options)
    kept = [ExactBackup(path, delete_checkpoint=False)]
    with pytest.raises(Interrupted):
        fit([*kept, Interrupt("batch", 3)], **options)
    for _ in range(2):
        assert_same(fit(kept, **options), whole)


def test_a_next_fit_starts_at_its_own_beginning(tmp_path):
    path = tmp_path / "backup.npz"
    with pytest.raises(Interrupted):
        run(path, "batch", 3)
    _, history = run(path)
    history.model.fit(X, Y, epochs=1, verbose=0)
    assert history.model.history.epoch == [0]


def test_so_does_one_after_an_interrupted_resumed_fit(tmp_path):
    path = tmp_path / "backup.npz"
    for epoch in (2, 4):
        with pytest.raises(Interrupted):
            run(path, "batch", epoch)
    model, *_ = compiled()
    model.fit(X, Y, epochs=1, verbose=0)
    assert model.history.epoch == [0]


def test_arrays_in_the_history_keep_their_types(tmp_path):
    given = [np.array([1 / 3]), np.array([[2**24 + 1]]), np.float32([0.1])]
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(
            {str(i): x for i, x in enumerate(given)}
        )
    )
    kept = ExactBackup(tmp_path / "backup.npz", delete_checkpoint=False)
    fit([note, kept], epochs=1, cooldown=None)
    _, history = fit([note, kept], epochs=1, cooldown=None)
    for i, x in enumerate(given):
        (found,) = history.history[str(i)]
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, x)


def test_the_next_epoch_is_known_before_fit(tmp_path):
    path = tmp_path / "backup.npz"
    assert ExactBackup(path).next_epoch == 0
    with pytest.raises(Interrupted):
        run(path, "end", 3)
    assert ExactBackup(path).next_epoch == 3


class Reordered(keras.utils.PyDataset):
    """Batches in an order that is drawn from generators of the process."""

    def __init__(self, draw):
        super().__init__()
        self.draw, self.order = draw, range(STEPS)

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        rows = 8 * self.order[index] + np.arange(8)
        return X[rows], Y[rows]

    def on_epoch_begin(self):
        self.order = self.draw()


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda: np.random.permutation(STEPS), id="numpy"),
        pytest.param(
            lambda: random.sample(range(STEPS), STEPS),
            id="python",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_order_of_examples_goes_on(tmp_path, draw):
    def weights(*callbacks):
        model = new_model()
        keras.utils.set_random_seed(3)
        data = Reordered(draw)
        model.fit(data, epochs=4, callbacks=callbacks, verbose=0)
        return [v.numpy() for v in model.weights]

    path = tmp_path / "backup.npz"
    backup = ExactBackup(path), SwitchCallback(AtEpoch(3), verbose=0)
    with pytest.raises(Interrupted):
        weights(*backup, Interrupt("batch", 2))
    for mine, other in zip(
        weights(*backup),
        weights(SwitchCallback(AtEpoch(3), verbose=0)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
def test_a_kept_end_goes_on_with_more_epochs(tmp_path):
    def weights(epochs, *callbacks):
        keras.utils.set_random_seed(3)
        model = new_model(cooldown=None)
        data = Reordered(lambda: np.random.permutation(STEPS))
        model.fit(data, epochs=epochs, callbacks=callbacks, verbose=0)
        return [v.numpy() for v in model.weights]

    def backup():
        return ExactBackup(tmp_path / "backup.npz", delete_checkpoint=False)

    weights(1)  # The first fit builds its metrics on a batch of its own.
    expected = weights(4)
    weights(2, backup())
    np.random.normal(size=5)
    weights(2, backup())  # There is nothing left to do.
    for mine, other in zip(weights(4, backup()), expected, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("delete", [False, True])
def test_fewer_epochs_than_the_file_has_leave_it(delete, tmp_path):
    path = tmp_path / "kept.npz"
    for epochs in (3, 2, 4):
        keep = ExactBackup(path, delete_checkpoint=delete and epochs != 3)
        _, history = fit([keep], epochs, cooldown=None)
        assert path.exists() != (delete and epochs == 4)
    assert history.epoch == [0, 1, 2, 3]


def test_a_loop_without_a_history_is_refused(tmp_path):
    callbacks = keras.callbacks.CallbackList(
        [ExactBackup(tmp_path / "a.npz")], model=new_model(), epochs=2
    )
    callbacks.model.history = None
    with pytest.raises(ValueError, match="add_history=True"):
        callbacks.on_train_begin()


def test_a_smaller_models_file_is_another_models(tmp_path):
    path = tmp_path / "kept.npz"
    small = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    small.compile(HybridOptimizer(0.01), "mse")
    small.fit(X, Y, verbose=0, callbacks=[ExactBackup(path, False)])
    with pytest.raises(DamagedSnapshot, match="of another model"):
        fit([ExactBackup(path)], cooldown=None)


@pytest.mark.parametrize("gauss", [False, True])
def test_generators_are_given_back(gauss):
    def draw():
        return np.random.normal(), random.gauss(0, 1), random.random()

    if gauss:  # They draw pairs, and keep the second.
        draw()
    states = generators.states()
    expected = [draw() for _ in range(3)]
    draw()
    generators.give_back(states)
    assert [draw() for _ in range(3)] == expected


@pytest.mark.parametrize(
    ("path", "error"),
    [(3, TypeError), (b"x", TypeError), ("", ValueError), (".", ValueError)],
)
def test_a_path_of_no_file_is_refused(path, error):
    with pytest.raises(error, match="`path` must be the path of a file.*path="):
        ExactBackup(path)


def test_an_unbuilt_model_is_refused(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(HybridOptimizer(), "mse")
    with pytest.raises(ValueError, match="must be built.*not built"):
        model.fit(X, Y, callbacks=[ExactBackup(tmp_path / "b")], verbose=0)


def test_another_callback_that_restores_is_refused(tmp_path):
    """Of which one has seen the epoch's end, and the other its beginning."""
    path = tmp_path / "backup.npz"
    with pytest.raises(Interrupted):
        run(path, "end", 3)

    class SetsTheEpoch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model._initial_epoch = 4  # As BackupAndRestore does.

    with pytest.raises(ValueError, match="leave out BackupAndRestore"):
        new_model().fit(
            *(X, Y),
            epochs=EPOCHS,
            callbacks=[ExactBackup(path), SetsTheEpoch()],
            verbose=0,
        )
    assert ExactBackup(path).next_epoch == 3


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "backup.npz"
    path.write_bytes(b"no snapshot")
    with pytest.raises(DamagedSnapshot, match="backup.npz: not readable"):
        run(path)
    assert path.exists()


def test_values_that_are_no_numbers_are_refused(tmp_path):
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(note="fine")
    )
    with pytest.raises(ValueError, match="fine"):
        fit(
            [
                ExactBackup(tmp_path / "backup.npz"),
                note,
                SwitchCallback(AtEpoch(4), verbose=0),
            ]
        )


def test_arguments_are_checked(tmp_path):
    with pytest.raises(TypeError, match="delete_checkpoint"):
        ExactBackup(tmp_path / "b", delete_checkpoint="no")
    with pytest.raises(TypeError):
        ExactBackup(None)
