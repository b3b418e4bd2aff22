"""A plugin of pytest's: a process that wastes no time, for what tests train.

tf.data without its tuner: an iterator's end waits for the thread that tunes its
pipeline, and that thread can miss the call to stop and sleep on, up to a
minute. In a `fit` of 30 short epochs some stall for seconds.

What TensorFlow and Keras make when they are imported, a million objects that
stay, is kept out of the garbage collector's rounds.
"""

import gc


def pytest_sessionstart(session):
    """Where tests run, and not in the process that hands them out."""
    of_xdist = session.config.getoption("numprocesses", None)
    if of_xdist and not hasattr(session.config, "workerinput"):
        return
    import keras

    if keras.backend.backend() == "tensorflow":
        _leave_data_untuned()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _leave_data_untuned():
    import tensorflow as tf

    from keras_hybrid import batches

    tuned = tf.data.Dataset.__iter__
    tf.data.Dataset.__iter__ = lambda data: tuned(batches.untuned(data))
