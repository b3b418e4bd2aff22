"""One update step of each optimizer, its gradients given."""

import gc
import importlib
import os

import measures
import numpy as np
import optimizers

AXPY = "y += a x"
TF_ADAM, TF_SGD = "TensorFlow, fused Adam", "TensorFlow, fused SGD"
TORCH_ADAM, TORCH_SGD = "torch, fused Adam", "torch, fused SGD"
TORCH_CLIPPING = "torch, fused AdamW, clipping"
OPTAX_ADAM, OPTAX_SGD = "optax adam, jax.jit", "optax sgd, jax.jit"
OPTAX_CLIPPING = "optax adamw, clipping, jax.jit"
RATE, DECAY, CLIP = optimizers.RATE, optimizers.DECAY, optimizers.CLIP
WARM_UP = optimizers.ADAPTIVE_STEPS + 3


def arrays(shapes, scale):
    """Random float32 arrays, the same in every library."""
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal(s, dtype="float32") * np.float32(scale)
        for s in shapes
    ]


def tensorflow_steps(shapes, caller):
    """Keras' optimizers, this one, TensorFlow's fused kernels, the limit."""
    import keras
    import tensorflow as tf

    # Variables, so that nothing folds them into the graph.
    grads = [tf.Variable(g) for g in arrays(shapes, 0.01)]

    def compiled(update):
        if caller == "eager":
            tensors = [tf.constant(grad) for grad in grads]
            return lambda: update(*tensors)

        def step():
            update(*[grad.read_value() for grad in grads])

        return tf.function(step, autograph=False, jit_compile=caller == "xla")

    def keras_step(make):
        optimizer = make()
        variables = [keras.Variable(w) for w in arrays(shapes, 0.1)]
        optimizer.build(variables)
        return compiled(lambda *g: optimizer.apply(list(g), variables))

    def variables(scale):
        return [tf.Variable(w) for w in arrays(shapes, scale)]

    def fused_adam():
        w, m, v = variables(0.1), variables(0), variables(0)

        def update(*g):
            for i in range(len(w)):
                tf.raw_ops.ResourceApplyAdam(
                    var=w[i].handle,
                    m=m[i].handle,
                    v=v[i].handle,
                    beta1_power=0.9,
                    beta2_power=0.999,
                    lr=RATE,
                    beta1=0.9,
                    beta2=0.999,
                    epsilon=1e-7,
                    grad=g[i],
                )

        return compiled(update)

    def fused_sgd():
        w, m = variables(0.1), variables(0)

        def update(*g):
            for i in range(len(w)):
                tf.raw_ops.ResourceApplyKerasMomentum(
                    var=w[i].handle,
                    accum=m[i].handle,
                    lr=RATE,
                    grad=g[i],
                    momentum=0.9,
                )

        return compiled(update)

    def axpy():
        w = variables(0.1)
        factor = tf.Variable(0.0)

        @tf.function(jit_compile=True, autograph=False)
        def step():
            for x, y in zip(w, grads, strict=True):
                x.assign_add(factor * y)

        return step

    return {
        AXPY: axpy,
        TF_ADAM: fused_adam,
        TF_SGD: fused_sgd,
        **{
            name: lambda make=make: keras_step(make)
            for name, make in optimizers.makers().items()
        },
    }


def torch_steps(shapes, caller):
    """PyTorch's fused optimizers."""
    import torch

    torch.set_num_threads(os.cpu_count())

    def step_of(kind, clip=False, **options):
        parameters = []
        for w, g in zip(arrays(shapes, 0.1), arrays(shapes, 0.01), strict=True):
            parameter = torch.nn.Parameter(torch.from_numpy(w))
            parameter.grad = torch.from_numpy(g)
            parameters.append(parameter)
        optimizer = kind(parameters, lr=RATE, fused=True, **options)

        def step():
            if clip:
                torch.nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
            optimizer.step()

        return step

    return {
        TORCH_ADAM: lambda: step_of(torch.optim.Adam),
        TORCH_SGD: lambda: step_of(torch.optim.SGD, momentum=0.9),
        TORCH_CLIPPING: lambda: step_of(
            torch.optim.AdamW, clip=True, weight_decay=DECAY
        ),
    }


def optax_steps(shapes, caller):
    """The optimizers of optax under jax.jit, with donated buffers."""
    import jax
    import optax

    def step_of(optimizer):
        grads = [jax.numpy.asarray(g) for g in arrays(shapes, 0.01)]
        state = [jax.numpy.asarray(w) for w in arrays(shapes, 0.1)]
        state = [state, optimizer.init(state)]

        def update(weights, slots, grads):
            updates, slots = optimizer.update(grads, slots, weights)
            return optax.apply_updates(weights, updates), slots

        compiled = jax.jit(update, donate_argnums=(0, 1))

        def step():
            state[:] = compiled(*state, grads)
            jax.block_until_ready(state)

        return step

    return {
        OPTAX_ADAM: lambda: step_of(optax.adam(RATE)),
        OPTAX_SGD: lambda: step_of(optax.sgd(RATE, momentum=0.9)),
        OPTAX_CLIPPING: lambda: step_of(
            optax.chain(
                optax.clip_by_global_norm(CLIP),
                optax.adamw(RATE, weight_decay=DECAY),
            )
        ),
    }


# How the steps are made, and the modules without which they are not.
LIBRARIES = {
    "TensorFlow": (tensorflow_steps, ("tensorflow", "keras")),
    "PyTorch": (torch_steps, ("torch",)),
    "optax": (optax_steps, ("jax", "optax")),
}


class Steps:
    """The contenders of one library, each made when it is first timed."""

    def __init__(self, library):
        self._steps_of, modules = LIBRARIES[library]
        for module in modules:
            importlib.import_module(module)
        self._makers, self._steps = {}, {}

    def prepare(self, shapes, caller, names):
        """Forgets what there was; returns which of the names it has."""
        self._makers.clear()
        self._steps.clear()
        gc.collect()
        makers = self._steps_of(shapes, caller)
        self._makers = {n: makers[n] for n in names if n in makers}
        return list(self._makers)

    def seconds(self, name, turn):
        """The time of one step, the median of a turn of some seconds."""
        return measures.seconds_of_one(self._step(name), turn)

    def peak_bytes(self, name):
        """The most memory so far, some steps of a contender included."""
        self._step(name)
        return measures.peak_bytes()

    def _step(self, name):
        if name not in self._steps:
            self._steps[name] = step = self._makers[name]()
            for _ in range(WARM_UP):
                step()
        return self._steps[name]
