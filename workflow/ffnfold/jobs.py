"""Running a rule's script: one calling convention, logging, messages instead of tracebacks, and warm interpreters.

Importing torch and transformers takes longer than most jobs of a small study compute. So the workflow may start one
process that imports them once and forks for each job (`ffnfold.preload`). A job that finds none runs in its own
process; results are the same either way.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ffnfold import preload
from ffnfold.errors import InputError
from ffnfold.files import training_folder
from ffnfold.gpus import claimed_gpu
from ffnfold.runlock import job_alive

log = logging.getLogger("ffnfold")


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

    A user's mistake (`InputError`) is printed as a message to the console and the log; anything else leaves its
    traceback in the log and the last line of it on the console.
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
            with job_alive(), claimed_gpu(description["gpu"]):
                main(as_job(description))
            for output in description["output"].values():  # all written: no training has to be gone on with
                shutil.rmtree(training_folder(output), ignore_errors=True)
        except InputError as error:
            print(f"\nffnfold: {description['rule']} {names}: {error}\n", file=console)
            log.error("%s", error)
            return 1
        except BaseException as error:
            traceback.print_exc()
            last = traceback.format_exception_only(error)[-1].strip()
            print(f"\nffnfold: {description['rule']} {names} failed: {last}\n  log: {path}\n", file=console)
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    return 0


def run(snakemake: Any, main: Callable[[SimpleNamespace], None], warm: bool = True) -> None:
    """Entry point of every script: run `main` in a warm interpreter if `warm` and there is one, else here."""
    description = describe(snakemake)
    status = preload.submit(main.__globals__["__file__"], description) if warm else None
    if status is None:
        status = execute(main, description)
    if status:
        sys.exit(status)
