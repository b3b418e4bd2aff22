"""A folder's records: JSON files, and the tables that such files were put in.

`FOLDER/runs.parquet` stands for JSON files below FOLDER, each a row under its
path. Whoever looks for a record asks here and need not know where it is. A
file comes before the row of its path: a record that is being packed is in one
of them at any time.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from keras_hybrid._support import files, tables

# Table -> fields by which its records are told from those of the others.
TABLES = {
    "runs": {"dataset", "architecture", "arm", "history"},
    "traces": {"gamma", "projection", "sgd_fraction"},
    "curves": {"ceiling", "switches", "history"},
    "trainings": {"plan", "hyperparameters", "history"},
    "trials": {"trial_id", "hyperparameters", "metrics"},
    "tails": {"tail", "history", "training_loss"},
    "cooldowns": {"cell", "before", "tails"},
}


class Packed(NamedTuple):
    """What `pack` did.

    Attributes:
        tables: Table -> how many records it holds now.
        added: How many of them came from files, or another folder's tables.
        left: Files that are no record of any table, and stay as they are.
    """

    tables: dict[str, int]
    added: int
    left: list[str]


class Unpacked(NamedTuple):
    """What `unpack` did.

    Attributes:
        files: How many rows are files now.
        beside: Where rows are of which there was another file: beside it, as
            `FILE.packed`.
    """

    files: int
    beside: list[str]


def exists(path: Path) -> bool:
    """Whether there is a record of that path, in a file or in a table."""
    return path.exists() or packed_in(path) is not None


def read(path: Path, expected_format: int, what: str) -> dict[str, Any]:
    """Reads a record as `files.read_json` does, from a file or from a table.

    Raises:
        ValueError: If it is nowhere, unreadable or of another format.
    """
    try:
        return files.read_json(path, expected_format, what)
    except ValueError:
        record = _row(path)
        if record is None:
            raise
    return files.of_format(path, record, expected_format, what)


def below(folder: Path) -> list[Path]:
    """Returns the paths of all records below a folder, in their order.

    Raises:
        ValueError: If a table or a folder below it is not readable.
    """
    found = set(packed_below(folder))
    # Twice: what is packed, or taken apart, during one walk is in the other.
    for _ in range(2):
        for path in files.walk(folder):
            if path.suffix == ".json":
                found.add(path)
            elif _may_be_table(path):
                found |= {path.parent / name for name in _table(path)}
    return sorted(found)


def packed_below(folder: Path) -> list[Path]:
    """Returns the paths of the records below it that tables above it hold."""
    found: set[Path] = set()
    for place, name in _tables_above(folder):
        start = f"{name}/"
        found |= {
            folder / row.removeprefix(start)
            for row in _table(place)
            if row.startswith(start)
        }
    return sorted(found)


def in_folder(folder: Path, pattern: str) -> list[Path]:
    """Returns the paths of the records in a folder itself, by their names."""
    return [
        path
        for path in below(folder)
        if path.parent == folder and fnmatch.fnmatch(path.name, pattern)
    ]


def by_table(
    folder: Path,
) -> tuple[dict[str, dict[str, dict[str, Any]]], list[str]]:
    """Reads a folder: table -> path -> record, and the files of no table."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    left = []
    for path in below(folder):
        name = path.relative_to(folder).as_posix()
        record = _content(path)
        table = kind_of(record)
        if table is None:
            left.append(name)
        else:
            found.setdefault(table, {})[name] = record
    return found, left


def kind_of(record: Any) -> str | None:
    """Returns the table that a record belongs to, or None."""
    if not isinstance(record, dict):
        return None
    fields = set(record)
    return next((t for t, needed in TABLES.items() if needed <= fields), None)


def packed_in(path: Path) -> Path | None:
    """Returns the table that a record is read from, None if it is a file."""
    if path.exists():
        return None
    found = _place_of(path)
    return None if found is None else found[0]


def pack(folder: Path, source: Path | None = None) -> Packed:
    """Puts records into the tables of a folder, and removes their files.

    A kill leaves every record in a file or in a table, or in both, which is
    as good: the same call goes on.

    Args:
        folder: Its tables are written.
        source: Where the records are, in files or tables; it is left as it is.
            None (default): the files of `folder`, which are removed once the
            table has been read back from the disk.

    Raises:
        ValueError: If another process works in the folder, or if a record is
            not the one that the table has already; the message says what to do.
    """
    given = folder if source is None else source
    if not below(given):
        name = "folder" if source is None else "source"
        raise ValueError(
            f"`{name}` must hold records, or tables of them. Received: "
            f"{name}={str(given)!r}"
        )
    with files.locked(folder, files.walk(folder, ".lock")):
        fresh, left = by_table(given)
        if source is None:
            left += _without_links(folder, fresh)
        added = 0
        for name, records in fresh.items():
            added += _add(folder / f"{name}.parquet", records)
        if source is None:
            _remove(folder, [path for r in fresh.values() for path in r])
        counts = {
            name: len(_table(path))
            for name in TABLES
            if (path := folder / f"{name}.parquet").exists()
        }
    return Packed(counts, added, left)


