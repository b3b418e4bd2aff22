"""How fast the update step is: ratios against the optimizers people use.

    pip install -e ".[all,bench]" && python benchmarks/speed.py

Times one update step (gradients are given) of keras_hybrid, keras Adam, AdamW
and SGD, TensorFlow's fused kernels, PyTorch's fused optimizers and optax, on
the same tensors and the same number of threads, alternating, and compares them
with the memory limit: the bytes that must move at the rate at which
y <- y + a x moves them. Then peak memory, and whole epochs of `fit` on MNIST.

Writes benchmarks/speed.json and speed.svg. A group that is not asked for keeps
its figures: `--groups sizes counts callers first sweep models epochs memory`.
Run it on a machine that does nothing else; all groups take some 40 minutes on 2
cores. Without PyTorch, JAX and optax (the extra `bench`) the rest is measured.
"""

import argparse
import json
import multiprocessing
import statistics
from pathlib import Path

import contenders
import fit_epochs
import matplotlib
import real_models
import sweeps

matplotlib.use("svg")
import matplotlib.pyplot as plt

from keras_hybrid.versions import versions

RESULT = Path(__file__).with_suffix(".json")
ROUNDS = 7
SECONDS_A_TURN = 0.3
PHASES = ("adaptive", "transition", "after the switch", "clipping and decay")


def equal_tensors(millions, count):
    """`count` matrices of 1024 columns, some `millions` of weights in all."""
    rows = max(1, round(millions * 1e6 / count / 1024))
    return [(rows, 1024)] * count


def small_tensors(count):
    """What a small residual network has: kernels, matrices and biases."""
    kinds = [(3, 3, 16, 32), (64, 64), (64,)]
    return [kinds[i % 3] for i in range(count)]


SIZES = {
    f"{millions} M": {"shapes": equal_tensors(millions, 34)}
    for millions in (0.1, 1, 5, 25, 100)
}
MLP = [
    *((784, 512), (512,), (512, 512), (512,)),
    *((512, 512), (512,), (512, 10), (10,)),
]
SIZES["1 M in 8"] = {"shapes": MLP}
SIZES["24 M in 2"] = {"shapes": equal_tensors(24, 2)}
SIZES["25 M"]["projection"] = True
SIZES["24 M in 1"] = {"shapes": equal_tensors(24, 1)}


def resnet20():
    """The trainable variables of a ResNet-20 for 32x32 images."""
    shapes = [(3, 3, 3, 16), (16,), (16,)]
    for filters, before in ((16, 16), (32, 16), (64, 32)):
        for block in range(3):
            first = before if block == 0 else filters
            shapes += [(3, 3, first, filters), (filters,), (filters,)]
            shapes += [(3, 3, filters, filters), (filters,), (filters,)]
    return [*shapes, (64, 10), (10,)]


COUNTS = {
    f"{count} small": {"shapes": small_tensors(count)} for count in (6, 60, 200)
}
COUNTS["ResNet-20"] = {"shapes": resnet20()}
CALLERS = {
    "60 small, eager": {"shapes": small_tensors(60), "caller": "eager"},
    "60 small, XLA": {"shapes": small_tensors(60), "caller": "xla"},
    "25 M, XLA": {"shapes": equal_tensors(25, 34), "caller": "xla"},
    "1 M in 8, XLA": {"shapes": MLP, "caller": "xla"},
}


class Worker:
    """A process that times the steps of one library."""

    def __init__(self, library):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=contenders.serve, args=(theirs, library), daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, *request):
        """Sends a request and returns the answer."""
        self._connection.send(request)
        return self._connection.recv()

    def close(self):
        """Ends the process."""
        self._connection.send(("end",))
        self._process.join(60)


def weights_of(shapes):
    """The number of weights."""
    total = 0
    for shape in shapes:
        size = 1
        for n in shape:
            size *= n
        total += size
    return total


def available(workers):
    """Closes workers whose library is missing, and says what to install."""
    present = []
    for worker in workers:
        answer = worker.ask("prepare", {"shapes": [(1,)], "phase": PHASES[0]})
        if isinstance(answer, str):
            print(
                f'No {answer}: pip install -e ".[bench]" to compare with it.',
                flush=True,
            )
            worker.close()
        else:
            present.append(worker)
    return present


def time_case(case, workers):
    """Times all contenders of a case in turns; returns milliseconds."""
    names = [
        (worker, name)
        for worker in workers
        for name in worker.ask("prepare", case)
        # Its sums are a pass over all slots: one size shows it.
        if "projection" not in name or case.get("projection")
    ]
    turns = {name: [] for _, name in names}
    for round_ in range(ROUNDS + 1):
        for worker, name in names:
            took = worker.ask("time", name, SECONDS_A_TURN)
            if round_:  # The first compiles.
                turns[name].append(1e3 * took)
    for worker in workers:
        worker.ask("prepare", {**case, "shapes": [(1,)]})
    return {
        name: {
            "median_ms": statistics.median(times),
            "range_ms": [min(times), max(times)],
        }
        for name, times in turns.items()
    }


