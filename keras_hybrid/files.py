"""Files that are written whole or not at all, and JSON without NaN."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class DiskFull(ValueError):
    """A file did not fit; what was written before is there."""


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Yields a path to write to, and renames it to `path` at the end.

    A kill or an error leaves the old file or none; the folder is made.

    Raises:
        DiskFull: If there is no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DiskFull(
            f"There is no room for {path} ({error}): free some. What is "
            "finished is kept; the same command goes on."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a mapping; NaN and infinity become null."""
    text = json.dumps(_without_nan(content), indent=1, allow_nan=False)
    with atomically(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, expected_format: int, what: str) -> dict[str, Any]:
    """Reads a mapping whose "format" is the expected one, without it.

    Raises:
        ValueError: If the file is unreadable or of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable ({error})") from error
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


def history_of(path: Path, history: Any) -> dict[str, list[float]]:
    """Returns lists of numbers as they were written, null as NaN.

    Raises:
        ValueError: If it is no mapping.
    """
    if not isinstance(history, Mapping):
        raise ValueError(f"{path}: history is no mapping")
    return {
        name: [_number(x) for x in values] for name, values in history.items()
    }


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
