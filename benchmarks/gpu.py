"""What a GPU measures: update steps, epochs of `fit`, CIFAR-10.

    KERAS_BACKEND=jax python benchmarks/gpu.py
    python benchmarks/gpu.py --pack cifar10.npz  # Where TFDS is.
    python benchmarks/gpu.py --parts cifar10 --data cifar10.npz

On whatever the backend computes on by default; each finished part is written
at once, beside what the file has of other backends and parts. `--quick` is the
whole in a small form, on a CPU too. benchmarks/gpu.sh checks the identities
first and runs it on every backend that is there.
"""

import argparse
import importlib
import json
import os
import time
from pathlib import Path

import gpu_table

PARTS = ("steps", "fits", "cifar10")
RESULT = Path(__file__).with_name("gpu.json")


def parse():
    """Returns what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:2])
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--quick", action="store_true", help="a trial")
    parser.add_argument("--data", type=Path, help="npz of CIFAR-10")
    parser.add_argument("--epochs", type=int, default=12, help="on CIFAR-10")
    parser.add_argument("--seeds", type=int, default=5, help="on CIFAR-10")
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument(
        "--pack", type=Path, metavar="NPZ", help="only write CIFAR-10 there"
    )
    asked = parser.parse_args()
    if asked.quick and asked.output == RESULT:
        parser.error("--quick is a trial, which needs an --output of its own")
    if "cifar10" in asked.parts and not (asked.data and asked.data.exists()):
        parser.error(
            f"--parts cifar10 needs --data, a file. Received: {asked.data}"
        )
    return asked


def pack(path):
    """Writes CIFAR-10 from TFDS: its images as uint8, for other machines."""
    import numpy as np
    import tensorflow_datasets as tfds

    arrays = {}
    for split in ("train", "test"):
        data = tfds.as_numpy(tfds.load("cifar10", split=split, batch_size=-1))
        arrays[f"x_{split}"] = data["image"]
        arrays[f"y_{split}"] = data["label"].astype("uint8")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 2**20:.0f} MiB")


def measured(part, asked):
    """Yields what a part has found so far."""
    if part != "cifar10":
        found = {}
        for case in importlib.import_module(f"gpu_{part}").measure(asked.quick):
            found.update(case)
            yield found
        return
    import gpu_cifar10

    yield from gpu_cifar10.measure(
        str(asked.data.resolve()),
        2 if asked.quick else asked.epochs,
        1 if asked.quick else asked.seeds,
        2 if asked.quick else asked.processes,
        asked.quick,
    )


def main():
    """Measures the parts that are asked for."""
    asked = parse()
    if asked.pack:
        pack(asked.pack)
        return
    import gpu_steps
    import keras

    from keras_hybrid._support import files
    from keras_hybrid._support.versions import versions

    backend = keras.backend.backend()
    about = {
        "device": gpu_steps.devices()[0],
        "versions": versions(),
        "quick": asked.quick,
    }
    record = {}
    if asked.output.exists():
        record = json.loads(asked.output.read_text())
    for part in asked.parts:
        started = time.perf_counter()
        for found in measured(part, asked):
            taken = time.perf_counter() - started
            own = {**about, "seconds": taken, "results": found}
            record.setdefault(backend, {})[part] = own
            files.write_json(asked.output, record)
            print(f"{part}: {taken:.0f} s", flush=True)
    print(gpu_table.table(record))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Processes share the GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    main()
