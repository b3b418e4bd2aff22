"""Trains random configurations on every backend, and reduces what fails.

    python benchmarks/fuzz.py [--examples 5000] [--minutes 60] [--seed N]
        [--backends tensorflow torch jax] [--output FOLDER]

A process a backend draws configurations (tests/configurations.py says of what,
and what holds for each) in rounds, until its share of the examples or the time
is used up. What fails is written at once, and again whenever it has been
reduced, as a test: a killed run keeps what it has found. What fails in a
place known to this run is counted, the first few are kept. Prints its seed, and
exits with 1 if anything failed.
"""

import argparse
import collections
import importlib.util
import os
import random
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BACKENDS = ("tensorflow", "torch", "jax")
ROUND = 20
# Of failures in one place, those that are kept beside the reduced one.
MORE = 5
TEST = """# {backend}: {error}
# KERAS_BACKEND={backend} pytest -n 0 {path}
import keras
from configurations import {check}
from keras_hybrid.scales import *
from keras_hybrid.transitions import *
from keras_hybrid.triggers import *

inf, nan = float("inf"), float("nan")


def test_reduced():
    {check}(
{arguments}
    )
"""


def place(error: BaseException) -> str:
    """Returns where an error comes from: the last two of our own lines."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT / "keras_hybrid")
        or Path(frame.filename).is_relative_to(ROOT / "tests")
    ]
    lines = (f"{Path(f.filename).stem}-{f.lineno}" for f in ours[-2:])
    return "-".join([type(error).__name__, *lines])


class Findings:
    """The files of what failed.

    Args:
        folder: Where they are.
        backend: The backend that runs.
    """

    def __init__(self, folder: Path, backend: str) -> None:
        self._folder, self._backend = folder, backend
        self._known: set[str] = set()
        self._sizes: dict[str, int] = {}
        self.counts: collections.Counter[str] = collections.Counter()

    def add(self, check: Any, drawn: dict[str, Any], error: Exception) -> bool:
        """Keeps a failure; returns whether it is to be reduced."""
        where = place(error)
        known = where in self._known
        if known:
            self.counts[where] += 1
            if self.counts[where] <= MORE:
                name = f"{where}-{self.counts[where]}"
                self._write(name, check, drawn, error)
            return False
        # Hypothesis tries what is smaller, in an order of its own.
        size = len(repr(drawn))
        if size <= self._sizes.get(where, size):
            self._sizes[where] = size
            self._write(where, check, drawn, error)
        return True

    @property
    def any_known(self) -> bool:
        """Whether anything failed, in the rounds that are closed."""
        return bool(self._known)

    def close_round(self) -> bool:
        """Returns whether anything new failed: reduced, and known from now."""
        new = self._sizes.keys() - self._known
        for where in sorted(new):
            print(f"{self._backend}: FAILED, see {self._path(where)}")
        self._known |= new
        return bool(new)

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._backend}-{name}.py"

    def _write(
        self, name: str, check: Any, drawn: dict[str, Any], error: Exception
    ) -> None:
        from configurations import shortened, source

        from keras_hybrid._support import files

        if "options" in drawn:
            drawn = drawn | {"options": shortened(drawn["options"])}
        arguments = "\n".join(
            f"        {name}={source(value)},"
            for name, value in drawn.items()
            if value is not None
        )
        path = self._path(name)
        said = " ".join(str(error).split())[:300]
        text = TEST.format(
            backend=self._backend,
            error=f"{type(error).__name__}: {said}",
            path=path,
            check=check.__name__,
            arguments=arguments,
        )
        with files.atomically(path) as partial:
            partial.write_text(text, "utf-8")


def work(options: argparse.Namespace) -> bool:
    """Runs one backend's share; returns whether anything failed."""
    import hypothesis

    sys.path.insert(0, str(ROOT / "tests"))
    import configurations

    # As in the tests.
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore",
        "__array__ implementation doesn't accept a copy keyword",
        DeprecationWarning,
    )
    findings = Findings(options.output, options.worker)
    end = time.monotonic() + 60 * options.minutes
    settings = hypothesis.settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )
    checks = [
        (configurations.check, configurations.trainings),
        (configurations.check_refusal, configurations.refusals),
    ]
    tried, number = collections.Counter[str](), 0

    def attempt(check: Any, strategies: dict[str, Any]) -> None:
        @hypothesis.seed(options.seed + number)
        @settings
        @hypothesis.given(**strategies)
        def one(**drawn: Any) -> None:
            tried[check.__name__] += 1
            try:
                check(**drawn)
            except Exception as error:
                if findings.add(check, drawn, error):
                    raise

        try:
            one()
        except Exception:
            if not findings.close_round():
                raise

    while tried["check"] < options.examples and time.monotonic() < end:
        for check, strategies in checks:
            attempt(check, strategies)
        number += 1
        _forget(options.worker)
        print(f"{options.worker}: {dict(tried)}", flush=True)
    for where, count in findings.counts.items():
        print(f"{options.worker}: {count} more of {where}")
    return findings.any_known


def _forget(backend: str) -> None:
    """Frees what a backend keeps of the functions that it has compiled."""
    if backend == "jax":
        import jax

        jax.clear_caches()


def parsed() -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument(
        "--backends", nargs="+", choices=BACKENDS, default=BACKENDS
    )
    parser.add_argument("--output", type=Path, default=Path("fuzz"))
    parser.add_argument("--worker", choices=BACKENDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Runs the backends' processes; returns the exit status."""
    options = parsed()
    if options.worker:
        return int(work(options))
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"--seed {options.seed}, failures in {options.output}/", flush=True)
    backends = [b for b in options.backends if importlib.util.find_spec(b)]
    share = -(-options.examples // len(backends))
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, __file__, "--worker", backend),
                *("--examples", str(share), "--seed", str(options.seed)),
                *("--minutes", str(options.minutes)),
                *("--output", str(options.output)),
            ],
            env=os.environ
            | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        )
        for backend in backends
    ]
    return int(any([process.wait() for process in processes]))


if __name__ == "__main__":
    sys.exit(main())
