"""Which cool-down: curves and shares from the same switch.

    nice -n 19 python benchmarks/cooldowns.py [--cells mnist-under-fit,...]
        [--seeds 100] [--epoch 6]

A constant phase a cell and seed, Adam at 1e-3, and from the end of one epoch
a tail for each curve and each share of the epochs so far. Writes one JSON a run
in results/cooldowns, which `keras-hybrid pack results/cooldowns` puts into its
table; what is in either is not trained again. Prints the mean final accuracies
of each cell, and of all.
"""

import argparse
import itertools
import statistics
from pathlib import Path

from keras_hybrid import HybridOptimizer
from keras_hybrid._support import files, records
from keras_hybrid._support.versions import versions
from keras_hybrid.study import cells, tails
from keras_hybrid.transitions import COOLDOWN_CURVES, Cooldown

FORMAT = 1
FOLDER = Path(__file__).parents[1] / "results" / "cooldowns"
SHARES = (0.2, 0.33, 0.5, 1.0)
LEARNING_RATE = 1e-3


def measure(cell, data, seed, epoch):
    """Trains to the end of an epoch, and every tail from there."""
    # With a cool-down from the start: its state is then there.
    optimizer = HybridOptimizer(LEARNING_RATE, cooldown=Cooldown(share=1.0))
    training = tails.Training(cell, data, seed, optimizer)
    for _ in range(epoch):
        training.train()
    return {
        "cell": cell.name,
        "seed": seed,
        "epoch": epoch,
        "learning_rate": LEARNING_RATE,
        "before": {s: training.scores(s)["accuracy"] for s in ("val", "test")},
        "tails": [
            {
                "curve": curve,
                "share": share,
                "accuracy": training.tail(Cooldown(curve, share=share)),
            }
            for curve, share in itertools.product(COOLDOWN_CURVES, SHARES)
        ],
        "versions": versions(),
    }


def table(every, kind):
    """A line a curve and cell, the mean of its runs; a column a share."""
    lines = [["cell", "curve", *(f"share {share:g}" for share in SHARES)]]
    lines.append(["---"] * len(lines[0]))
    of_cell = {}
    for record in every:
        of_cell.setdefault(record["cell"], []).append(record)
    means = [
        (f"{cell}, {len(runs)} seeds", _means(runs, kind))
        for cell, runs in sorted(of_cell.items())
    ]
    for name, found in [*means, ("mean of the runs", _means(every, kind))]:
        for curve in COOLDOWN_CURVES:
            texts = [f"{found[curve, share]:.2f}" for share in SHARES]
            lines.append([name, curve, *texts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _means(runs, kind):
    """The mean accuracy of each curve and share, %."""
    found = {}
    for run in runs:
        for tail in run["tails"]:
            found.setdefault((tail["curve"], tail["share"]), []).append(
                100 * tail["accuracy"][kind]
            )
    return {key: statistics.fmean(ends) for key, ends in found.items()}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", default="mnist-over-fit,mnist-under-fit")
    parser.add_argument("--seeds", default="100")
    parser.add_argument("--epoch", type=int, default=6)
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    found = []
    for name in options.cells.split(","):
        cell = cells.CEILINGS[name]
        for seed in map(int, options.seeds.split(",")):
            path = options.output / f"{name}-epoch{options.epoch}-seed{seed}"
            path = path.with_suffix(".json")
            if not records.exists(path):
                data = cell.load(options.data_dir)
                record = measure(cell, data, seed, options.epoch)
                files.write_json(path, {"format": FORMAT, **record})
            found.append(records.read(path, FORMAT, "cool-down record"))
            print(path.name, flush=True)
    for kind in ("val", "test"):
        print(f"\nFinal accuracy, {kind}, %\n\n{table(found, kind)}")


if __name__ == "__main__":
    main()
