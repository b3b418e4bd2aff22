"""Where each trigger would have switched, and what that costs.

    nice -n 19 python benchmarks/regret.py [--cells mnist-under-fit,...]
        [--seeds 100,101] [--looks 1] [--watch] [--figure FILE] [--page FILE]
    python benchmarks/regret.py --recorded [--figure FILE] [--page FILE]

A constant phase a cell and seed, Adam at 1e-3, and a cool-down (half of the
epochs so far) from the ends of its epochs. The ceiling is twice the epochs that
the study's cosine gets. Writes one JSON a run in results/regret, which
`keras-hybrid pack results/regret` puts into its table; what is in either is not
trained again. `--watch` adds to records that lack it when step triggers
would have fired: their constant phase again. Prints the regret of each rule:
the best point of the curve minus where it landed, in points of accuracy.
`--looks 4` looks four times in an epoch, and counts in looks wherever it says
epochs: for long epochs.
`--recorded` trains nothing: it prints and draws the fresh seeds of what is
there, as the site has them. `--figure docs/regret.svg` draws the curves into
that file, and `--page regret.html` makes a page with every rule.
"""

import argparse
import functools
from pathlib import Path

from keras_hybrid._support import checks, files, records
from keras_hybrid.reports import figures
from keras_hybrid.reports import regret as pictures
from keras_hybrid.study import cells, curves, regret

FOLDER = Path(__file__).parents[1] / "results" / "regret"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", default=",".join(cells.CEILINGS))
    parser.add_argument("--seeds", default="100,101")
    parser.add_argument("--looks", type=int, default=1)
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--recorded", action="store_true")
    parser.add_argument("--figure", type=Path, default=None)
    parser.add_argument("--page", type=Path, default=None)
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    names = curves.STEP_TRIGGERS.keys()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    of_cell: dict[str, list[curves.Curve]] = {}
    if options.recorded:
        of_cell = regret.fresh(regret.load(options.output))
        if not of_cell:
            raise SystemExit(f"no records of fresh seeds in {options.output}")
    for name in options.cells.split(","):
        checks.choice("cells", name, tuple(cells.CEILINGS))
    for name in options.cells.split(",") if not options.recorded else []:
        cell = cells.CEILINGS[name]
        ceiling = 2 * cell.epochs * options.looks
        if options.looks > 1:
            cell = cell._replace(regime=f"{cell.regime}-looks{options.looks}")
        load = functools.cache(functools.partial(cell.load, options.data_dir))
        for seed in seeds:
            path = options.output / f"{cell.name}-seed{seed}.json"
            if not records.exists(path):
                grid = curves.grid(int(ceiling / (1 + curves.SHARE)))
                curves.measure(
                    *(cell, load(), seed, ceiling, grid), looks=options.looks
                ).save(path)
            curve = curves.Curve.load(path)
            if options.watch and curve.fired.keys() != names:
                curve = curves.watch_again(curve, cell, load())
                curve.save(path)
            of_cell.setdefault(cell.name, []).append(curve)
            print(path.name, flush=True)
    for kind in ("val_accuracy", "test_accuracy"):
        print(f"\nRegret in points of {kind}\n")
        print(regret.briefly(of_cell, kind))
        print("\nBy cell: switch epoch / epochs trained\n")
        print(regret.markdown(of_cell, kind))
        watched = regret.watched(of_cell)
        if watched:
            print(f"\nOf step triggers, {kind}\n")
            print(regret.markdown(watched, kind, regret.STEP_RULES))
    if options.figure is not None:
        with files.atomically(options.figure) as partial:
            svg = pictures.draw(of_cell, columns=2)
            partial.write_text(figures.document(svg), encoding="utf-8")
    if options.page is not None:
        pictures.write_html(of_cell, options.page)


if __name__ == "__main__":
    main()
