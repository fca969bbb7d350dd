"""Keeping Snakemake's notes on finished jobs beside the results, so that both travel together.

Snakemake notes the checksums of the inputs and the settings of every job in `.snakemake/metadata`. Where that is lost
(a fresh clone that `results/` is moved into, another machine), file times alone decide, and a clone's files are newer
than any result: everything would run again. So a copy goes to `results/.metadata` after each run, and back where
Snakemake has no notes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NOTES, COPY = Path(".snakemake/metadata"), Path("results/.metadata")


def keep(directory: Path = Path()) -> None:
    """Copy what is new or changed among Snakemake's notes to the results."""
    if (directory / NOTES).is_dir():
        _mirror(directory / NOTES, directory / COPY)


def restore(directory: Path = Path()) -> bool:
    """Copy the results' notes back where Snakemake has none at all; whether that was so."""
    notes, copy = directory / NOTES, directory / COPY
    if not copy.is_dir() or (notes.is_dir() and any(notes.iterdir())):
        return False
    _mirror(copy, notes)
    return True


def _mirror(source: Path, target: Path) -> None:
    for folder, _, names in os.walk(source):
        there = target / Path(folder).relative_to(source)
        there.mkdir(parents=True, exist_ok=True)
        for name in names:
            old, new = there / name, Path(folder) / name
            if not old.exists() or old.stat().st_mtime_ns != new.stat().st_mtime_ns:
                shutil.copy2(new, old)
