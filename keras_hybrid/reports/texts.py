"""How numbers, differences and names read in every report."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

from keras_hybrid.study.statistics import Interval
from keras_hybrid.study.summary import Difference

MISSING = "–"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One comparison in words.

    Attributes:
        reference: With what, e.g. "control" or "best baseline".
        direction: "higher", "lower" or "unclear".
        words: What to think of the difference.
        figures: The difference with its interval, p and missing pairs.
    """

    reference: str
    direction: str
    words: str
    figures: str


def number(value: float | None, digits: int) -> str:
    """A number with so many digits after the point."""
    return MISSING if value is None else f"{value:.{digits}f}"


def percent(interval: Interval | None) -> Interval | None:
    """An interval of fractions in percent."""
    if interval is None:
        return None
    return Interval(*(100 * bound for bound in interval))


def interval_text(interval: Interval | None, digits: int) -> str:
    """A mean and its interval; without bounds, that they are missing."""
    if interval is None:
        return MISSING
    if math.isnan(interval.low):
        return f"{interval.mean:.{digits}f} [{MISSING}]"
    return (
        f"{interval.mean:.{digits}f} "
        f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    )


def difference_text(difference: Difference | None) -> str:
    """A difference in points with its interval."""
    if difference is None:
        return MISSING
    mean, low, high = (100 * x for x in difference.paired[:3])
    if math.isnan(low):
        return f"{mean:+.2f} [{MISSING}]"
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def p_text(difference: Difference | None) -> str:
    """The adjusted p of a difference."""
    if difference is None or math.isnan(difference.p_holm):
        return MISSING
    if difference.p_holm < 0.001:
        return "< 0.001"
    return f"{difference.p_holm:.3f}"


def markdown_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in GitHub-flavoured Markdown, its texts escaped.

    Args:
        header: Titles of the columns.
        rows: As many texts each.

    Returns:
        Lines, without a newline at the end.

    Example:
    >>> from keras_hybrid.reports import texts
    >>> texts.markdown_lines(["Arm", "%"], [["SGD", "–"]]).splitlines()
    ['| Arm | % |', '| --- | --- |', '| SGD | – |']
    """
    lines = [
        header,
        ["---"] * len(header),
        *([escaped_markdown(text) for text in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped_markdown(text: str) -> str:
    """One line in which nothing of a name is taken for markup."""
    return re.sub(r"([\\`*\[\]|<>&])", r"\\\1", " ".join(text.split()))
