"""Processes that share work on this machine, watched over.

Those of the study take pieces of it by themselves. KerasTuner has a chief:

A worker that dies is started again under its id, so the chief does not wait
for it for ever; a chief that dies is started again and goes on from its
files. Nothing outlives the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from keras_hybrid._support import files

RESTARTS = 3
# The exit code of a clear error, which a restart would only repeat.
CLEAR_ERROR = 2
_PARENT = "KERAS_HYBRID_PARENT"
_COPY = "KERAS_HYBRID_COPY"
_CHIEF = "chief"


def is_member() -> bool:
    """Whether this process is a chief or a worker of a search."""
    return "KERASTUNER_ORACLE_IP" in os.environ


def die_with_parent() -> None:
    """Ends this process when the one that started it is gone."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run(
    command: Sequence[str],
    workers: int,
    folder: Path,
    stall_limit: float = 3600.0,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Runs a search with a chief and workers, until it is finished.

    Args:
        command: What each of them runs; it must end by itself in a process
            with KerasTuner's environment variables.
        workers: Integer of at least 1.
        folder: Where the search keeps its files.
        stall_limit: Seconds without a change in `folder` after which the
            search is given up.
        watch: Is called about twice a second.

    Raises:
        ValueError: If one of them ends with a clear error (it has said
            which), dies more than three times, or nothing happens any more.
    """
    started = time.time()
    port = _free_port()
    names = [_CHIEF, *(f"tuner{i}" for i in range(workers))]
    starts = dict.fromkeys(names, 0)
    running: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str) -> None:
        starts[name] += 1
        if starts[name] > RESTARTS + 1:
            raise ValueError(
                f"The process {name!r} of the search has died {RESTARTS + 1} "
                "times. Finished trials are kept; the same command goes on. "
                f"Received: folder={folder}"
            )
        running[name] = subprocess.Popen(
            list(command), env=_environment(name, port)
        )

    with _ended(running):
        for name in names:
            start(name)
        while any(name != _CHIEF for name in running):
            time.sleep(0.5)
            watch()
            for name, code in _gone(running):
                if code == CLEAR_ERROR:
                    raise ValueError(
                        f"The process {name!r} of the search has ended with "
                        f"the error above. Received: folder={folder}"
                    )
                if code != 0:
                    start(name)
                elif name == _CHIEF and running:
                    # It ends before its workers only between their requests.
                    start(name)
            _check_progress(folder, stall_limit, started)


def run_copies(
    command: Sequence[str],
    count: int,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Runs a command in several processes that share the work by themselves.

    Each has a core of its own where the system can do that; one that dies is
    started again.

    Args:
        command: It must end by itself.
        count: Integer of at least 1.
        watch: Is called about twice a second.

    Raises:
        ValueError: If one ends with a clear error (it has said which), or
            they die more than three times.
    """
    running: dict[str, subprocess.Popen[bytes]] = {}
    restarts = 0

    def start(number: int) -> None:
        running[str(number)] = subprocess.Popen(
            list(command),
            env={**os.environ, _PARENT: str(os.getpid()), _COPY: str(number)},
        )

    with _ended(running):
        for number in range(count):
            start(number)
        while running:
            time.sleep(0.5)
            watch()
            for name, code in _gone(running):
                if code == CLEAR_ERROR:
                    raise ValueError(
                        "A process has ended with the error above. Received: "
                        f"workers={count}"
                    )
                if code != 0:
                    restarts += 1
                    if restarts > RESTARTS:
                        raise ValueError(
                            f"Processes have died {restarts} times. What is "
                            "finished is kept; the same command goes on. "
                            f"Received: workers={count}"
                        )
                    start(int(name))


def is_copy() -> bool:
    """Whether `run_copies` has started this process; it gets its core then."""
    if _COPY not in os.environ:
        return False
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = cores[int(os.environ[_COPY]) % len(cores)]
        os.sched_setaffinity(0, {own})
    return True


def _environment(name: str, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "KERASTUNER_TUNER_ID": name,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port),
        _PARENT: str(os.getpid()),
    }


def _gone(
    running: dict[str, subprocess.Popen[bytes]],
) -> Iterator[tuple[str, int]]:
    """Takes those out that have ended; yields their exit codes."""
    for name, process in list(running.items()):
        code = process.poll()
        if code is not None:
            del running[name]
            yield name, code


@contextlib.contextmanager
def _ended(running: dict[str, subprocess.Popen[bytes]]) -> Iterator[None]:
    """Ends what is still running: the chief by itself may take 20 s."""
    try:
        yield
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_progress(folder: Path, stall_limit: float, started: float) -> None:
    newest = started
    for path in (folder, *files.walk(folder)):
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, path.stat().st_mtime)
    if time.time() - newest > stall_limit:
        raise ValueError(
            f"Nothing has happened in the search for {stall_limit:.0f} s: it "
            "is given up. Finished trials are kept; the same command goes on. "
            f"Received: folder={folder}"
        )


def own_command(arguments: Sequence[str]) -> list[str]:
    """Returns the command that runs `keras-hybrid` with these arguments."""
    return [sys.executable, "-m", "keras_hybrid.cli", *arguments]
