"""Who else changes the learning rate."""

from __future__ import annotations

from keras_hybrid.callbacks import messages


class RateWatch:
    """Warns, once in a `fit`, where the constant learning rate falls."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._warned = False

    def see(self, epoch: int, rate: float) -> None:
        """Takes the rate of an epoch, without the cool-down's factor."""
        if self._warned:
            return
        if self._last is not None and rate < self._last:
            messages.warn_of_other_rate(self._last, rate, epoch)
            self._warned = True
        self._last = rate
