"""Records as one table: a Parquet file that pandas opens, exact to the bit.

A row is a record, which is a mapping as JSON has it. A field is a column; the
fields of a field are columns too, `configuration.label` or
`history.val_accuracy` (a list, one number an epoch); what lies deeper is JSON.
The column `path` names the record, and `fields` what it has, in its order, so
that null is not the same as absent; `history.` in it is a field without any.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_hybrid._support import files

Record = Mapping[str, Any]
PATH, FIELDS = "path", "fields"
# What a column says that holds JSON, beside one of plain text.
_JSON = {b"content": b"JSON"}
_LARGEST = 2**63


def text(content: Any) -> str:
    """Returns JSON that tells 1 from 1.0, and the order of fields."""
    return json.dumps(content, separators=(",", ":"))


class Table:
    """The rows of a file, as records by their paths.

    A Parquet file that `write` did not write has none.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is unreadable.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        self._path = path
        try:
            content = parquet.read_table(path)
        except FileNotFoundError:
            raise
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"{path}: not readable ({error})") from error
        self._json = {
            field.name for field in content.schema if field.metadata == _JSON
        }
        is_ours = {PATH, FIELDS} <= set(content.column_names)
        self._columns = content.to_pydict() if is_ours else {PATH: []}
        try:
            self._present = [
                [str(column) for column in json.loads(row)]
                for row in self._columns.get(FIELDS, [])
            ]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not readable (`{FIELDS}`: {error})"
            ) from error
        self._rows = {name: row for row, name in enumerate(self._columns[PATH])}
        for name in self._rows:
            if (
                not isinstance(name, str)
                or name.startswith("/")
                or ".." in name.split("/")
            ):
                raise ValueError(
                    f"{path}: not readable (a row is not below its folder: "
                    f"{name})"
                )

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, name: str) -> dict[str, Any]:
        """The record of a path; the caller may change it."""
        row = self._rows[name]
        record: dict[str, Any] = {}
        for column in self._present[row]:
            field, dot, inner = column.partition(".")
            if _says_empty(column):
                record[field] = {}
                continue
            if column not in self._columns:
                raise ValueError(
                    f"{self._path}: not readable (no column {column})"
                )
            value = self._columns[column][row]
            if column in self._json and value is not None:
                value = json.loads(value)
            elif isinstance(value, list):
                value = list(value)
            if dot:
                record.setdefault(field, {})[inner] = value
            else:
                record[field] = value
        return record


def write(path: Path, records: Mapping[str, Record]) -> None:
    """Writes records by their paths; a kill leaves the old file or the new one.

    Raises:
        DiskFull: If there is no room.
        NotWritable: If the folder cannot be made or written to.
        ValueError: If a field has the name of a column of the table's own.
    """
    from pyarrow import parquet

    content = arrow(records)
    with files.atomically(path) as partial:
        # Numbers of curves seldom repeat; text does, and zstd sees that.
        parquet.write_table(
            content,
            partial,
            compression="zstd",
            compression_level=9,
            use_dictionary=False,
        )
        # Whoever removes the files that went into it relies on the disk.
        with partial.open("rb+") as file:
            os.fsync(file.fileno())


def arrow(records: Mapping[str, Record]) -> Any:
    """Returns the records as a `pyarrow.Table`, in the order of their paths."""
    import pyarrow

    rows = {name: _flat(records[name]) for name in sorted(records)}
    columns = dict.fromkeys(
        name for row in rows.values() for name in row if not _says_empty(name)
    )
    arrays = [
        pyarrow.array(list(rows), pyarrow.string()),
        pyarrow.array([text(list(row)) for row in rows.values()]),
    ]
    schema = [pyarrow.field(PATH, pyarrow.string())]
    schema.append(pyarrow.field(FIELDS, pyarrow.string()))
    for name in columns:
        values = [row.get(name) for row in rows.values()]
        kind = _type(values)
        if kind is None:
            values = [
                None if value is None else text(value) for value in values
            ]
            schema.append(pyarrow.field(name, pyarrow.string(), metadata=_JSON))
        else:
            schema.append(pyarrow.field(name, kind))
        arrays.append(pyarrow.array(values, schema[-1].type))
    return pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(schema))


def _flat(record: Record) -> dict[str, Any]:
    """Column -> value of a record; of an empty field, "field." -> {}."""
    columns: dict[str, Any] = {}
    for field, value in record.items():
        if field in (PATH, FIELDS) or "." in field:
            raise ValueError(
                f"A field of a record must not be {PATH!r} or {FIELDS!r}, nor "
                f"have a dot in its name. Received: {field!r}"
            )
        if isinstance(value, Mapping) and not value:
            columns[f"{field}."] = value
        elif isinstance(value, Mapping) and "" not in value:
            columns |= {f"{field}.{inner}": v for inner, v in value.items()}
        else:
            columns[field] = value
    return columns


def _says_empty(column: str) -> bool:
    """Whether it only says that a field is there and has no fields."""
    return column.partition(".")[1:] == (".", "")


def _type(values: list[Any]) -> Any:
    """The one Arrow type that holds all values exactly; None: as JSON."""
    import pyarrow

    scalars = {
        bool: pyarrow.bool_(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.string(),
    }
    given = [value for value in values if value is not None]
    is_list = {isinstance(value, list) for value in given}
    if is_list == {True}:
        given = [x for value in given for x in value if x is not None]
    kinds = {type(value) for value in given}
    if len(is_list) > 1 or len(kinds) > 1 or not kinds <= scalars.keys():
        return None
    if kinds == {int} and any(abs(value) >= _LARGEST for value in given):
        return None
    kind = scalars[kinds.pop()] if kinds else pyarrow.float64()
    return pyarrow.list_(kind) if is_list == {True} else kind
