"""The chief of a search: hands trials to workers, and ends with what failed.

KerasTuner's own raises what fails within the request of a worker alone: that
worker dies of it, and the chief waits for it, or for a lock, for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

from keras_tuner.engine.trial import TrialStatus

from keras_hybrid.tuning import members

# What workers ask for, by the oracle's methods.
_REQUESTS = ("create_trial", "update_trial", "end_trial", "update_space")
# The worker whose request failed is told so before the chief ends.
_GRACE = 2.0


def serve(tuner: Any, verbose: Any = 0, pause: float = 1.0) -> None:
    """Answers workers until each has been told that there is no more.

    Args:
        tuner: A `ForkedTuner`; its oracle is changed.
        verbose: Whether the oracle prints its trials.
        pause: Seconds between two looks whether that is so.

    Raises:
        RuntimeError: If too many trials in a row have failed; workers are told
            that the search is over first.
        Exception: What a request has failed with, a full disk say, at once.
    """
    # These need protobuf's versions to agree, which one process does not.
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    tuner.save()
    tuner.oracle.verbose = verbose
    failures = Failures(tuner.oracle)
    servicer = OracleServicer(tuner.oracle)
    # One: an oracle answers in turn.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    server.add_insecure_port(members.address())
    server.start()
    try:
        while not (servicer.stop_triggered and is_done(tuner.oracle)):
            time.sleep(pause)
            failures.raise_request()
    finally:
        server.stop(_GRACE).wait()
    failures.raise_trials()


def is_done(oracle: Any) -> bool:
    """Whether every worker has been told to stop, and no trial runs."""
    return not oracle.ongoing_trials and not oracle.tuner_ids


class Failures:
    """Keeps what fails within a worker's request, for the chief.

    After too many failed trials in a row workers are told that the search is
    over. What else fails goes to the worker that asked as well.

    Args:
        oracle: Of the chief; is changed.
    """

    def __init__(self, oracle: Any) -> None:
        self._trials: RuntimeError | None = None
        self._request: Exception | None = None
        self._check = oracle._check_consecutive_failures
        self._populate = oracle.populate_space
        oracle._check_consecutive_failures = self._note
        oracle.populate_space = self._next
        for name in _REQUESTS:
            setattr(oracle, name, self._watched(getattr(oracle, name)))

    def _note(self) -> None:
        try:
            self._check()
        except RuntimeError as error:
            self._trials = RuntimeError(
                f"{str(error).strip()} Each worker's output has the errors of "
                "its trials."
            )

    def _next(self, trial_id: str) -> Any:
        if self._trials is None:
            return self._populate(trial_id)
        return {"status": TrialStatus.STOPPED, "values": None}

    def _watched(self, request: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*args: Any, **kwargs: Any) -> Any:
            try:
                return request(*args, **kwargs)
            except Exception as error:
                self._request = error
                raise

        return answer

    def raise_trials(self) -> None:
        """Raises what too many failed trials in a row have ended with."""
        if self._trials is not None:
            raise self._trials

    def raise_request(self) -> None:
        """Raises what a request has failed with."""
        if self._request is not None:
            raise self._request
