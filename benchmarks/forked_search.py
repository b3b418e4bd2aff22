"""What sharing the Adam prefix saves: epochs and wall time of one search.

    python benchmarks/forked_search.py [--cells mnist-5k-cnn fashion_mnist-mlp]

For each cell, one after the other in one process: KerasTuner's GridSearch
over ten switch points of a 20-epoch budget (every trial from its start), the
same with ForkedTuner, and with ForkedTuner and early stopping. One seed. The
three searches see the same data in the same order, so their scores can be
compared bit for bit. Writes benchmarks/forked_search.json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import keras_tuner

from keras_hybrid._support.versions import versions
from keras_hybrid.study.search import Cell, prepare
from keras_hybrid.tuner import SWITCH_POINTS, HybridHyperModel
from keras_hybrid.tuning import record

CELLS = {
    cell.name: cell
    for cell in (
        Cell("mnist-5k", "cnn", seeds=1),
        Cell("fashion_mnist", "mlp", batch_size=128, seeds=1),
    )
}
RESULT = Path(__file__).with_suffix(".json")


def unshared(cell: Cell, folder: Path) -> dict:
    """KerasTuner's own grid search: every trial trains all of its epochs."""
    prepared = prepare(cell, folder / "for-its-data")
    epochs = 0

    class Counted(HybridHyperModel):
        def fit(self, hp, model, *args, **kwargs):
            nonlocal epochs
            epochs += kwargs["epochs"]
            return super().fit(hp, model, *args, **kwargs)

    tuner = keras_tuner.GridSearch(
        Counted(prepared.tuner.hypermodel.inner, SWITCH_POINTS),
        objective="val_accuracy",
        directory=folder,
        project_name="unshared",
    )
    started = time.perf_counter()
    tuner.search(**prepared.arguments, verbose=0)
    return {
        "epochs": epochs,
        "seconds": time.perf_counter() - started,
        "scores": {
            str(trial.hyperparameters.get("hybrid/fraction")): trial.score
            for trial in tuner.oracle.trials.values()
        },
    }


def forked(cell: Cell, folder: Path) -> dict:
    """The same trials from the shared prefix on."""
    prepared = prepare(cell, folder / f"prune-{cell.prune}")
    started = time.perf_counter()
    prepared.tuner.search(**prepared.arguments)
    seconds = time.perf_counter() - started
    search = record.load(prepared.tuner.folder)
    return {
        "epochs": search.epochs_trained,
        "seconds": seconds,
        "scores": {
            str(trial.plan.fraction): trial.mean("val_accuracy")
            for trial in search.complete
        },
        "stopped": sum(t.status == "stopped" for t in search.trials),
    }


def winner(result: dict) -> str:
    """The switch point of the best score, the first in order of equals."""
    scores = {k: result["scores"][k] for k in sorted(result["scores"])}
    return max(scores, key=scores.get)


def main() -> None:
    """Runs the three searches of each cell and prints the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    for name in parser.parse_args().cells:
        cell = CELLS[name]
        with tempfile.TemporaryDirectory() as folder:
            results = {
                "unshared": unshared(cell, Path(folder)),
                "forked": forked(cell, Path(folder)),
                "forked, early stopping": forked(
                    cell._replace(prune=True), Path(folder)
                ),
            }
        whole = results["unshared"]
        for kind, result in results.items():
            result["epochs_ratio"] = result["epochs"] / whole["epochs"]
            result["seconds_ratio"] = result["seconds"] / whole["seconds"]
            result["identical_scores"] = all(
                whole["scores"][point] == score
                for point, score in result["scores"].items()
            )
            result["winner"] = winner(result)
            print(
                f"{name}, {kind}: {result['epochs']} epochs "
                f"({result['epochs_ratio']:.1%}), {result['seconds']:.0f} s "
                f"({result['seconds_ratio']:.1%}), scores identical: "
                f"{result['identical_scores']}, best at {result['winner']}",
                flush=True,
            )
        # Cells that are not run again keep their figures.
        record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        record["versions"] = versions()
        record.setdefault("cells", {})[name] = results
        RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
