"""What a search tells: callbacks, progress."""

import keras
import pytest
from searches import DATA, POINTS, tuner_in

TWO = {**POINTS, "fraction": [0.5, 0.25]}


class Noting(keras.callbacks.Callback):
    """Notes how many trainings one and the same callback has seen."""

    starts = []

    def __init__(self):
        super().__init__()
        self.seen = 0

    def on_train_begin(self, logs=None):
        self.seen += 1
        Noting.starts.append(self.seen)


@pytest.mark.slow
def test_callbacks_are_copied_and_progress_is_told(tmp_path):
    """Callbacks watch the first seed."""
    Noting.starts = []
    callbacks = [Noting()]
    told = []
    tuner = tuner_in(tmp_path, space=TWO, seeds=2, report=told.append)
    tuner.search(**DATA, epochs=4, callbacks=callbacks)
    assert Noting.starts == [1, 1]
    assert callbacks[0].seen == 0
    done = [p for p in told if p.run is not None]
    assert [p.finished for p in done] == [1, 2, 3, 4]
    assert {p.total for p in told} == {4}
    assert {p.epochs for p in told} == {4}
