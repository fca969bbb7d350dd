"""Telling a run that is alive from one that was killed, and giving back the lock of the latter.

A killed Snakemake leaves its lock behind, and the next run is refused. Here every run holds a shared flock on one file,
and every job one on another, for as long as it lives; the kernel drops it with the process, however that ends. Who gets
both exclusively knows that nothing of an earlier run is alive. Jobs on a cluster run on when the controlling process
has died, perhaps on a file system without flock, so the lock of such a run is never given back by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ffnfold.files import write_json

STATE = Path(".snakemake")
RUNS, JOBS, OWNER = "ffnfold.runs.lock", "ffnfold.jobs.lock", "ffnfold.run.json"
GRACE_S = 20.0  # what the jobs of a killed run may take to end before they count as running on


def _try(stream: IO[str], kind: int) -> bool:
    """Whether the flock was got at once."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except OSError:  # held by another process, or a file system without flock
        return False
    return True


@contextlib.contextmanager
def job_alive(directory: Path = Path()) -> Iterator[None]:
    """Hold the jobs' flock for a block, where the workflow keeps its state in `directory`."""
    path = directory / STATE / JOBS
    if not path.parent.is_dir():
        yield
        return
    with path.open("a", encoding="utf-8") as stream:
        _try(stream, fcntl.LOCK_SH)
        yield


def _nothing_alive(directory: Path, run: IO[str], grace_s: float) -> bool | None:
    """True where neither a run nor a job lives, False where only jobs do after `grace_s`, None where a run does."""
    if not _try(run, fcntl.LOCK_EX):
        return None
    deadline = time.monotonic() + grace_s
    with (directory / STATE / JOBS).open("a", encoding="utf-8") as jobs:
        while not _try(jobs, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
    return True


def enter(directory: Path = Path(), grace_s: float = GRACE_S) -> tuple[IO[str], str | None]:
    """Join the runs of a working directory; give back the lock of one that was killed on this machine.

    Args:
        directory: the workflow's working directory.
        grace_s: how long to wait for the last jobs of a killed run to end.

    Returns:
        An open file that holds the flock until it is closed, and a message for the user where there is one.
    """
    state = directory / STATE
    state.mkdir(exist_ok=True)
    stream, message = (state / RUNS).open("a", encoding="utf-8"), None
    if (state / "locks").is_dir() and any((state / "locks").iterdir()):
        alone, owner = _nothing_alive(directory, stream, grace_s), _owner(directory)
        if alone is False:
            message = (
                "an earlier run here was killed, and its jobs run on.\n"
                "  remedy:   wait until they have ended, or end them, and start again"
            )
        elif alone and owner["executor"] == "local" and owner["host"] == socket.gethostname():
            shutil.rmtree(state / "locks")
            message = "an earlier run here was killed; its lock is given back, and what it left unfinished runs again"
        elif alone:
            run_id = _last_run_id(directory) or "<run id, see the newest file in .snakemake/log>"
            message = (
                f"an earlier run ({owner['executor']}, started on {owner['host']}) was killed; its jobs may run on.\n"
                f"  remedy:   scancel --name {run_id}; snakemake --unlock; start again with --rerun-incomplete"
            )
    _try(stream, fcntl.LOCK_SH)
    return stream, message


def _owner(directory: Path) -> dict[str, str]:
    """Executor and host of the last run that began; a run that was killed before it began started nothing elsewhere."""
    try:
        return json.loads((directory / STATE / OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"executor": "local", "host": socket.gethostname()}


def record_owner(executor: str, directory: Path = Path()) -> None:
    """Write down where the jobs of the run that begins will be: executor `local` or another's name."""
    write_json(directory / STATE / OWNER, {"executor": executor, "host": socket.gethostname()})


def _last_run_id(directory: Path) -> str | None:
    """The SLURM run id in the newest of Snakemake's logs that has one."""
    for path in sorted((directory / STATE / "log").glob("*.log"), reverse=True):
        found = re.search(r"SLURM run ID: (\S+)", path.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
    return None
