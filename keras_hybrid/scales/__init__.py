"""How fast: what m is multiplied with in the SGD phase, rho.

SGD's update is w <- w - learning_rate * rho * m. A scale says where rho comes
from: from Adam's own steps p = m_hat / (sqrt(v_hat) + epsilon), at the switch
(`Slots`) or averaged before it (`Projection`, `Swats`, `Norm`, `Momentum`), or
from the user (`Number`, `LearningRate`). Scales are pure: settings in, tensors
out; the optimizer keeps their state.
"""

from keras_hybrid.scales.averaged import Momentum, Norm, Projection, Swats
from keras_hybrid.scales.base import Scale
from keras_hybrid.scales.given import LearningRate, Number
from keras_hybrid.scales.slots import Slots

__all__ = [
    "LearningRate",
    "Momentum",
    "Norm",
    "Number",
    "Projection",
    "Scale",
    "Slots",
    "Swats",
]