def unpack(folder: Path) -> Unpacked:
    """Writes the records of a folder's tables as files; removes the tables.

    Where there is another file already, that file stays, and the row is
    written beside it.

    Raises:
        ValueError: If there is no table, or another process works there.
    """
    packed = _tables_below(folder)
    if not packed:
        raise ValueError(
            "`folder` must hold tables of records. Received: folder="
            f"{str(folder)!r}"
        )
    count, beside = 0, []
    with files.locked(folder, files.walk(folder, ".lock")):
        for place in packed:
            for name, record in _records(place):
                path = place.parent / name
                there = _from_file(path)
                if there is None:
                    files.write_json(path, record)
                elif tables.text(there) != tables.text(record):
                    kept = _free(path.with_name(f"{path.name}.packed"))
                    files.write_json(kept, record)
                    beside.append(kept.relative_to(folder).as_posix())
                count += 1
        for place in packed:
            place.unlink()
    return Unpacked(count, beside)


def restore(folder: Path) -> int:
    """Writes those records below a folder as files that are none; counts all.

    The tables stay: a search, for one, goes on from files alone.
    """
    paths = below(folder)
    for path in paths:
        if _from_file(path) is None and (record := _row(path)) is not None:
            files.write_json(path, record)
    return len(paths)


def _content(path: Path) -> Any:
    """What a file or a row holds; None where that is unreadable."""
    there = _from_file(path)
    return _row(path) if there is None else there


def _from_file(path: Path) -> Any:
    """What a file holds; None where there is none that is readable."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def _row(path: Path) -> dict[str, Any] | None:
    """The record that a table has for a path, or None."""
    found = _place_of(path)
    return None if found is None else _table(found[0])[found[1]]


def _place_of(path: Path) -> tuple[Path, str] | None:
    """The table that has a row for a path, and the row's name."""
    for place, name in _tables_above(path):
        if name in _table(place):
            return place, name
    return None


def _without_links(
    folder: Path, found: dict[str, dict[str, dict[str, Any]]]
) -> list[str]:
    """Takes out what lies behind links, whose files are not the folder's."""
    real = folder.resolve()
    behind = [
        name
        for of_table in found.values()
        for name in of_table
        if (folder / name).resolve() != real / name
    ]
    for of_table in found.values():
        for name in behind:
            of_table.pop(name, None)
    return behind


def _free(path: Path) -> Path:
    """The path, or one like it that nothing has yet."""
    count, free = 1, path
    while free.exists():
        count += 1
        free = path.with_name(f"{path.name}{count}")
    return free


def _add(path: Path, records: dict[str, dict[str, Any]]) -> int:
    """Adds records to a table; returns how many it did not have."""
    old = dict(_records(path)) if path.exists() else {}
    if path.exists() and not old:
        raise ValueError(
            f"{path} is no table of records: move it, or name another folder. "
            f"Received: folder={str(path.parent)!r}"
        )
    differing = [
        name
        for name in records.keys() & old.keys()
        if tables.text(records[name]) != tables.text(old[name])
    ]
    if differing:
        named = ", ".join(sorted(differing)[:3])
        raise ValueError(
            f"{path} has another record of {len(differing)} paths ({named}, "
            "...): remove these files, or take the table apart with "
            f"`keras-hybrid pack --undo {path.parent}`, which leaves them and "
            "writes the table's beside them, as FILE.packed. Received: "
            f"folder={str(path.parent)!r}"
        )
    new = {**old, **records}
    if len(new) == len(old):
        return 0
    tables.write(path, new)
    written = dict(_records(path))
    if {k: tables.text(v) for k, v in written.items()} != {
        k: tables.text(v) for k, v in new.items()
    }:
        raise ValueError(
            f"{path} does not hold what was written to it: look at the disk. "
            f"The files are kept. Received: folder={str(path.parent)!r}"
        )
    return len(new) - len(old)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    table = tables.Table(path)
    return ((name, table[name]) for name in table)


def _remove(folder: Path, names: list[str]) -> None:
    """Removes files below a folder, and the folders that nothing is left in."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    parents = {p for name in names for p in list(Path(name).parents)[:-1]}
    for parent in sorted(parents, reverse=True):
        with contextlib.suppress(OSError):
            (folder / parent).rmdir()


def _tables_above(path: Path) -> Iterator[tuple[Path, str]]:
    """The tables above a path, and the name of its row there."""
    # Where it is, and where a link to it leads.
    for whole in dict.fromkeys((path.absolute(), path.resolve())):
        for parent in whole.parents:
            for name in TABLES:
                place = parent / f"{name}.parquet"
                if place.exists():
                    yield place, whole.relative_to(parent).as_posix()


def _tables_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in files.walk(folder)
        if _may_be_table(path) and len(_table(path))
    )


def _may_be_table(path: Path) -> bool:
    return path.suffix == ".parquet" and path.stem in TABLES


def _table(path: Path) -> tables.Table | dict[str, dict[str, Any]]:
    """A table as it is now; read again only where it has changed.

    One that is gone meanwhile has no rows.
    """
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except FileNotFoundError:
        return {}


# A study and its variants; each is some ten megabytes.
@functools.lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> tables.Table:
    return tables.Table(path)
