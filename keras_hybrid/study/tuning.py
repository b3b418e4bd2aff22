"""The learning rate of an arm: a logarithmic grid, widened at its edges."""

from __future__ import annotations

import math
from collections.abc import Mapping

# Trials an arm gets; more only while the best is at an edge, one less where
# both quarters of a decade beside the best are known.
TRIALS = 5
_MOST_TRIALS = 9
# Steps of the grid: quarters of a decade.
_PER_DECADE = 4


def learning_rate(place: int) -> float:
    """Returns 10^(place / 4) with two significant digits."""
    return float(f"{10 ** (place / _PER_DECADE):.1e}")


def start(center: float) -> int:
    """Returns the place of the grid nearest to a learning rate."""
    return round(_PER_DECADE * math.log10(center))


def next_place(scores: Mapping[int, float], center: int) -> int | None:
    """Returns the next place of the grid to try, or None: it is done.

    First the center and half a decade to both sides; then, while the best is
    at an edge, half a decade beyond it; else the quarter of a decade beside
    the best on its better side, and on the other, until there are `TRIALS`
    trials or nothing is left there.

    Args:
        scores: Place -> score, higher is better; -inf where it diverged.
        center: The place to begin with.

    Example:
    >>> from keras_hybrid.study import tuning
    >>> tuning.next_place({0: 0.1, -2: 0.3, 2: 0.0}, center=0)
    -4
    >>> tuning.next_place({0: 0.3, -2: 0.2, 2: 0.1}, center=0)
    -1
    """
    for place in (center, center - 2, center + 2):
        if place not in scores:
            return place
    best = best_place(scores)
    if len(scores) < _MOST_TRIALS:
        if best == min(scores):
            return best - 2
        if best == max(scores):
            return best + 2
    if len(scores) >= TRIALS:
        return None

    def beyond(side: int) -> float:
        """The score of the neighbour on a side."""
        neighbours = [p for p in scores if (p - best) * side > 0]
        return scores[min(neighbours, key=lambda p: abs(p - best))]

    for side in sorted((-1, 1), key=beyond, reverse=True):
        if best + side not in scores:
            return best + side
    return None


def best_place(scores: Mapping[int, float]) -> int:
    """Returns the place with the highest score; of equal ones the lowest."""
    return max(sorted(scores), key=lambda place: scores[place])
