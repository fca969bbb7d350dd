"""Reading a task's prepared splits: checked against dataset_info.json before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ffnfold.errors import InputError
from ffnfold.files import read_json, sha256_file

INFO = "dataset_info.json"


def load_info(directory: str | Path) -> dict[str, Any]:
    """Content of a task's dataset_info.json.

    Raises:
        InputError: it is missing or is not JSON.
    """
    return read_json(Path(directory) / INFO)


def read_split(directory: str | Path, split: str):
    """One split as a pandas DataFrame with the task's columns, its file checked against dataset_info.json.

    Raises:
        InputError: the file is missing or its bytes changed; names both sha256.
    """
    import pyarrow.parquet

    path = Path(directory) / f"{split}.parquet"
    expected = load_info(directory)["splits"][split]["sha256"]
    found = sha256_file(path) if path.is_file() else "no file"
    if found != expected:
        raise InputError(
            "a data file is not the one that was written",
            where=str(path),
            got=f"sha256 {found}",
            expected=f"sha256 {expected}",
            remedy=f"delete {directory} and run the workflow again",
        )
    return pyarrow.parquet.read_table(path).to_pandas()


def read_text(directory: str | Path, split: str) -> str:
    """The whole text of a language-modelling split: its rows joined by the task's `join`.

    Raises:
        InputError: as `read_split`.
    """
    return load_info(directory)["join"].join(read_split(directory, split)["text"])
