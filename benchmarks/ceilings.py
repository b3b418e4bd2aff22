"""Epochs as a ceiling, as tables: python benchmarks/ceilings.py [KIND].

KIND is "defaults", where no learning rate is tuned (Adam's and its kin's are
the libraries' own; SGD's is 0.05, with the study's momentum and weight decay),
or "ceiling", where each arm's is.
"""

import sys
from pathlib import Path

import numpy as np

from keras_hybrid._support import checks
from keras_hybrid.reports import contrasts, glance
from keras_hybrid.reports.texts import MISSING
from keras_hybrid.study.results import load_runs
from keras_hybrid.study.summary import cell_of, finished_runs, group

FOLDER = Path(__file__).parent.parent / "results" / "until-done"
OURS = "until_done"
# How often a kind's differences are looked at in all: after 5, 10 and 20 seeds.
LOOKS = {"defaults": 3, "ceiling": 1}


def runs_of(kind):
    """The runs of the cells of a kind; cells without TrainUntilDone wait."""
    checks.choice("kind", kind, tuple(LOOKS))
    runs, _ = load_runs(FOLDER)
    runs = [r for r in runs if r.configuration["regime"].endswith(f"-{kind}")]
    begun = {cell_of(r) for r in finished_runs(runs) if r.arm == OURS}
    return [run for run in runs if cell_of(run) in begun]


def table(kind):
    """Over all cells, then arms in rows, a table a cell."""
    runs = runs_of(kind)
    cells = sorted(group(runs, cell_of).items())
    found = {
        arm: contrast
        for arm in group(runs, lambda run: run.arm)
        if arm != OURS
        and (contrast := contrasts.contrast(runs, OURS, arm, LOOKS[kind]))
    }
    lines = [
        "| TrainUntilDone minus | mean over the cells, points | 95 % interval "
        "| clearly higher in | clearly lower in | its epochs, of this one's |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_over_cells(cells, arm, each) for arm, each in found.items()),
        "",
    ]
    for cell, own in cells:
        lines += [
            f"**{own[0].dataset} {own[0].configuration['regime']}, "
            f"{own[0].architecture}, at most {own[0].epochs} epochs**",
            "",
            "| | test accuracy, % | epochs | TrainUntilDone minus this, points "
            "| 95 % interval |",
            "| --- | --- | --- | --- | --- |",
            *_rows(own, {k: v.cells.get(cell) for k, v in found.items()}),
            "",
        ]
    return "\n".join(lines).strip()


def _over_cells(cells, arm, found):
    shares, label = [], arm
    for _, runs in cells:
        by_arm = group(runs, lambda run: run.arm)
        if finished_runs(by_arm.get(arm, [])):
            label = by_arm[arm][0].configuration["label"]
            shares.append(_epochs(by_arm[OURS]) / _epochs(by_arm[arm]))
    mean, count = found.mean, len(found.cells)
    return (
        f"| {label} | {100 * mean.mean:+.2f} "
        f"| {contrasts.bounds(mean.low, mean.high)} "
        f"| {found.clearly(1)} of {count} | {found.clearly(-1)} of {count} "
        f"| {np.mean(shares):.0%} |"
    )


def _epochs(runs):
    return np.mean([len(r.history["val_loss"]) for r in finished_runs(runs)])


def _rows(runs, found):
    for arm, own in group(runs, lambda run: run.arm).items():
        finished = finished_runs(own)
        label = own[0].configuration["label"]
        if len(finished) < len(own):
            label += f" ({len(own) - len(finished)} of {len(own)} diverged)"
        if not finished:
            yield f"| {label} | {MISSING} | {MISSING} |  |  |"
            continue
        accuracy = 100 * np.mean([run.test_accuracy for run in finished])
        shown = ["", ""]
        if arm != OURS and found.get(arm):
            difference = found[arm].difference
            entry = glance.entry(difference)
            low, high = difference.paired.low, difference.paired.high
            shown = [f"{entry.mark} {entry.text}", contrasts.bounds(low, high)]
        yield (
            f"| {label} | {accuracy:.2f} | {_epochs(own):.1f} "
            f"| {' | '.join(shown)} |"
        )


if __name__ == "__main__":
    print(table(*sys.argv[1:] or ["defaults"]))
