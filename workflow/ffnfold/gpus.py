"""Giving each concurrent job of one machine a GPU of its own.

Snakemake counts GPUs but does not say which one a job gets. Here a job takes the first GPU whose flock is free and sees
that one alone (`CUDA_VISIBLE_DEVICES`); the kernel frees it when the job ends, however that happens. The flocks are
files of the user, shared by all runs of this user on the machine, so two studies do not meet on a GPU either. Under
SLURM only the GPUs of the allocation are looked at. Machines without NVIDIA's driver are left untouched.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
_GPU = re.compile(r"^GPU (\d+): .*\(UUID: (GPU-[^)]+)\)")
_SLICE = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)")


def installed_gpus() -> list[str]:
    """UUIDs of the machine's NVIDIA GPUs in the driver's order; MIG slices for their GPU; [] without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("nvidia-smi -L failed, GPUs are not shared out: %s", error)
        return []
    groups: list[list[str]] = []
    for line in listed.splitlines():
        if found := _GPU.match(line):
            groups.append([found[2]])
        elif (found := _SLICE.match(line)) and groups:
            groups[-1].append(found[1])
    return [uuid for whole, *slices in groups for uuid in (slices or [whole])]


def usable_gpus() -> list[str]:
    """UUIDs of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, all where that is not set."""
    installed = installed_gpus()
    wanted = os.environ.get(VISIBLE)
    if wanted is None or not installed:
        return installed
    chosen = []
    for entry in filter(None, map(str.strip, wanted.split(","))):
        matches = [uuid for uuid in installed if uuid.startswith(entry)]
        if entry.isdecimal() and int(entry) < len(installed):
            matches = [installed[int(entry)]]
        if not matches:  # as CUDA does: an entry that is none hides all that follow
            break
        chosen += matches
    return list(dict.fromkeys(chosen))


@contextlib.contextmanager
def claimed_gpu(wanted: bool, poll_s: float = 0.5) -> Iterator[str | None]:
    """Hold one free GPU for a block, and let this process see no other.

    Args:
        wanted: False yields None and changes nothing.
        poll_s: how often to look again while all GPUs are taken.

    Yields:
        The GPU's UUID; None where no GPU is wanted or none is known.
    """
    uuids = usable_gpus() if wanted else []
    if not uuids:
        given = os.environ.get(VISIBLE) if wanted else None
        if given is not None:
            log.info("GPU %s, as the scheduler gave it", given)
        yield None
        return
    folder = Path(tempfile.gettempdir()) / f"ffnfold-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        uuid = None
        waiting = False
        while uuid is None:
            uuid = next((u for u in uuids if _take(folder / u, stack)), None)
            if uuid is None:
                if not waiting:
                    log.info("waiting for one of %d GPUs", len(uuids))
                waiting = True
                time.sleep(poll_s)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = uuid
        log.info("GPU %s", uuid)
        try:
            yield uuid
        finally:
            os.environ.pop(VISIBLE)
            if before is not None:
                os.environ[VISIBLE] = before
            log.info("GPU %s is free again", uuid)


def _take(path: Path, stack: contextlib.ExitStack) -> bool:
    """Whether the flock on a GPU's file was got; it is kept in `stack`."""
    stream = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return False
    stack.enter_context(stream)
    return True
