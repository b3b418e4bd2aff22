"""The cells without tuning as a table: python benchmarks/untuned.py."""

from pathlib import Path

import numpy as np

from keras_hybrid.reports import contrasts, glance
from keras_hybrid.study.results import load_runs
from keras_hybrid.study.summary import cell_of, group

FOLDER = Path(__file__).parent.parent / "results" / "until-done"
OURS = "until_done"


def table(folder=FOLDER):
    """Arms in rows, a table a cell; TrainUntilDone minus each."""
    runs, _ = load_runs(folder)
    lines = []
    for _, own in sorted(group(runs, cell_of).items()):
        lines += [
            f"**{own[0].dataset} {own[0].configuration['regime']}, "
            f"{own[0].architecture}, at most {own[0].epochs} epochs**",
            "",
            "| | test accuracy, % | epochs | TrainUntilDone minus this, points "
            "| 95 % interval |",
            "| --- | --- | --- | --- | --- |",
            *_rows(own),
            "",
        ]
    return "\n".join(lines).strip()


def _rows(runs):
    for arm, own in group(runs, lambda run: run.arm).items():
        accuracy = 100 * np.mean([run.test_accuracy for run in own])
        epochs = np.mean([len(run.history["val_loss"]) for run in own])
        shown = ["", ""]
        if arm != OURS:
            found = contrasts.contrast(runs, OURS, arm)
            (difference,) = (x.difference for x in found.cells.values())
            entry = glance.entry(difference)
            low, high = difference.paired.low, difference.paired.high
            shown = [f"{entry.mark} {entry.text}", contrasts.bounds(low, high)]
        label = own[0].configuration["label"]
        yield (
            f"| {label} | {accuracy:.2f} | {epochs:.1f} | {' | '.join(shown)} |"
        )


if __name__ == "__main__":
    print(table())
