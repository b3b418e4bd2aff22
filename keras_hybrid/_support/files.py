"""Files that are written whole or not at all, and JSON without NaN."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]


class DiskFull(ValueError):
    """A file did not fit; what was written before is there."""


class NotWritable(ValueError):
    """A file or folder cannot be written to."""


def _writing_error(path: Path, error: OSError) -> ValueError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(
            f"There is no room for {path} ({error}): free some. What is "
            "finished is kept; the same command goes on."
        )
    return NotWritable(
        f"{path} cannot be written ({error}): name another folder, or make "
        f"this one writable. Received: folder={str(path.parent)!r}"
    )


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Yields whether this process alone holds the lock file until the end.

    The system lets go of it when the process ends, however it ends; the empty
    file stays. Its folder is made.

    Raises:
        DiskFull: If there is no room.
        NotWritable: If the folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _opened(path)
    except OSError as error:
        raise _writing_error(path, error) from error
    with file:
        is_ours = True
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_ours = False
        except OSError as error:
            # Some network file systems have no locks.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield is_ours


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("a")
    except PermissionError:
        if not path.exists():
            raise
        # Another user's, in a folder that both write to: a lock needs no more.
        return path.open("r")


@contextlib.contextmanager
def locked(folder: Path, also: Iterable[Path] = ()) -> Iterator[None]:
    """Keeps a folder for this process; the folder is made.

    Args:
        folder: The folder.
        also: Lock files of parts of it, which are kept too.

    Raises:
        ValueError: As `claimed`, and if another process keeps it or a part.
    """
    with contextlib.ExitStack() as stack:
        for path in sorted({folder / "in-use.lock", *also}):
            if not stack.enter_context(claimed(path)):
                raise ValueError(
                    f"{folder} is in use by another process: wait until it has "
                    f"ended, or name another folder. Received: folder="
                    f"{str(folder)!r}"
                )
        yield


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Yields a path to write to, and renames it to `path` at the end.

    A kill or an error leaves the old file or none; the folder is made.

    Raises:
        DiskFull: If there is no room.
        NotWritable: If the folder cannot be made or written to.
    """
    # Workers on several machines may have the same process id.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise _writing_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def walk(folder: Path, ending: str = "") -> Iterator[Path]:
    """The files below a folder, links followed.

    A folder that vanishes meanwhile has none.

    Raises:
        ValueError: If a folder may not be read.
    """

    def stop(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise ValueError(f"{error.filename}: not readable ({error})")

    above: dict[str, frozenset[str]] = {}
    for place, folders, names in os.walk(
        folder, onerror=stop, followlinks=True
    ):
        real = os.path.realpath(place)
        over = above.get(os.path.dirname(place), frozenset())
        if real in over:  # A link that leads back up.
            folders.clear()
            continue
        above[place] = over | {real}
        yield from (
            Path(place) / name for name in names if name.endswith(ending)
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a mapping; NaN and infinity become null."""
    text = json.dumps(_without_nan(content), indent=1, allow_nan=False)
    # A list of numbers on one line: a tenth of the lines.
    text = re.sub(
        r"\[\n[^\[\]{}\"]*?\n\s*\]",
        lambda found: " ".join(found[0].split()),
        text,
    )
    with atomically(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, expected_format: int, what: str) -> dict[str, Any]:
    """Reads a mapping whose "format" is the expected one, without it.

    Raises:
        ValueError: If the file is unreadable or of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable ({error})") from error
    return of_format(path, content, expected_format, what)


def of_format(
    path: Path, content: Any, expected_format: int, what: str
) -> dict[str, Any]:
    """Returns a mapping whose "format" is the expected one, without it.

    Raises:
        ValueError: If it is no mapping or of another format.
    """
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found != expected_format:
        raise ValueError(
            f"{path}: not a {what} of format {expected_format}. Received: "
            f"format={found!r}"
        )
    return content


def check_fields(
    path: Path, content: Mapping[str, Any], names: set[str]
) -> None:
    """Raises ValueError if fields are missing or unknown."""
    if set(content) != names:
        differing = ", ".join(sorted(set(content) ^ names))
        raise ValueError(f"{path}: missing or unknown: {differing}")


def history_of(
    path: Path, history: Any, arrays: bool = False
) -> dict[str, list[Any]]:
    """Returns lists of numbers as they were written, null as NaN.

    Args:
        path: Where they were written, for the error.
        history: What was read.
        arrays: Whether an array may stand in place of a number: nested lists in
            `values` with their `dtype`, or these lists alone, in float32.

    Raises:
        ValueError: If it is no mapping to lists of numbers.
    """
    try:
        return {
            name: [
                _array(x)
                if arrays and isinstance(x, (list, dict))
                else _number(x)
                for x in values
            ]
            for name, values in history.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: history is no mapping to lists of numbers ({error})"
        ) from error


def _array(value: Any) -> np.ndarray:
    if isinstance(value, list):
        return np.array(value, "float32")
    return np.array(value["values"], value["dtype"])


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    return value if isinstance(value, int) else float(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
