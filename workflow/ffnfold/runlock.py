"""Telling a run that is alive from one that was killed, and giving back the lock of the latter.

A killed Snakemake leaves its lock behind, and the next run is refused. Here every run holds a shared flock on one file,
and every job one on another, for as long as it lives; the kernel drops it with the process, however that ends. Who gets
both exclusively knows that nothing of an earlier run is alive. Jobs on a cluster run on when the controlling process
has died, where no flock of this machine tells of them, so such a run is never taken for ended: the user is told how to
end it, and that it has been ended is what `snakemake --unlock` says.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ffnfold.files import write_json

STATE = Path(".snakemake")
RUNS, JOBS, BEGUN = "ffnfold.runs.lock", "ffnfold.jobs.lock", "ffnfold.runs"
GRACE_S = 20.0  # what the jobs of a killed run may take to end before they count as running on


@dataclass
class Membership:
    """One run among those of a working directory.

    Attributes:
        stream: holds the flock until it is closed.
        flock: whether the file system has flocks.
        note: what the user should know, or None.
        refused: why no job may start, or None.
    """

    stream: IO[str]
    flock: bool = True
    note: str | None = None
    refused: str | None = None


def _try(stream: IO[str], kind: int) -> bool:
    """Whether the flock was got at once."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except OSError:  # held by another process, or a file system without flock
        return False
    return True


def _share(stream: IO[str]) -> bool:
    """Wait for the shared flock; False on a file system without."""
    try:
        fcntl.flock(stream, fcntl.LOCK_SH)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def job_alive(directory: Path = Path()) -> Iterator[None]:
    """Hold the jobs' flock for a block, where the workflow keeps its state in `directory`."""
    path = directory / STATE / JOBS
    if not path.parent.is_dir():
        yield
        return
    with path.open("a+", encoding="utf-8") as stream:
        _share(stream)
        yield


def _jobs_end(directory: Path, grace_s: float) -> bool:
    """Whether no job lives on this machine, after at most `grace_s`."""
    deadline = time.monotonic() + grace_s
    with (directory / STATE / JOBS).open("a+", encoding="utf-8") as jobs:
        while not _try(jobs, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
    return True


def enter(directory: Path = Path(), unlocking: bool = False, grace_s: float = GRACE_S) -> Membership:
    """Join the runs of a working directory; give back the lock of one that was killed on this machine.

    Args:
        directory: the workflow's working directory.
        unlocking: the user says that nothing of an earlier run is alive.
        grace_s: how long to wait for the last jobs of a killed run to end.
    """
    state = directory / STATE
    state.mkdir(exist_ok=True)
    member = Membership((state / RUNS).open("a+", encoding="utf-8"))
    locked = (state / "locks").is_dir() and any((state / "locks").iterdir())
    begun = _begun(directory)
    if (locked or begun) and _try(member.stream, fcntl.LOCK_EX):  # no other run on this machine is alive
        here = [run for run in begun if run["host"] == socket.gethostname()]
        elsewhere = [run for run in begun if run["executor"] != "local" or run not in here]
        if unlocking:
            if any(run["executor"] != "local" for run in begun):
                _distrust_unrecorded(directory)
            _forget(directory)
        elif elsewhere:
            member.note = member.refused = _lost(elsewhere[0], directory)
        elif locked and not all(run["flock"] for run in here):
            member.note = "an earlier run may have been killed: if nothing of it is alive, run snakemake --unlock"
        elif locked and not _jobs_end(directory, grace_s):
            member.note = member.refused = (
                "an earlier run here was killed, and its jobs run on\n"
                "  remedy:   wait until they have ended, or end them, and start again"
            )
        elif locked:
            shutil.rmtree(state / "locks")
            member.note = (
                "an earlier run here was killed; its lock is given back, and what it left unfinished runs again"
            )
            _forget(directory)
        else:
            _forget(directory)
    member.flock = _share(member.stream)
    return member


def _lost(run: dict, directory: Path) -> str:
    """What to do about a run whose jobs this machine cannot see."""
    what = f"an earlier run ({run['executor']}, started on {run['host']}) did not end by itself; its jobs may run on\n"
    if run["executor"] == "local":
        return what + f"  remedy:   end it on {run['host']}; then snakemake --unlock, and start again"
    run_id = _last_run_id(directory) or "<run id, see the newest file in .snakemake/log>"
    return (
        f"{what}  remedy:   scancel --name {run_id}; wait until `squeue --name {run_id}` is empty; snakemake --unlock; "
        "start again with --rerun-incomplete"
    )


def _begun(directory: Path) -> list[dict]:
    """The runs that began and have not said that they ended."""
    found = []
    for path in sorted((directory / STATE / BEGUN).glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def _forget(directory: Path) -> None:
    shutil.rmtree(directory / STATE / BEGUN, ignore_errors=True)


def _entry(directory: Path) -> Path:
    return directory / STATE / BEGUN / f"{socket.gethostname()}-{os.getpid()}.json"


def begin(executor: str, member: Membership, directory: Path = Path()) -> None:
    """Write down that a run begins, and where its jobs will be: executor `local` or another's name."""
    facts = {"executor": executor, "host": socket.gethostname(), "flock": member.flock}
    write_json(_entry(directory), facts)


def end(directory: Path = Path()) -> None:
    """Write down that this run has ended, with whatever result: none of its jobs is alive."""
    _entry(directory).unlink(missing_ok=True)


def _last_run_id(directory: Path) -> str | None:
    """The SLURM run id in the newest of Snakemake's logs that has one."""
    for path in sorted((directory / STATE / "log").glob("*.log"), reverse=True):
        found = re.search(r"SLURM run ID: (\S+)", path.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
    return None


def _distrust_unrecorded(directory: Path) -> None:
    """Mark results without one of Snakemake's notes as incomplete, so that `--rerun-incomplete` makes them again.

    A cluster job that ends after its controlling process leaves its outputs and no note of the settings they were made
    with; taken as they are, a later change of a setting would not be seen.
    """
    notes, marks = directory / STATE / "metadata", directory / STATE / "incomplete"
    marks.mkdir(exist_ok=True)
    for path in (directory / "results").rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts):
            name = base64.urlsafe_b64encode(path.relative_to(directory).as_posix().encode()).decode()
            if len(name) < 255 and not (notes / name).exists():
                (marks / name).write_text('{"external_jobid": null}', encoding="utf-8")