def step_group(cases, workers, phases=PHASES):
    """Times the cases in each phase, with ratios to Keras and the limit."""
    results = {}
    for name, case in cases.items():
        for phase in phases:
            steps = time_case({**case, "phase": phase}, workers)
            axpy = steps.pop("axpy", None)
            result = {"weights": weights_of(case["shapes"]), "steps": steps}
            if axpy:
                # axpy moves three streams: it reads x and y and writes y.
                streams = contenders.STREAMS[phase]
                result["limit_ms"] = axpy["median_ms"] * streams / 3
            of_keras = next(n for n in steps if n.startswith("keras "))
            for step in steps.values():
                step["of_keras"] = (
                    step["median_ms"] / steps[of_keras]["median_ms"]
                )
                if axpy:
                    step["of_limit"] = step["median_ms"] / result["limit_ms"]
            results.setdefault(name, {})[phase] = result
            print(f"{name}, {phase}", flush=True)
            for contender, step in steps.items():
                limit = step.get("of_limit")
                print(
                    f"  {contender:26} {step['median_ms']:9.3f} ms "
                    f"{step['of_keras']:6.2f} of Keras"
                    + (f" {limit:6.2f} of the limit" if limit else ""),
                    flush=True,
                )
    return results


def memory_group():
    """Peak memory of each optimizer in a fresh process, in bytes a weight."""
    results = {}
    cases = {**SIZES, "ResNet50": {"shapes": real_models.resnet50_shapes()}}
    for size, phases in (
        ("25 M", PHASES),
        ("100 M", PHASES[:1]),
        ("ResNet50", PHASES[:1]),
    ):
        case = cases[size]
        weights = weights_of(case["shapes"])
        for phase in phases:
            worker = Worker("tensorflow")
            small = {"shapes": [(1,)], "phase": phase}
            names = worker.ask("prepare", small)
            worker.close()
            for name in names:
                if name == "axpy" or "projection" in name:
                    continue
                worker = Worker("tensorflow")
                # What TensorFlow and its threads take.
                worker.ask("prepare", small)
                before = worker.ask("memory", name)
                worker.ask("prepare", {**case, "phase": phase})
                after = worker.ask("memory", name)
                worker.close()
                taken = (after - before) / weights
                results.setdefault(f"{size}, {phase}", {})[name] = taken
                print(
                    f"{size}, {phase}, {name}: {taken:.1f} bytes a weight",
                    flush=True,
                )
    return results


def plot(record):
    """Time against weights and against tensors, for the adaptive phase."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    markers = "osD^vPX"
    panels = (
        ("sizes", "weights, in 34 tensors", "weights"),
        ("counts", "small tensors", "tensors"),
    )
    for axis, (group, label, of) in zip(axes, panels, strict=True):
        lines, limits = {}, []
        for name, phases in record.get(group, {}).items():
            if " in " in name or (of == "tensors" and "small" not in name):
                continue
            result = phases["adaptive"]
            x = result["weights"] if of == "weights" else int(name.split()[0])
            if result["weights"] > 4e6:  # Below, launching takes longer.
                limits.append((x, result["limit_ms"]))
            for contender, step in result["steps"].items():
                lines.setdefault(contender, []).append((x, step["median_ms"]))
        for marker, (contender, points) in zip(
            markers, lines.items(), strict=False
        ):
            axis.plot(
                *zip(*points, strict=True), marker=marker, label=contender
            )
        if of == "weights" and limits:
            axis.plot(*zip(*limits, strict=True), "k--", label="memory limit")
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("milliseconds a step")
    axes[0].legend(fontsize=8)
    figure.suptitle("One adaptive update step in a tf.function, 2 CPU cores")
    figure.tight_layout()
    figure.savefig(RESULT.with_suffix(".svg"), metadata={"Date": None})


def main():
    """Runs the groups that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    groups = (
        *("sizes", "counts", "callers", "first", "sweep"),
        *("models", "epochs", "memory"),
    )
    parser.add_argument("--groups", nargs="*", choices=groups, default=groups)
    parser.add_argument("--cases", nargs="*", help="of the first three groups")
    parser.add_argument("--data-dir", help="TFDS's folder")
    asked = parser.parse_args()
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    record["versions"] = versions()

    def keep(group, result):
        record[group] = {**record.get(group, {}), **result}
        RESULT.write_text(json.dumps(record, indent=1) + "\n")

    def chosen(cases):
        return {k: v for k, v in cases.items() if k in (asked.cases or cases)}

    steps = [g for g in asked.groups if g in ("sizes", "counts", "callers")]
    if steps:
        workers = available(
            [Worker(library) for library in contenders.LIBRARIES]
        )
        if "sizes" in steps:
            keep("sizes", step_group(chosen(SIZES), workers))
        if "counts" in steps:
            keep("counts", step_group(chosen(COUNTS), workers))
        if "callers" in steps:
            keras_alone = workers[:1], ("adaptive",)
            keep("callers", step_group(chosen(CALLERS), *keras_alone))
        for worker in workers:
            worker.close()
    if "first" in asked.groups:
        keep("first", real_models.first_steps())
    if "sweep" in asked.groups:
        keep("sweep", sweeps.run())
    if "models" in asked.groups:
        keep("models", real_models.epochs())
    if "epochs" in asked.groups:
        keep("epochs", fit_epochs.run(asked.data_dir))
    if "memory" in asked.groups:
        keep("memory", memory_group())
    plot(record)


if __name__ == "__main__":
    main()
