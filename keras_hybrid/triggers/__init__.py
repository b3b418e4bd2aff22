"""When: step triggers run inside the compiled update, epoch triggers on logs.

Step triggers are pure: `init` gives their state for a number of groups,
`update` takes that state and the statistics of the update just made and says
which groups switch before the next one. The optimizer keeps the state.

Epoch triggers take plain numbers: `update(value)` once an epoch says whether
the condition holds. `SwitchCallback` feeds them from the logs and keeps their
state in the optimizer, so that whatever restores the optimizer restores them.

Triggers of one family compose: `a | b` holds where either does, `a & b` where
both do in the same update or epoch.
"""

from keras_hybrid.triggers.base import (
    SUMS,
    EpochTrigger,
    Signals,
    StepTrigger,
    Trigger,
)
from keras_hybrid.triggers.combined import (
    AllEpochs,
    AllSteps,
    AnyEpoch,
    AnyStep,
)
from keras_hybrid.triggers.epoch import (
    AtEpoch,
    GeneralizationGap,
    MetricReached,
    Plateau,
    Slope,
)
from keras_hybrid.triggers.step import (
    AtStep,
    GradientSignalToNoise,
    ProjectionConverged,
)

__all__ = [
    "AllEpochs",
    "AllSteps",
    "AnyEpoch",
    "AnyStep",
    "AtEpoch",
    "AtStep",
    "EpochTrigger",
    "GeneralizationGap",
    "GradientSignalToNoise",
    "MetricReached",
    "Plateau",
    "ProjectionConverged",
    "SUMS",
    "Signals",
    "Slope",
    "StepTrigger",
    "Trigger",
]
