"""Where each trigger would have switched, and what that costs.

    nice -n 19 python benchmarks/regret.py [--cells mnist-under-fit,...]
        [--seeds 100,101] [--kind val_accuracy]

A constant phase a cell and seed, Adam at 1e-3, and a cool-down (half of the
epochs so far) from the ends of its epochs. The ceiling is twice the epochs that
the study's cosine gets. Writes one JSON a run in results/regret; what is there
is not trained again. Prints the regret of each rule: the best point of the
curve minus where it landed, in points of accuracy.
"""

import argparse
from pathlib import Path

import numpy as np

from keras_hybrid.study import cells, regret

FOLDER = Path(__file__).parents[1] / "results" / "regret"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", default=",".join(cells.CEILINGS))
    parser.add_argument("--seeds", default="100,101")
    parser.add_argument("--kind", default="val_accuracy")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    of_cell = {}
    for name in options.cells.split(","):
        cell, data = cells.CEILINGS[name], None
        for seed in seeds:
            path = options.output / f"{name}-seed{seed}.json"
            if not path.exists():
                data = data or cell.load(options.data_dir)
                ceiling = 2 * cell.epochs
                latest = int(ceiling / (1 + regret.SHARE))
                regret.measure(
                    cell, data, seed, ceiling, regret.grid(latest)
                ).save(path)
            of_cell.setdefault(name, []).append(regret.Curve.load(path))
            print(path.name, flush=True)
    table = {
        name: regret.regrets(curves, options.kind)
        for name, curves in of_cell.items()
    }
    print(f"{'rule':60}", *(f"{name[:16]:>17}" for name in table), "mean worst")
    for rule in regret.RULES:
        lost, texts = [], []
        for found in table.values():
            mean = np.mean([points for _, points in found[rule]])
            at = np.mean([landing.switched for landing, _ in found[rule]])
            used = np.mean([landing.epochs for landing, _ in found[rule]])
            lost.append(mean)
            texts.append(f"{mean:6.2f} {at:4.1f}/{used:5.1f}")
        print(
            f"{rule:60}",
            *(f"{text:>17}" for text in texts),
            f"{np.mean(lost):5.2f} {max(lost):5.2f}",
        )


if __name__ == "__main__":
    main()
