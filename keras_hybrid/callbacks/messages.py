"""What the switching callbacks say: the plan, what it saved, who interferes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

from keras_hybrid.callbacks.memory import Memory
from keras_hybrid.optimizer import HybridOptimizer
from keras_hybrid.triggers import EpochTrigger

# The rate is the cool-down's last, so another `fit` alone learns nothing.
GO_ON = (
    "To train on, `fit` with TrainUntilDone again or call `optimizer.restart()`"
    " before."
)

NO_NEW_BEST = (
    "the validation loss of the averaged weights has had no new best for {} "
    "epochs"
)

PIECE = (
    "`fit(epochs=1)` is taken for a piece of a longer training: there is no "
    "ceiling, and `done` of the callback tells when to end."
)


def plan(optimizer: HybridOptimizer, steps_per_epoch: float | None) -> str:
    """Says where the switch was and when the cool-down will end."""
    switched_at, end = optimizer.switch_step, optimizer.cooldown_end
    if switched_at is None or end is None:
        return "Switched."
    begins = (
        f"Switched to SGD at update {switched_at}"
        if optimizer.transition.end
        else f"Adam goes on from update {switched_at}"
    )
    text = (
        f"{begins}; the learning rate cools down over {end - switched_at} "
        "updates"
    )
    if steps_per_epoch is None:
        return f"{text}."
    accumulated = optimizer.gradient_accumulation_steps or 1
    left = (end - optimizer.updates_made) * accumulated / steps_per_epoch
    return f"{text}, {left:.1f} epochs from here."


def _saved(ran: int, ceiling: float, seconds_an_epoch: float) -> str:
    """Says what was saved against the ceiling, as the end of a sentence."""
    spared = seconds_an_epoch * (ceiling - ran)
    return (
        f" of {ceiling}: {ceiling - ran} epochs "
        f"({(ceiling - ran) / ceiling:.0%}) saved, about {_duration(spared)}"
    )


def warn_of_other_stop(optimizer: HybridOptimizer, ran: int) -> None:
    """Warns that another callback has stopped the training."""
    where = (
        "in the cool-down, at "
        f"{optimizer.cooldown_factor:.0%} of the learning rate"
        if optimizer.has_switched
        else "before the switch"
    )
    warnings.warn(
        f"Another callback (EarlyStopping?) stopped the training in epoch "
        f"{ran}, {where}. TrainUntilDone stops by itself once its "
        "cool-down is over, which is worth more than the epochs it takes: "
        "leave the other out, or give it a longer patience.",
        stacklevel=2,
    )


def better(memory: Memory, score: float) -> str:
    """Says that the average's best weights are in the model."""
    return (
        f"The averaged weights of epoch {memory.best_epoch} are better on "
        f"the validation data (val_{memory.judge} {memory.best:.4f}, at "
        f"the end {score:.4f}): the model has these."
    )


def warn_of_divergence(epoch: int, switched: bool, best_epoch: int) -> None:
    """Warns that weights became infinite or NaN.

    Args:
        epoch: Counted from 0.
        switched: Whether behind the switch.
        best_epoch: Whose averaged weights the model gets; 0: there are none.
    """
    where, cause = "before", "Look for such a number in the data. "
    if switched:
        where, cause = "behind", ""
    what = (
        f"the model gets the averaged weights of epoch {best_epoch}"
        if best_epoch
        else "there are no averaged weights that the model could get"
    )
    warnings.warn(
        f"After epoch {epoch + 1}, {where} the switch, a weight of the model "
        f"is not finite: TrainUntilDone ends the training here, and {what}. "
        f"{cause}The optimizer's moments are lost: compile the model again "
        "before another `fit`. DivergenceGuard() beside it goes back to the "
        "last good update instead, and behind the switch goes on with smaller "
        "steps.",
        stacklevel=2,
    )


