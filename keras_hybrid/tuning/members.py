"""The chief and the workers of a search, as KerasTuner's environment has them.

KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT say where the chief answers,
KERASTUNER_TUNER_ID who a process is: "chief", or a name of a worker's own.
KerasTuner waits an hour in each request to a chief that is not there; here it
is `KERAS_HYBRID_CHIEF_WAIT` seconds, and then an error says so.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_tuner.errors import FatalRuntimeError, FatalValueError

from keras_hybrid._support import checks, files

_ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
_NAME = "KERASTUNER_TUNER_ID"
_WAIT = "KERAS_HYBRID_CHIEF_WAIT"
# A chief may load its data for minutes before it answers.
_DEFAULT_WAIT = 600.0
# gRPC waits longer after each attempt to connect, up to two minutes.
_LONGEST_PAUSE_MS = 2000
# A network file system shows another machine's new files after so long.
_FOLDER_WAIT = 60.0


def name() -> str:
    """Returns this process' id in the search."""
    return os.environ.get(_NAME, "tuner0")


def is_chief() -> bool:
    """Whether this process hands out trials to others."""
    return _ADDRESS[0] in os.environ and "chief" in name()


def is_worker() -> bool:
    """Whether this process trains what a chief hands out."""
    return _ADDRESS[0] in os.environ and not is_chief()


def check() -> None:
    """Checks the environment variables, where there are any.

    Raises:
        ValueError: If some are missing or wrong.
    """
    needed = (*_ADDRESS, _NAME)
    given = {part: os.environ[part] for part in needed if part in os.environ}
    if not given:
        return
    if missing := [part for part in needed if part not in given]:
        raise ValueError(
            "A search on several processes needs the environment variables "
            f"{', '.join(needed)}. Received: "
            f"{', '.join(f'{part}={text!r}' for part, text in given.items())} "
            f"without {' and '.join(missing)}"
        )
    _port()
    _wait()


def _port() -> int:
    given = os.environ[_ADDRESS[1]]
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise ValueError(
            f"`{_ADDRESS[1]}` must be the number of a port, from 1 to 65535. "
            f"Received: {_ADDRESS[1]}={given!r}"
        )
    return int(given)


def _wait() -> float:
    """Seconds after which a chief that does not answer is given up."""
    given = os.environ.get(_WAIT)
    if given is None:
        return _DEFAULT_WAIT
    try:
        return checks.number(_WAIT, float(given), above=0)
    except ValueError as error:
        raise ValueError(
            f"`{_WAIT}` must be a number of seconds above 0. Received: "
            f"{_WAIT}={given!r}"
        ) from error


def address() -> str:
    """Where the chief answers."""
    return f"{os.environ[_ADDRESS[0]]}:{_port()}"


def alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps the folder of a search; workers share it with their chief."""
    return contextlib.nullcontext() if is_worker() else files.locked(folder)


def check_port_is_free() -> None:
    """Refuses a chief beside another one, which gRPC does not.

    Raises:
        ValueError: If something answers at the chief's address.
    """
    if not is_chief():
        return
    host, port = os.environ[_ADDRESS[0]], _port()
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return
    raise ValueError(
        f"Something answers at {address()} already: two searches need two "
        f"ports. Received: {_ADDRESS[0]}={host!r}, {_ADDRESS[1]}='{port}'"
    )


def wait_for_file(path: Path) -> None:
    """Waits for what the chief has written before it answered.

    Raises:
        ValueError: If it does not appear: the folder is not the chief's.
    """
    end = time.monotonic() + min(_wait(), _FOLDER_WAIT)
    while not path.exists():
        if time.monotonic() > end:
            raise ValueError(
                "The chief and its workers must share the folder of the "
                f"search, and the chief's {path.name} is not in it: give a "
                "`directory` that all machines reach. Received: "
                f"{path.parent}"
            )
        time.sleep(0.5)


def connect(client: Any) -> None:
    """Gives a worker's client requests that end, and reach a chief again.

    A chief that was started again is found within seconds, and a request that
    its end has cut off is made again.
    """
    import grpc
    from keras_tuner.src import protos

    channel = grpc.insecure_channel(
        address(),
        options=[("grpc.max_reconnect_backoff_ms", _LONGEST_PAUSE_MS)],
    )
    stub = protos.get_service_grpc().OracleStub(channel)
    client.stub = Requests(stub, address(), _wait())


class Requests:
    """A gRPC stub whose requests wait for the chief so long, and no longer.

    Args:
        stub: With a method a request.
        address: Of the chief, for the error.
        seconds: How long a request waits for an answer.
    """

    def __init__(self, stub: Any, address: str, seconds: float) -> None:
        self._stub = stub
        self._at = address
        self._seconds = seconds

    def __getattr__(self, request: str) -> Callable[..., Any]:
        """Returns the method of a request."""
        call = getattr(self._stub, request)

        def ask(message: Any, **options: Any) -> Any:
            import grpc

            end = time.monotonic() + self._seconds
            while True:
                left = max(end - time.monotonic(), 0.1)
                try:
                    return call(message, wait_for_ready=True, timeout=left)
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        if time.monotonic() < end:
                            time.sleep(0.2)
                            continue
                    elif error.code() is grpc.StatusCode.UNKNOWN:
                        raise FatalRuntimeError(
                            f"The chief of the search failed: {error.details()}"
                        ) from error
                    elif error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise
                    raise FatalValueError(self._silence(request)) from error

        return ask

    def _silence(self, request: str) -> str:
        return (
            f"The chief of the search does not answer at {self._at} for "
            f"{self._seconds:.0f} s ({_WAIT}): start it, or start it again, "
            "and then this worker under the same name. Finished trials are "
            f"kept. Received: {_NAME}={name()!r}, request={request}"
        )
