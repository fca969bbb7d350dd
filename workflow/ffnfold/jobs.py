"""Running a rule's script: one calling convention, logging, messages instead of tracebacks, and warm interpreters.

Importing torch and transformers takes longer than most jobs of a small study compute. So the workflow may start one
process that imports them once and forks for each job (`ffnfold.preload`). A job that finds none runs in its own
process; results are the same either way.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ffnfold import preload
from ffnfold.errors import InputError
from ffnfold.files import training_folder
from ffnfold.gpus import claimed_gpu
from ffnfold.runlock import job_alive

log = logging.getLogger("ffnfold")

FAILED = "failed: "  # begins the last line of a failed job's log


def describe(snakemake: Any) -> dict[str, Any]:
    """A Snakemake script object as plain values: what crosses to another process as JSON."""

    def named(items: Any) -> dict[str, Any]:
        return {key: list(v) if isinstance(v, list | tuple) else v for key, v in items.items()}

    def paths(items: Any) -> dict[str, Any]:
        return {key: [str(p) for p in v] if isinstance(v, list) else str(v) for key, v in items.items()}

    return {
        "rule": snakemake.rule,
        "input": paths(snakemake.input),
        "output": paths(snakemake.output),
        "params": named(snakemake.params),
        "wildcards": {key: str(value) for key, value in snakemake.wildcards.items()},
        "log": str(snakemake.log[0]),
        "threads": int(snakemake.threads),
        "gpu": bool(snakemake.resources.get("gpu", 0)),
    }


def as_job(description: Mapping[str, Any]) -> SimpleNamespace:
    """What a script's `main` gets: input, output, params, wildcards (with named attributes), log, threads, rule."""
    spaces = {key: SimpleNamespace(**description[key]) for key in ("input", "output", "params", "wildcards")}
    return SimpleNamespace(**spaces, log=description["log"], threads=description["threads"], rule=description["rule"])


def execute(main: Callable[[SimpleNamespace], None], description: Mapping[str, Any]) -> int:
    """Run a script's `main` with its output in the rule's log; return the exit status.

    A user's mistake (`InputError`), a full disk and a lack of memory are printed as a message to the console and the
    log; anything else leaves its traceback in the log and the last line of it on the console.
    """
    path = Path(description["log"])
    path.parent.mkdir(parents=True, exist_ok=True)
    console = os.fdopen(os.dup(2), "w", encoding="utf-8")
    with path.open("w", encoding="utf-8") as stream, console:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
        )
        logging.getLogger("httpx").setLevel(logging.WARNING)
        names = " ".join(f"{key}={value}" for key, value in description["wildcards"].items())
        try:
            with job_alive(), claimed_gpu(description["gpu"]):  # a worker may outlive the process that asked for it
                main(as_job(description))
            for output in description["output"].values():  # all written: no training has to be gone on with
                shutil.rmtree(training_folder(output), ignore_errors=True)
        except BaseException as error:
            known = error if isinstance(error, InputError) else explained(error)
            with contextlib.suppress(OSError):  # the log's own disk may be the full one
                if known is None:
                    traceback.print_exc()
                    last = traceback.format_exception_only(error)[-1].strip()
                    print(f"\nffnfold: {description['rule']} {names} failed: {last}\n  log: {path}\n", file=console)
                else:
                    last = " ".join(str(known).split())
                    print(f"\nffnfold: {description['rule']} {names}: {known}\n", file=console)
                    log.error("%s", known, exc_info=known is not error)
                print(FAILED + last, file=sys.stderr)
            return 1
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
    return 0


def explained(error: BaseException) -> InputError | None:
    """What to do about a machine that ran out of disk or memory; None for any other error."""
    text = str(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text:
        return InputError(
            "the disk is full",
            where=str(getattr(error, "filename", None) or Path.cwd()),
            got=text,
            remedy="free space there and start again: what is finished stays, and nothing half-written is read",
        )
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if out_of_memory or "can't allocate memory" in text or "not enough memory" in text:
        return InputError(
            "out of memory",
            got=text.splitlines()[0] if text else type(error).__name__,
            remedy="give the job more memory (mem_mb on a cluster), run fewer at once (--cores), "
            "or raise training.accumulation or lower the batch size in the study",
        )
    return None


def failure_reason(logs: Sequence[str | Path]) -> str:
    """Why a figure is missing, from the logs of the failed jobs that it waits for; of a group all jobs count as failed.

    Args:
        logs: the failed jobs' logs, the figure's own first.
    """
    if not logs:
        return "not run: the workflow was stopped before"
    for log in reversed(logs):
        with contextlib.suppress(OSError):
            lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
            stated = [line.removeprefix(FAILED) for line in lines if line.startswith(FAILED)]
            if stated:
                return f"{stated[-1]} (log: {log})"
    return f"the job ended without a word, killed most likely, perhaps for want of memory (log: {logs[-1]})"


def _report_kill(description: Mapping[str, Any], number: int) -> None:
    """Say that a job was ended by a signal, on the console and in its log."""
    text = f"killed by signal {number}"
    if number == signal.SIGKILL:
        text += ", most likely by the system for want of memory; remedy: run fewer jobs at once (--cores)"
    names = " ".join(f"{key}={value}" for key, value in description["wildcards"].items())
    print(f"\nffnfold: {description['rule']} {names}: {text}\n  log: {description['log']}\n", file=sys.stderr)
    with Path(description["log"]).open("a", encoding="utf-8") as stream:
        print(FAILED + text, file=stream)


def run(snakemake: Any, main: Callable[[SimpleNamespace], None], warm: bool = True) -> None:
    """Entry point of every script: run `main` in a warm interpreter if `warm` and there is one, else here."""
    description = describe(snakemake)
    with job_alive():
        status = preload.submit(main.__globals__["__file__"], description) if warm else None
        if status is None:
            status = execute(main, description)
    if status < 0:
        _report_kill(description, -status)
    if status:
        sys.exit(status)
