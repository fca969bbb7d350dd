"""Helpers that need no study yet: finding the configuration, ending with a message instead of a traceback."""

import contextlib
import errno
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
# This checkout's library and no installed one, here and in jobs (in a conda environment ffnfold is not installed at all).
sys.path.insert(0, str(ROOT / "workflow"))

from ffnfold import preload, runlock, runmetadata
from ffnfold.artefacts import artefacts_on
from ffnfold.datasets import check_local_files, local_files
from ffnfold.dependencies import library_files
from ffnfold.device import resolve_device
from ffnfold.errors import InputError
from ffnfold.files import TOKENIZER_FILES, cached_sha256, inspect_local, load_config, tokenizer_length
from ffnfold.floors import FLOORS
from ffnfold.gates import console, known_values
from ffnfold.gpus import usable_gpus
from ffnfold.hub import check_hub_reachable, is_hub_id
from ffnfold.jobs import explained, failure_reason
from ffnfold.methods import REGISTRY, needs_of
from ffnfold.records import METRICS
from ffnfold.scenarios import SOUND, load_audit
from ffnfold.relations import check_against_base
from ffnfold.study import load_study, pretrained_config

preload.share_library(ROOT / "workflow")
if workflow.is_main_process:
    # Held until this process ends, so that the next one can tell whether it was killed.
    RUN = runlock.enter(unlocking="--unlock" in sys.argv)
    runmetadata.restore()
    if RUN.note:
        print(f"\nffnfold: {RUN.note}\n", file=sys.stderr)
# A study may be run in another directory with `--directory`; its own configuration there wins.
CONFIG_FILE = str(next(p for p in (Path("config/config.yaml"), ROOT / "config/config.yaml") if p.is_file()))
TASKS = ("language_modeling", "sentiment", "summarization")
TASK_OF_METRIC = {
    "perplexity": "language_modeling",
    "latency": "language_modeling",
    "sentiment": "sentiment",
    "summarization": "summarization",
}
FIGURES = ("perplexity_vs_parameters", "recovery", "latency", "sentiment", "summarization")


def stop(error):
    """End with the message alone: a user's mistake needs no traceback."""
    print(f"\nffnfold: {error}\n", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def checked(function, *arguments):
    """Call a function, and end with its message where it finds a user's mistake."""
    try:
        return function(*arguments)
    except InputError as error:
        stop(error)


def relative(path):
    """A file of the checkout, relative to the working directory where that is the checkout."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if Path.cwd() == ROOT and path.is_relative_to(ROOT) else str(path)


def script_of(rule):
    """A rule's script."""
    return relative(ROOT / "workflow" / "scripts" / f"{rule}.py")


@functools.cache
def library_of(rule, *modules, without=(), tied=False):
    """The library modules that a rule's script (and further modules) import: inputs, since Snakemake sees no imports.

    `without` names modules that this job does not reach; what only they import is left out too. Only jobs on `tied`
    models reach their classes.
    """
    without = without if tied else (*without, "sharing.py")
    library = ROOT / "workflow" / "ffnfold"
    roots = [ROOT / "workflow" / "scripts" / f"{rule}.py", *(library / m for m in modules)]
    files = library_files(*roots, without=[library / m for m in without])
    return [relative(p) for p in files] + [relative(p) for p in roots[1:]]


def all_cores(wildcards):
    """Every core that this run may use; 1 where the executor sets no such number."""
    try:
        return workflow.cores
    except WorkflowError:
        return 1


def contents(paths):
    """sha256 of local files, as a setting of the job that reads them: their times say nothing of a large file."""
    return cached_sha256(paths, Path(".snakemake/ffnfold.sha256.json")) if paths else {}


def checkpoint_files(source):
    """The files of a local checkpoint or tokenizer folder, [] for the hub and for none: a change in them is a new input."""
    if source is None or is_hub_id(source):
        return []
    names = ("config.json", "generation_config.json", *TOKENIZER_FILES)
    return sorted(map(str, Path(source).glob("*.safetensors"))) + [
        str(Path(source) / name) for name in names if (Path(source) / name).is_file()
    ]
