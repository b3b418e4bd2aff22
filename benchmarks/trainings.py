"""A process that trains models with one optimizer and says how long it took."""

import gc

import keras
import measures
import models
import optimizers


def batches_of(task):
    """The data of `fit`, on TensorFlow without the thread that tunes it.

    The end of an epoch can wait for that thread for seconds.
    """
    whole = {"x": task.x, "y": task.y, "batch_size": task.batch_size}
    if keras.backend.backend() != "tensorflow":
        return whole
    import tensorflow as tf

    from keras_hybrid import batches

    x = tuple(task.x) if isinstance(task.x, list) else task.x
    data = tf.data.Dataset.from_tensor_slices((x, task.y))
    data = data.shuffle(len(task.y)).batch(task.batch_size)
    return {"x": batches.untuned(data), "shuffle": False}


class Training:
    """Trains one model at a time."""

    def __init__(self, optimizer, quick):
        self._make_optimizer = optimizers.makers()[optimizer]
        self._quick = quick
        self._task = self._batches = None

    def use(self, policy):
        """Sets Keras' policy of precision for the models that follow."""
        keras.mixed_precision.set_dtype_policy(policy)

    def shapes(self, model):
        """The shapes of a model's trainable variables."""
        variables = models.MODELS[model](self._quick).model.trainable_variables
        return [tuple(v.shape) for v in variables]

    def start(self, model, *arguments):
        """Makes and compiles a model; returns the seconds."""
        return measures.seconds_of(lambda: self._start(model, *arguments))

    def _start(self, model, *arguments):
        keras.utils.set_random_seed(0)
        self._task = models.MODELS[model](self._quick, *arguments)
        self._task.model.compile(self._make_optimizer(), self._task.loss)
        self._batches = batches_of(self._task)

    def first_step(self):
        """Trains one batch, after tracing and compiling; the seconds."""
        task = self._task
        x, y = keras.tree.map_structure(
            lambda data: data[: task.batch_size], (task.x, task.y)
        )
        return measures.seconds_of(lambda: task.model.train_on_batch(x, y))

    def epoch(self):
        """Fits one epoch; the seconds."""
        return measures.seconds_of(
            lambda: self._task.model.fit(**self._batches, verbose=0)
        )

    def end(self):
        """Forgets the model as searches do; the seconds."""
        return measures.seconds_of(self._end)

    def _end(self):
        self._task = self._batches = None
        keras.utils.clear_session()
        gc.collect()

    def resident_bytes(self):
        """The memory that the process holds."""
        return measures.resident_bytes()

    def device_bytes(self):
        """The most memory that the process has held on its GPU, or None."""
        import gpu_steps

        return gpu_steps.peak_bytes()
