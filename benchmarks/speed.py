"""How fast the optimizer is: ratios against those that people use.

    pip install -e ".[all,bench]" && python benchmarks/speed.py

Measures in five groups, contenders in turns, everything with the default
arguments of HybridOptimizer, on Linux:

    steps        one update step (gradients are given) of keras_hybrid, keras
                 Adam, AdamW and SGD, TensorFlow's fused kernels, PyTorch's
                 fused optimizers and optax, on the same tensors and number of
                 threads; and the memory limit: the bytes that must move at the
                 rate at which y <- y + a x moves them
    memory       peak memory of a fresh process
    first_steps  build, trace and compile of real models in fresh processes
    fits         epochs of `fit` of real models, and of two on MNIST
    sweeps       40 models one after the other in a process

Writes benchmarks/speed.json after each case, speed.svg, and prints the table of
the bars. What is not asked for keeps its figures: `--groups steps memory`,
`--cases "25 M" ResNet50`. `--quick` sees in some minutes whether all of it
runs, and writes to a temporary folder. Run it on a machine that does nothing
else; all groups take about 40 minutes on 2 cores.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import first_steps
import fits
import memory
import speed_table
import steps
import sweeps
from workers import WorkerError

RESULT = Path(__file__).with_suffix(".json")
GROUPS = {
    "steps": steps,
    "memory": memory,
    "first_steps": first_steps,
    "fits": fits,
    "sweeps": sweeps,
}


def parse():
    """Returns what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--groups", nargs="+", choices=GROUPS, default=list(GROUPS)
    )
    parser.add_argument("--cases", nargs="+", help="of these groups")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data-dir", help="TFDS's folder")
    asked = parser.parse_args()
    known = {case for group in asked.groups for case in GROUPS[group].CASES}
    for case in asked.cases or ():
        if case not in known:
            parser.error(f"the cases are {sorted(known)}. Received: {case!r}")
    return asked


def in_order(record):
    """The figures of the cases that there are, in their order."""
    return {
        name: {
            case: record[name][case]
            for case in group.CASES
            if case in record.get(name, {})
        }
        for name, group in GROUPS.items()
    }


def peers():
    """The versions of the libraries that it is compared with."""
    found = {}
    for library in ("torch", "jax", "optax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def show(title, result):
    """Prints medians, and their ratios to Keras' optimizer."""
    print(title)
    for quantity, found in result.items():
        if not isinstance(found, dict):
            continue
        reference = next(name for name in found if name.startswith("keras "))
        for name, spread in found.items():
            ratio = spread["median"] / found[reference]["median"]
            print(
                f"  {quantity:20}{name:30}{spread['median']:10.3f}"
                f"{ratio:7.2f} of {reference}"
            )
    sys.stdout.flush()


def main():
    """Measures the cases that are asked for."""
    # Here, as the processes of the other libraries import this file too.
    import speed_plot

    from keras_hybrid._support import files
    from keras_hybrid._support.versions import versions

    asked = parse()
    if asked.data_dir:
        os.environ["TFDS_DATA_DIR"] = asked.data_dir
    path = RESULT
    if asked.quick:
        path = Path(tempfile.mkdtemp()) / RESULT.name
        print(f"Writing {path}", flush=True)
    record = in_order(json.loads(path.read_text()) if path.exists() else {})
    failed = []
    chosen = [
        (name, case)
        for name in asked.groups
        for case in GROUPS[name].CASES
        if case in (asked.cases or [case])
    ]
    for name, case in chosen:
        title, started = f"{name}: {case}", time.perf_counter()
        try:
            record[name][case] = GROUPS[name].measure(case, asked.quick)
        except WorkerError as error:
            failed.append(title)
            print(f"{title}: not measured. {error}", flush=True)
            continue
        found = {"versions": {**versions(), **peers()}, **in_order(record)}
        files.write_json(path, found)
        took = time.perf_counter() - started
        show(f"{title}, measured in {took:.0f} s", record[name][case])
    speed_plot.plot(record, path.with_suffix(".svg"))
    print(speed_table.table(path))
    if failed:
        sys.exit(f"Not measured: {'; '.join(failed)}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
