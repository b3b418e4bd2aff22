"""How a loop of one's own calls an update, on each backend."""

import contextlib

import keras

BACKEND = keras.backend.backend()
# The quickest way to make a few updates, and the others. (JAX out of its jit
# compiles each branch of each update anew.)
PLAIN, *OTHERS = {
    "tensorflow": ("untraced", "eager", "compiled", "function", "xla"),
    "jax": ("jit", "eager"),
    "torch": ("eager",),
}[BACKEND]


@contextlib.contextmanager
def running(mode, wide=False):
    """Where the updates of a mode run; `wide` for float64."""
    with contextlib.ExitStack() as stack:
        if BACKEND == "tensorflow":
            import tensorflow as tf

            stack.callback(tf.config.run_functions_eagerly, False)
            tf.config.run_functions_eagerly(mode == "untraced")
        if BACKEND == "jax" and wide:
            import jax

            stack.enter_context(jax.enable_x64(True))
        yield


def updater(optimizer, variables, mode=None):
    """A function that takes gradients; without a mode as most loops have it."""
    optimizer.build(variables)
    mode = mode or {"jax": "jit"}.get(BACKEND, "eager")
    if mode == "jit":
        return _stateless(optimizer, variables)
    if mode in ("function", "xla"):
        import tensorflow as tf

        return tf.function(
            lambda gradient: optimizer.apply(gradient, variables),
            jit_compile=mode == "xla",
        )
    return lambda gradient: optimizer.apply(gradient, variables)


def _stateless(optimizer, variables):
    import jax

    stateless = jax.jit(optimizer.stateless_apply)

    def update(gradient):
        weights, state = stateless(
            [v.value for v in optimizer.variables],
            gradient,
            [v.value for v in variables],
        )
        for variable, value in zip(
            [*variables, *optimizer.variables], [*weights, *state], strict=True
        ):
            variable.assign(value)

    return update