def no_loss(logs: Iterable[str]) -> str:
    """Says what to do for a model that logs no loss of that name."""
    return (
        "By default TrainUntilDone goes by `loss` and `val_loss`. Give it a "
        "trigger on a metric of your model, such as "
        "TrainUntilDone(Plateau('val_total_loss', mode='min')). Available: "
        f"{', '.join(sorted(logs)) or 'nothing'}"
    )


def done(ran: int, ceiling: float, first: int, seconds: float) -> str:
    """Says that the training is done, and what was saved of the ceiling.

    Args:
        ran: Epochs, with those of earlier fits.
        ceiling: Epochs that it had; infinite in pieces.
        first: Epoch, counted from 0, with which this `fit` began.
        seconds: That this `fit` took.
    """
    text = f"Done in epoch {ran}"
    if math.isfinite(ceiling) and ceiling > ran:
        text += _saved(ran, ceiling, seconds / max(ran - first, 1))
    return f"{text}. {GO_ON}"


def warn_of_validation() -> None:
    """Warns that the validation alone has a loss that is no number."""
    warnings.warn(
        "The validation loss is not finite, and the training's is: look at the "
        "validation data. TrainUntilDone cannot compare weights on them.",
        stacklevel=2,
    )


def warn_of_no_validation(epoch: int) -> None:
    """Warns that what the training ends with was not compared."""
    warnings.warn(
        f"The training ended with epoch {epoch + 1}, and this `fit` has not "
        "validated (a piece without validation data, or one resumed with "
        "`validation_freq`): the model keeps the weights that the cool-down "
        "ended with, without a comparison with the averaged ones.",
        stacklevel=2,
    )


def warn_of_other_weights(epoch: int) -> None:
    """Warns that the averaged weights are in the model no more."""
    warnings.warn(
        "Another callback (EarlyStopping(restore_best_weights=True)?) has put "
        "weights of its own into the model, in place of the averaged weights "
        f"of epoch {epoch} that TrainUntilDone gave it: leave the other out.",
        stacklevel=2,
    )


def warn_of_other_rate(before: float, now: float, epoch: int) -> None:
    """Warns that something else changes the learning rate."""
    warnings.warn(
        f"The learning rate fell from {before:.3g} to {now:.3g} "
        f"in epoch {epoch + 1}: a schedule or another callback "
        "(ReduceLROnPlateau, LearningRateScheduler) changes it. "
        "TrainUntilDone cools down by itself, from a constant rate: "
        "leave the other out.",
        stacklevel=2,
    )


def warn_of_no_estimate(trigger: EpochTrigger | None, finite: bool) -> None:
    """Warns that a switch has no SGD learning rate; why, `finite` tells."""
    cause = "The callback" if trigger is None else trigger
    why = (
        "the estimate of the SGD learning rate is not a positive "
        "number (or no update has been made that gives one, or a "
        "cool-down its length)"
        if finite
        else "a weight of the model is not a finite number"
    )
    warnings.warn(
        f"{cause!r} would switch, and {why}: the training stays "
        "adaptive, and the trigger is asked again after the next "
        "epoch.",
        stacklevel=2,
    )


def warn_of_rest(optimizer: HybridOptimizer) -> None:
    """Warns of a `fit` whose last updates have a learning rate of 0."""
    cooldown, end = optimizer.cooldown, optimizer.cooldown_end
    if cooldown is None or cooldown.share is None or cooldown.final > 0:
        return
    whole = optimizer.training_steps
    if end is not None and whole is not None and end < whole < math.inf:
        warnings.warn(
            f"The cool-down ends at update {end}, and `fit` at {whole:.0f}: "
            f"from there on the learning rate is 0. {cooldown!r}, a share of "
            "the updates before it, is for TrainUntilDone, which stops then, "
            "and leaves it in the optimizer. For a cool-down until the end "
            "assign `optimizer.cooldown = Cooldown()` before `fit`.",
            stacklevel=2,
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
