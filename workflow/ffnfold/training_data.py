"""Reading the training rows of one or more tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffnfold.splits import load_info, read_split


def read_training_rows(infos: str | Sequence[str]) -> dict[str, tuple[dict[str, list[Any]], str]]:
    """Task -> (training rows by column, join) for the dataset_info.json files given."""
    paths = [infos] if isinstance(infos, str) else list(infos)
    data = {}
    for path in paths:
        directory = Path(path).parent
        info = load_info(directory)
        rows = read_split(directory, "train")
        data[info["task"]] = ({name: list(rows[name]) for name in rows}, info["join"])
    return data
