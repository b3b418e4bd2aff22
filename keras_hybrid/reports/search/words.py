"""What a search has found, in words, and against its references."""

from __future__ import annotations

import dataclasses
import math

from keras_hybrid.reports import texts
from keras_hybrid.reports.search.summary import Entry, Summary, counted
from keras_hybrid.reports.texts import MISSING, Verdict
from keras_hybrid.study.statistics import holm, paired_difference
from keras_hybrid.study.summary import Difference
from keras_hybrid.tuning.record import REFERENCES, Search


def finding(summary: Summary) -> str:
    """What won, in a sentence."""
    search, best = summary.search, summary.best
    if best is None:
        return (
            "No trial of the full budget has finished "
            f"({counted(len(summary.entries), 'trial')} begun): there is no "
            "best one."
        )
    ranked = sum(entry.rank is not None for entry in summary.entries)
    spread = (
        "one seed, so no spread"
        if best.spread is None
        else f"mean ± standard deviation over {len(best.scores)} seeds"
    )
    switch = (
        "it never switches"
        if best.switch is None
        else f"it switches at epoch {best.switch:.3g} of {best.trial.epochs}"
    )
    return (
        f"Best of {counted(ranked, 'complete trial')}: {best.label}, with "
        f"{search.objective} {summary.unit.score(best.mean, best.spread)}"
        f"{' %' if summary.unit.factor == 100 else ''} ({spread}); {switch}."
    )


def reference(search: Search) -> str | None:
    """That the recipe is no trial's, where it is a reference's."""
    label = REFERENCES.get(search.found.name)
    if label is None:
        return None
    return f"No trial did better than: {label}. The recipe is that."


def verdicts(summary: Summary) -> list[Verdict]:
    """What the best trial did against each reference."""
    best = summary.best
    if best is None:
        return []
    found: dict[str, Difference | None] = {}
    for name, entry in summary.references.items():
        common = best.scores.keys() & entry.scores.keys()
        found[name] = (
            Difference(
                entry.label,
                paired_difference(best.scores, entry.scores),
                math.nan,
            )
            if common
            else None
        )
    p_values = {
        name: d.paired.p_value
        for name, d in found.items()
        if d is not None and math.isfinite(d.paired.p_value)
    }
    if p_values:
        adjusted = holm(list(p_values.values()))
        for name, p_value in zip(p_values, adjusted, strict=True):
            difference = found[name]
            if difference is not None:
                found[name] = dataclasses.replace(difference, p_holm=p_value)
    return [
        _verdict(summary, best, summary.references[name], difference)
        for name, difference in found.items()
    ]


def _verdict(
    summary: Summary,
    best: Entry,
    reference: Entry,
    difference: Difference | None,
) -> Verdict:
    unit = summary.unit
    label = reference.label
    if difference is None:
        return Verdict(label, "unclear", "nothing to pair with", MISSING)
    paired = difference.paired
    # No interval for one seed, no test for equal differences.
    interval = (
        MISSING
        if math.isnan(paired.low)
        else f"{unit.number(paired.low, '+')}, {unit.number(paired.high, '+')}"
    )
    numbers = f"{unit.number(paired.mean, '+')} [{interval}]"
    if unit.factor == 100:
        numbers += " points"
    if math.isfinite(difference.p_holm):
        p = texts.p_text(difference)
        numbers += f", p {p}" if p.startswith("<") else f", p = {p}"
    if best.trial.plan == reference.trial.plan and best.scores == (
        reference.scores
    ):
        return Verdict(label, "unclear", "the same as", numbers)
    if paired.seeds == 1:
        words = "not shown to be better (one seed) than"
        return Verdict(label, "unclear", words, numbers)
    if not difference.is_clear:
        if summary.search.sign * paired.mean > 0:
            numbers += f" over {paired.seeds} seeds: may be chance"
        return Verdict(label, "unclear", "not better than", numbers)
    if summary.search.sign * paired.mean > 0:
        return Verdict(label, "higher", "better than", numbers)
    return Verdict(label, "lower", "worse than", numbers)
