"""Where an axis begins and ends, so that what matters can be told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

Array = npt.NDArray[np.float64]


def limits(values: Array, *, lower_is_better: bool) -> tuple[float, float]:
    """An axis for scores; it leaves out those far worse than most."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    sign = -1 if lower_is_better else 1
    signed = sign * values
    best, quarter = signed.max(), np.quantile(signed, 0.25)
    worst = signed.min()
    if best > quarter:
        worst = max(worst, quarter - 2 * (best - quarter))
    margin = 0.08 * (best - worst) or 0.01 * abs(best) or 0.01
    ends = (sign * (worst - margin), sign * (best + margin))
    return float(min(ends)), float(max(ends))


def crop(axes: Axes, means: Sequence[Array], *, lower_is_better: bool) -> None:
    """Cuts the worst quarter of the means off: the steep first epochs."""
    values = np.concatenate(means) if means else np.empty(0)
    values = values[np.isfinite(values)]
    if not values.size:
        return
    sign = -1 if lower_is_better else 1
    worst, best = np.quantile(sign * values, 0.25), (sign * values).max()
    margin = 0.06 * (best - worst)
    if margin > 0:
        ends = (sign * (worst - margin), sign * (best + 2 * margin))
        axes.set_ylim(min(ends), max(ends))


def set_log(axes: Axes) -> None:
    """A logarithmic height, ticks at 1, 2, 5, written as plain numbers."""
    if not np.isfinite(axes.dataLim.intervaly).all():
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def drawable(values: npt.ArrayLike, *, log: bool) -> Array:
    """A logarithmic axis has no place for 0 and below."""
    array = np.asarray(values, dtype=float)
    return np.where(array > 0, array, np.nan) if log else array
