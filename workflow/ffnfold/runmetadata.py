"""Keeping Snakemake's notes on finished jobs beside the results, so that both travel together.

Snakemake notes the checksums of the inputs and the settings of every job in `.snakemake/metadata`. Where that is lost
(a fresh clone that `results/` is moved into, another machine), file times alone decide, and a clone's files are newer
than any result: everything would run again. So a copy goes to `results/.metadata` after each run, and back where
Snakemake has no notes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

NOTES, COPY = Path(".snakemake/metadata"), Path("results/.metadata")


def keep(directory: Path = Path()) -> None:
    """Copy what is new or changed among Snakemake's notes to the results, as far as the disk has room."""
    if (directory / NOTES).is_dir():
        with contextlib.suppress(OSError):
            _mirror(directory / NOTES, directory / COPY)


def restore(directory: Path = Path()) -> bool:
    """Copy the results' notes back where Snakemake has none at all; whether that was so."""
    notes, copy = directory / NOTES, directory / COPY
    if not copy.is_dir() or (notes.is_dir() and any(notes.iterdir())):
        return False
    unfinished = notes.with_name("metadata.restoring")
    shutil.rmtree(unfinished, ignore_errors=True)
    _mirror(copy, unfinished)
    shutil.rmtree(notes, ignore_errors=True)
    unfinished.rename(notes)
    return True


def _mirror(source: Path, target: Path) -> None:
    for folder, _, names in os.walk(source):
        there = target / Path(folder).relative_to(source)
        there.mkdir(parents=True, exist_ok=True)
        for name in names:
            old, new = there / name, Path(folder) / name
            if not old.exists() or old.stat().st_mtime_ns != new.stat().st_mtime_ns:
                half = there / f".{name[:100]}.tmp"
                shutil.copy2(new, half)
                os.replace(half, old)
