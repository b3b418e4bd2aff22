"""One update step on whatever the backend computes on, its gradients given."""

import functools

import contenders
import keras
import measures
import optimizers
import shapes

BACKEND = keras.backend.backend()
ROUNDS = 5
SECONDS_A_TURN = 0.3
COMPARED = (
    optimizers.ADAM,
    optimizers.OURS,
    optimizers.ADAMW,
    optimizers.OURS_DECAY,
    optimizers.SGD,
    optimizers.OURS_SWITCHED,
    optimizers.OURS_BLENDING,
)
# What calls the update. JAX compiles what it is given, torch nothing.
CALLERS = {
    "tensorflow": {"tf.function": False, "tf.function, jit_compile": True},
    "jax": {"jax.jit": None},
    "torch": {"eager": None},
}[BACKEND]


def devices():
    """The names of what the backend computes on."""
    if BACKEND == "torch":
        import torch

        if torch.cuda.is_available():
            return [torch.cuda.get_device_name()]
        return [f"CPU, {torch.get_num_threads()} threads"]
    if BACKEND == "jax":
        import jax

        return [device.device_kind for device in jax.devices()]
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    found = tf.config.list_physical_devices("GPU")
    return [details(gpu)["device_name"] for gpu in found] or ["CPU"]


def peak_bytes():
    """The most memory that this process has held on its GPU, or None."""
    if devices()[0].lower().startswith("cpu"):
        return None
    if BACKEND == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    if BACKEND == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def steps_of(optimizer, sizes, jit_compile):
    """A function that makes a number of updates and waits for the last."""
    variables = [keras.Variable(w) for w in contenders.arrays(sizes, 0.1)]
    grads = [
        keras.ops.convert_to_tensor(g) for g in contenders.arrays(sizes, 0.01)
    ]
    optimizer.build(variables)
    if BACKEND == "jax":
        return _steps_of_jax(optimizer, variables, grads)
    if BACKEND == "torch":
        return _until_done(lambda: optimizer.apply(grads, variables), variables)
    import tensorflow as tf

    # Arguments, so that nothing folds them into the graph.
    update = tf.function(
        lambda *given: optimizer.apply(list(given), variables),
        autograph=False,
        jit_compile=jit_compile,
    )
    return _until_done(lambda: update(*grads), variables)


def _steps_of_jax(optimizer, variables, grads):
    import jax

    update = jax.jit(
        lambda weights, slots, given: optimizer.stateless_apply(
            slots, given, weights
        ),
        donate_argnums=(0, 1),
    )
    state = [
        [v.value for v in variables],
        [v.value for v in optimizer.variables],
    ]

    def steps(count):
        for _ in range(count):
            state[:] = update(*state, grads)
        jax.block_until_ready(state)

    return steps


def _until_done(update, variables):
    def steps(count):
        for _ in range(count):
            update()
        # A device works in order: the last value waits for all before it.
        keras.ops.convert_to_numpy(variables[-1][0])

    return steps


def milliseconds(steps, seconds):
    """One step's time, over as many as fill a turn."""
    taken = measures.seconds_of(lambda: steps(1))
    count = max(1, int(seconds / taken))
    return 1e3 * measures.seconds_of(lambda: steps(count)) / count


def workloads(quick):
    """Shapes of variables, by name."""
    import models

    found = {
        "25 M weights in 34": shapes.equal_tensors(25, 34),
        "60 small": shapes.small_tensors(60),
    }
    for name in ("ResNet50", "transformer encoder"):
        model = models.MODELS[name](quick).model
        found[name] = [tuple(v.shape) for v in model.trainable_variables]
    if quick:
        found = {k: shapes.smaller(v[:12]) for k, v in found.items()}
    return found


def measure(quick):
    """Times each optimizer in turns; yields a workload and caller's at once."""
    makers = optimizers.makers()
    for name, sizes in workloads(quick).items():
        for caller, jit_compile in CALLERS.items():
            turns = {}
            for key in COMPARED:
                steps = steps_of(makers[key](), sizes, jit_compile)
                # Compiles, and passes the switch.
                steps(contenders.WARM_UP)
                turns[key] = functools.partial(
                    milliseconds, steps, 0 if quick else SECONDS_A_TURN
                )
            found = measures.in_turns(turns, 1 if quick else ROUNDS)
            yield {
                f"{name}, {caller}": {
                    "weights": shapes.weights_of(sizes),
                    "tensors": len(sizes),
                    "step_ms": measures.spreads(found),
                }
            }
