"""Local text data (.txt, .jsonl, .csv, .parquet) as columns, with the file and line of every row for messages."""

from __future__ import annotations

import csv
import json
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ffnfold.errors import InputError

SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet")


@dataclass
class Rows:
    """Columns of equal length read from one or more files.

    `columns` maps a name to its values; `lines` holds the line (row, for Parquet) of each in its file, from 1;
    `files` holds (index of the file's first row, path).
    """

    columns: dict[str, list[Any]]
    lines: list[int] = field(default_factory=list)
    files: list[tuple[int, Path]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str, indices: Sequence[int] | None = None) -> list[Any]:
        """Values of a column, all or at `indices`."""
        values = self.columns[name]
        return values if indices is None else [values[index] for index in indices]

    def has(self, name: str) -> bool:
        """Whether any row has a value in this column."""
        return any(value is not None for value in self.columns.get(name, ()))

    def place(self, index: int) -> str:
        """File and line of a row."""
        first = bisect_right(self.files, index, key=lambda entry: entry[0]) - 1
        return f"{self.files[first][1]}, line {self.lines[index]}"


def read_rows(paths: Iterable[str | Path], required: Sequence[str], optional: Sequence[str] = ()) -> Rows:
    """Read files of the same columns, one after the other.

    Args:
        paths: .txt (one row a line, blank lines kept; one column), .jsonl, .csv with a header, or .parquet.
        required: columns that every row must have.
        optional: columns that are None where absent.

    Raises:
        InputError: names the file, the line and the column at fault.
    """
    rows = Rows({name: [] for name in (*required, *optional)})
    for path in map(Path, paths):
        _check_exists(path, required)
        rows.files.append((len(rows.lines), path))
        for line, values in _READERS[path.suffix](path, tuple(required), tuple(optional)):
            rows.lines.append(line)
            for name, value in values.items():
                rows.columns[name].append(value)
    return rows


def check_file(path: str | Path, required: Sequence[str]) -> None:
    """Check in milliseconds that a file exists, is not empty, and that its first row has the columns.

    Raises:
        InputError: names the file, and the column at fault.
    """
    path = Path(path)
    _check_exists(path, required)
    if path.suffix == ".parquet":
        _check_columns(path, _parquet_file(path).schema_arrow.names, required)
    else:
        next(_READERS[path.suffix](path, tuple(required), ()), None)


def _check_exists(path: Path, required: Sequence[str]) -> None:
    if not path.is_file():
        raise InputError("a data file does not exist", where=str(path), remedy="correct the `source` key")
    if path.suffix not in SUFFIXES:
        raise InputError(
            "a data file is of an unknown kind",
            where=str(path),
            got=path.suffix or "no suffix",
            expected=_one_of(SUFFIXES),
        )
    if path.stat().st_size == 0:
        raise InputError("a data file is empty", where=str(path), remedy="fill it, or leave it out of `source`")
    if path.suffix == ".txt" and len(required) != 1:
        raise InputError(
            "a .txt file holds one column only",
            where=str(path),
            expected=f"the columns {', '.join(required)}",
            remedy="write .jsonl, .csv or .parquet",
        )


def _one_of(names: Iterable[str]) -> str:
    return " or ".join(names)


def _check_columns(path: Path, found: Sequence[str], required: Sequence[str], line: int | None = None) -> None:
    for name in required:
        if name not in found:
            raise InputError(
                "a column is missing",
                where=str(path) if line is None else f"{path}, line {line}",
                got=f"columns: {', '.join(map(str, found)) or 'none'}",
                expected=f"a column {name!r}",
                remedy="correct the `columns` key, or the file",
            )


def _text_lines(path: Path) -> Iterator[str]:
    """Lines without their line end, LF or CRLF; a byte order mark is dropped."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as stream:
            for line in stream:
                yield line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InputError(
            "a data file is not UTF-8", where=str(path), got=f"{error.reason} near byte {error.start}", expected="UTF-8"
        ) from None


def _read_txt(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    absent = dict.fromkeys(optional)
    for number, line in enumerate(_text_lines(path), start=1):
        yield number, {required[0]: line, **absent}


def _read_jsonl(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(_text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(
                "a line is not JSON",
                where=f"{path}, line {number}",
                got=f"{line[:60]!r} ({error})",
                expected="one JSON object a line",
                remedy="correct the line",
            ) from None
        if not isinstance(row, dict):
            raise InputError("a line is not a JSON object", where=f"{path}, line {number}", got=repr(row)[:60])
        _check_columns(path, list(row), required, number)
        yield number, {name: row.get(name) for name in (*required, *optional)}


def _read_csv(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    limit = csv.field_size_limit(sys.maxsize)  # articles are longer than the default allows
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            _check_columns(path, header, required)
            positions = {name: header.index(name) for name in (*required, *optional) if name in header}
            absent = dict.fromkeys(name for name in optional if name not in header)
            for values in reader:
                if not values:
                    continue
                if len(values) != len(header):
                    raise InputError(
                        "a row has another number of fields than the header",
                        where=f"{path}, line {reader.line_num}",
                        got=len(values),
                        expected=f"{len(header)} fields",
                    )
                yield reader.line_num, {**{name: values[at] for name, at in positions.items()}, **absent}
    except UnicodeDecodeError as error:
        raise InputError("a data file is not UTF-8", where=str(path), got=error.reason, expected="UTF-8") from None
    except csv.Error as error:
        raise InputError("a line is not CSV", where=f"{path}, line {reader.line_num}", got=error) from None
    finally:
        csv.field_size_limit(limit)


def _parquet_file(path: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        got = " ".join(str(error).split())
        raise InputError("a data file is not Parquet, or is truncated", where=str(path), got=got) from None


def _read_parquet(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    with _parquet_file(path) as source:
        found = source.schema_arrow.names
        _check_columns(path, found, required)
        absent = dict.fromkeys(name for name in optional if name not in found)
        number = 0
        for batch in source.iter_batches(columns=[name for name in (*required, *optional) if name in found]):
            for row in batch.to_pylist():
                number += 1
                yield number, {**row, **absent}


_READERS = {".txt": _read_txt, ".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
