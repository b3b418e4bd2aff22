"""Processes that measure, each with the libraries it needs and no others."""

import contextlib
import importlib
import multiprocessing
import traceback


class WorkerError(RuntimeError):
    """What a process was asked for failed there."""


class Worker(contextlib.AbstractContextManager):
    """A fresh process that makes one object and calls its methods.

    Args:
        where: "module.Class" of the object, which only the process imports.
        *arguments: What the class takes.

    Raises:
        ModuleNotFoundError: If the process lacks a library.
    """

    def __init__(self, where, *arguments):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, where, arguments), daemon=True
        )
        self._process.start()
        theirs.close()
        self._answer()

    def ask(self, method, *arguments):
        """Calls a method there and returns what it returns."""
        # A process that has ended is found out by the answer.
        with contextlib.suppress(BrokenPipeError):
            self._connection.send((method, arguments))
        return self._answer()

    def _answer(self):
        try:
            answer, error = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise WorkerError(
                "The process ended before it answered, with exit code "
                f"{self._process.exitcode}"
            ) from None
        if error is not None:
            raise error
        return answer

    def __exit__(self, *error):
        """Ends the process."""
        self._connection.close()
        self._process.join(60)
        self._process.kill()


def _serve(connection, where, arguments):
    module, name = where.rsplit(".", 1)
    made = []

    def make():
        kind = getattr(importlib.import_module(module), name)
        made.append(kind(*arguments))

    def call(method, of_method):
        return getattr(made[0], method)(*of_method)

    _reply(connection, make)
    with contextlib.suppress(EOFError):  # The other end is closed.
        while True:
            _reply(connection, call, *connection.recv())


def _reply(connection, function, *arguments):
    answer = error = None
    try:
        answer = function(*arguments)
    except ModuleNotFoundError as missing:
        error = missing
    except Exception:
        error = WorkerError(traceback.format_exc())
    connection.send((answer, error))
