"""A plugin of pytest's: tf.data without its tuner, whose end can take seconds.

An iterator's end waits for the thread that tunes its pipeline, and that thread
can miss the call to stop and sleep on, up to a minute: in a `fit` of 30 short
epochs some stall for seconds. What the tests train needs no tuning.
"""


def pytest_sessionstart(session):
    """Where tests run, and not in the process that hands them out."""
    of_xdist = session.config.getoption("numprocesses", None)
    if of_xdist and not hasattr(session.config, "workerinput"):
        return
    import tensorflow as tf

    tuned = tf.data.Dataset.__iter__

    def untuned(dataset):
        options = tf.data.Options()
        options.autotune.enabled = False
        return tuned(dataset.with_options(options))

    tf.data.Dataset.__iter__ = untuned
