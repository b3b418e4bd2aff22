"""The optimizers that are compared, by name, with their default arguments."""

RATE, DECAY, CLIP = 1e-3, 0.01, 1.0
ADAM, ADAMW, SGD = "keras Adam", "keras AdamW", "keras SGD"
ADAMW_CLIPPING = "keras AdamW, clipping"
OURS = "keras_hybrid"
OURS_DECAY = "keras_hybrid, decay"
OURS_CLIPPING = "keras_hybrid, decay, clipping"
OURS_PROJECTION = "keras_hybrid, projection"
OURS_BLENDING = "keras_hybrid, during a blend"
OURS_SWITCHED = "keras_hybrid, after the switch"
# The updates before the switch of the last two.
ADAPTIVE_STEPS = 2


def makers():
    """Functions that make an optimizer, by its name."""
    # Not in the processes that only know the names.
    import keras

    from keras_hybrid import HybridOptimizer
    from keras_hybrid.transitions import Blend
    from keras_hybrid.triggers import AtStep

    adamw, sgd = keras.optimizers.AdamW, keras.optimizers.SGD
    trigger = AtStep(ADAPTIVE_STEPS)
    decay = {"weight_decay": DECAY}
    clipping = {**decay, "global_clipnorm": CLIP}
    return {
        ADAM: lambda: keras.optimizers.Adam(RATE),
        ADAMW: lambda: adamw(RATE, **decay),
        ADAMW_CLIPPING: lambda: adamw(RATE, **clipping),
        SGD: lambda: sgd(RATE, momentum=0.9),
        OURS: lambda: HybridOptimizer(RATE),
        OURS_DECAY: lambda: HybridOptimizer(RATE, **decay),
        OURS_CLIPPING: lambda: HybridOptimizer(RATE, **clipping),
        OURS_PROJECTION: lambda: HybridOptimizer(RATE, sgd_scale="projection"),
        OURS_BLENDING: lambda: HybridOptimizer(
            RATE, trigger=trigger, transition=Blend(10**6)
        ),
        OURS_SWITCHED: lambda: HybridOptimizer(RATE, trigger=trigger),
    }
