"""What DivergenceGuard keeps in the optimizer, for a restart."""

from __future__ import annotations

from keras_hybrid.optimizer import HybridOptimizer


class GuardRecord:
    """Its counts and its cut, in the optimizer's variables.

    Args:
        optimizer: A built one.
    """

    def __init__(self, optimizer: HybridOptimizer) -> None:
        self._state = optimizer.state

    @property
    def divergences(self) -> int:
        """Divergences of the training so far."""
        return int(self._state.guard_counts.numpy()[0])

    @property
    def usual_loss(self) -> float:
        """The loss that is usual, 0 while it is not known."""
        return float(self._state.usual_loss.numpy())

    @usual_loss.setter
    def usual_loss(self, loss: float) -> None:
        self._state.usual_loss.assign(loss)

    @property
    def scale_cut(self) -> float:
        """What its tries have left of SGD's scale."""
        return float(self._state.scale_cut.numpy())

    def begin_training(self) -> None:
        """Forgets the usual loss and the tries of the training before."""
        self.usual_loss = 0
        self.forget_tries()

    def forget_tries(self) -> None:
        """Has the tries count anew."""
        self._state.guard_counts.assign([self.divergences, 0])

    def diverged(self) -> int:
        """Counts a divergence; returns the tries from one snapshot."""
        divergences, tries = (self._state.guard_counts.numpy() + 1).tolist()
        self._state.guard_counts.assign([divergences, tries])
        return int(tries)

    def cut(self, factor: float) -> float:
        """Cuts SGD's scale; returns what is left of it."""
        self._state.scale_cut.assign(self.scale_cut * factor)
        return self.scale_cut
