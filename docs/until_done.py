"""Draws README's picture from the records: docs/until_done.svg.

python docs/until_done.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_hybrid.study.record import Run
from keras_hybrid.study.summary import load_runs, summary

DOCS = Path(__file__).parent
RECORDS = DOCS.parent / "results" / "compare-ceiling"
PICTURE = DOCS / "until_done.svg"
CONSTANT, STOPPED, DONE = "adam_constant", "adam_stop", "until_done"
NAMES = {
    CONSTANT: "Adam, constant",
    STOPPED: "EarlyStopping",
    DONE: "TrainUntilDone",
}
# Blue to vermilion, apart for the colour-blind and in grey.
COLOURS = {CONSTANT: "#9A9A9A", STOPPED: "#3D3D3D", DONE: "#00509B"}
SGD = "#E8590C"
# Text stays text, and the same records give the same bytes.
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "keras_hybrid",
    "font.size": 10,
}


def labels(runs: list[Run]) -> dict[str, str]:
    """What the legend says of each arm: epochs and test accuracy, means."""
    rows = {row.arm: row for row in summary(runs)}
    return {
        arm: f"{name}: {rows[arm].epochs_used:.1f} epochs, "
        f"{100 * rows[arm].test_accuracy.mean:.2f} % test accuracy"
        for arm, name in NAMES.items()
    }


def draw(runs: list[Run], path: Path) -> None:
    """Draws the validation loss of every seed, epoch by epoch."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(7, 3.9), layout="constrained")
        axes = figure.subplots()
        for run in runs:
            if run.arm in NAMES:
                _draw_run(axes, run)
        for arm, label in labels(runs).items():
            axes.plot(
                [],
                [],
                color=COLOURS[arm],
                marker="x" if arm == STOPPED else None,
                linestyle="none" if arm == STOPPED else "-",
                label=label,
            )
        axes.plot(
            [], [], color=SGD, label="its SGD, from the switch to the end"
        )
        axes.set_xlabel("epoch, of a ceiling of 30")
        axes.set_ylabel("validation loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        figure.savefig(path, metadata={"Date": None})


def _draw_run(axes: Any, run: Run) -> None:
    """One seed; of EarlyStopping, which is on Adam's line, the end alone."""
    loss = run.history["val_loss"]
    epochs = range(1, len(loss) + 1)
    colour = COLOURS[run.arm]
    if run.arm == STOPPED:
        axes.plot(epochs[-1], loss[-1], "x", color=colour, zorder=4)
    elif run.arm == CONSTANT:
        axes.plot(epochs, loss, color=colour, linewidth=1)
    else:
        # The last epoch of Adam is the first point of SGD's line.
        switch = round(run.switch_epoch) - 1
        axes.plot(epochs[: switch + 1], loss[: switch + 1], color=colour)
        axes.plot(epochs[switch:], loss[switch:], color=SGD, zorder=3)
        axes.plot(epochs[-1], loss[-1], "o", color=SGD, markersize=4, zorder=3)


def main() -> None:
    """Reads the command line and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PICTURE)
    runs, _ = load_runs(RECORDS)
    draw(runs, parser.parse_args().output)


if __name__ == "__main__":
    main()
