"""Arms: the ways of training that are compared.

`ARMS` are those of `keras-hybrid compare`, at usual learning rates and without
weight decay. `STUDY` are those of the study, each with its learning rate tuned
and the weight decay that is usual for its family. `VARIANTS` are the hybrids
from which the study chose.
"""

from keras_hybrid.study.arms.arm import (
    ADAM_LEARNING_RATE,
    SHORT,
    Arm,
    Budget,
    Made,
)
from keras_hybrid.study.arms.tuned import (
    ADAM_DECAY,
    BASELINES,
    CONTROLS,
    HYBRIDS,
    LATEST,
    SGD_DECAY,
    SHORTENED,
    SLOTS,
    STUDY,
)
from keras_hybrid.study.arms.usual import (
    ARMS,
    CEILING,
    DEFAULT_ARMS,
    MOMENTUM,
    SGD_LEARNING_RATE,
)
from keras_hybrid.study.arms.variants import VARIANTS

__all__ = [
    "ADAM_DECAY",
    "ADAM_LEARNING_RATE",
    "ARMS",
    "BASELINES",
    "CEILING",
    "CONTROLS",
    "DEFAULT_ARMS",
    "HYBRIDS",
    "LATEST",
    "MOMENTUM",
    "SGD_DECAY",
    "SGD_LEARNING_RATE",
    "SHORT",
    "SHORTENED",
    "SLOTS",
    "STUDY",
    "VARIANTS",
    "Arm",
    "Budget",
    "Made",
]
