"""What benchmarks/speed.py times: one update step of each optimizer.

Each library runs in a process of its own, so their threads do not disturb each
other, and answers the requests of `serve`.
"""

import gc
import os
import resource
import statistics
import time

import numpy as np

RATE = 1e-3
DECAY = 0.01
CLIP = 1.0
# Reads and writes of 4 bytes a weight at the least.
STREAMS = {"adaptive": 7, "after the switch": 5, "clipping and decay": 8}


def arrays(shapes, scale):
    """Random float32 arrays, the same in every library."""
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal(s, dtype="float32") * np.float32(scale)
        for s in shapes
    ]


def tensorflow_steps(case):
    """Keras' optimizers, this one, TensorFlow's fused kernels, the limit."""
    import keras
    import tensorflow as tf

    from keras_hybrid import HybridOptimizer
    from keras_hybrid.transitions import Blend
    from keras_hybrid.triggers import AtStep

    shapes, caller = case["shapes"], case.get("caller", "function")
    # Variables, so that nothing folds them into the graph.
    grads = [tf.Variable(g) for g in arrays(shapes, 0.01)]
    start = arrays(shapes, 0.1)

    def compiled(update):
        if caller == "eager":
            tensors = [tf.constant(grad) for grad in grads]
            return lambda: update(*tensors)

        def step():
            update(*[grad.read_value() for grad in grads])

        return tf.function(step, autograph=False, jit_compile=caller == "xla")

    def keras_step(optimizer, warm_up=3):
        variables = [keras.Variable(w) for w in start]
        optimizer.build(variables)
        step = compiled(lambda *g: optimizer.apply(list(g), variables))
        for _ in range(warm_up):
            step()
        return step

    def switched(**options):
        optimizer = HybridOptimizer(RATE, trigger=AtStep(2), **options)
        # The adaptive steps before, and two after, which compile.
        return keras_step(optimizer, warm_up=5)

    def variables_like(value):
        return [tf.Variable(np.full(s, value, "float32")) for s in shapes]

    def fused_adam():
        w = [tf.Variable(x) for x in start]
        m, v = variables_like(0), variables_like(0)

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

    def fused_momentum():
        w = [tf.Variable(x) for x in start]
        m = variables_like(0)

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
        w = [tf.Variable(x) for x in start]
        factor = tf.Variable(0.0)

        @tf.function(jit_compile=True, autograph=False)
        def step():
            for x, y in zip(w, grads, strict=True):
                x.assign_add(factor * y)

        return step

    adam = keras.optimizers.Adam
    sgd = keras.optimizers.SGD
    return {
        "adaptive": {
            "axpy": axpy,
            "keras Adam": lambda: keras_step(adam(RATE)),
            "keras_hybrid": lambda: keras_step(HybridOptimizer(RATE)),
            "keras_hybrid, projection": lambda: keras_step(
                HybridOptimizer(RATE, sgd_scale="projection")
            ),
            "TensorFlow, fused kernel": fused_adam,
        },
        "transition": {
            "keras Adam": lambda: keras_step(adam(RATE)),
            "keras_hybrid": lambda: switched(transition=Blend(10**6)),
        },
        "after the switch": {
            "axpy": axpy,
            "keras SGD": lambda: keras_step(sgd(RATE, momentum=0.9)),
            "keras_hybrid": switched,
            "TensorFlow, fused kernel": fused_momentum,
        },
        "clipping and decay": {
            "axpy": axpy,
            "keras AdamW": lambda: keras_step(
                keras.optimizers.AdamW(
                    RATE, weight_decay=DECAY, global_clipnorm=CLIP
                )
            ),
            "keras_hybrid": lambda: keras_step(
                HybridOptimizer(RATE, weight_decay=DECAY, global_clipnorm=CLIP)
            ),
        },
    }[case["phase"]]


def torch_steps(case):
    """PyTorch's fused optimizers."""
    import torch

    torch.set_num_threads(os.cpu_count())

    def step_of(kind, clip=False, **options):
        parameters = []
        for w, g in zip(
            arrays(case["shapes"], 0.1),
            arrays(case["shapes"], 0.01),
            strict=True,
        ):
            parameter = torch.nn.Parameter(torch.from_numpy(w))
            parameter.grad = torch.from_numpy(g)
            parameters.append(parameter)
        optimizer = kind(parameters, lr=RATE, fused=True, **options)

        def step():
            if clip:
                torch.nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
            optimizer.step()

        return step

    name = "torch, fused"
    return {
        "adaptive": {name: lambda: step_of(torch.optim.Adam)},
        "transition": {},
        "after the switch": {
            name: lambda: step_of(torch.optim.SGD, momentum=0.9)
        },
        "clipping and decay": {
            name: lambda: step_of(
                torch.optim.AdamW, clip=True, weight_decay=DECAY
            )
        },
    }[case["phase"]]


def jax_steps(case):
    """The optimizers of optax under jax.jit, with donated buffers."""
    import jax
    import optax

    def step_of(optimizer):
        grads = [jax.numpy.asarray(g) for g in arrays(case["shapes"], 0.01)]
        state = [jax.numpy.asarray(w) for w in arrays(case["shapes"], 0.1)]
        state = [state, optimizer.init(state)]

        def update(weights, slots, grads):
            updates, slots = optimizer.update(grads, slots, weights)
            return optax.apply_updates(weights, updates), slots

        compiled = jax.jit(update, donate_argnums=(0, 1))

        def step():
            state[:] = compiled(*state, grads)
            jax.block_until_ready(state)

        return step

    name = "optax, jax.jit"
    return {
        "adaptive": {name: lambda: step_of(optax.adam(RATE))},
        "transition": {},
        "after the switch": {
            name: lambda: step_of(optax.sgd(RATE, momentum=0.9))
        },
        "clipping and decay": {
            name: lambda: step_of(
                optax.chain(
                    optax.clip_by_global_norm(CLIP),
                    optax.adamw(RATE, weight_decay=DECAY),
                )
            )
        },
    }[case["phase"]]


LIBRARIES = {
    "tensorflow": tensorflow_steps,
    "torch": torch_steps,
    "jax": jax_steps,
}


def peak():
    """The most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(connection, library):
    """Answers ("prepare", case), ("time", name, seconds), ("memory", name)."""
    steps_of = LIBRARIES[library]
    makers, steps = {}, {}
    while True:
        request, *arguments = connection.recv()
        if request == "prepare":
            steps.clear()
            gc.collect()
            try:
                makers = steps_of(*arguments)
            except ModuleNotFoundError as error:
                # The extra `bench` is not there: what is can be measured.
                connection.send(error.name)
                continue
            connection.send(list(makers))
        elif request == "time":
            name, seconds = arguments
            if name not in steps:
                steps[name] = makers[name]()
                for _ in range(3):
                    steps[name]()
            connection.send(timed(steps[name], seconds))
        elif request == "memory":
            step = makers[arguments[0]]()
            for _ in range(3):
                step()
            connection.send(peak())
        else:
            return


def timed(step, seconds):
    """The median of single calls, some `seconds` of them, three at least."""
    durations = []
    started = time.perf_counter()
    while len(durations) < 3 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        step()
        durations.append(time.perf_counter() - before)
    return statistics.median(durations)
