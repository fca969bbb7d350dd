"""SIGKILL of the whole run at random moments; the next run goes on, and in the end nothing tells that it happened."""

import contextlib
import os
import random
import signal
import subprocess
import time

import psutil
import pytest
from comparing import differences, fingerprints
from running import ROOT, command, planned, small_study, snakemake, succeed, write_study

KILLS = int(os.environ.get("FFNFOLD_KILLS", "30"))
RESUMED = ("all", "--rerun-incomplete")
# A state of every training after every step, so that training is gone on with wherever it is hit.
SURROUNDINGS = {"FFNFOLD_CHECKPOINT_SECONDS": "0"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The small study with trainings long enough to be hit."""
    study = small_study()
    study["base"]["training"]["steps"] = study["recovery"]["training"]["steps"] = 20
    study["metrics"]["sentiment"]["training"]["steps"] = 20
    return write_study(tmp_path_factory.mktemp("kill") / "small.yaml", study)


@pytest.fixture(scope="module")
def undisturbed(study, tmp_path_factory):
    """Results of a run that nothing happened to, and how long it took in seconds."""
    directory, started = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    succeed(directory, *RESUMED, study=study, **SURROUNDINGS)
    return directory / "results/small", time.monotonic() - started


def kill_run(process):
    """SIGKILL a run and every process that it started, all at once."""
    tree = [process, *psutil.Process(process.pid).children(recursive=True)]
    for member in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    process.wait()


def test_a_run_that_is_killed_anywhere_completes_with_the_same_results(study, undisturbed, tmp_path):
    expected, duration_s = undisturbed
    moments, kills, completed, resumed = random.Random(20260101), 0, 0, 0
    directory = tmp_path / "0"
    directory.mkdir()
    while kills < KILLS:
        process = subprocess.Popen(
            command(directory, *RESUMED, study=study),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **SURROUNDINGS},
            cwd=ROOT,
        )
        try:
            _, errors = process.communicate(timeout=moments.uniform(0.5, 0.7 * duration_s))
            assert process.returncode == 0, errors[-4000:]
            assert differences(expected, directory / "results/small") == []
            completed += 1
            directory = tmp_path / str(completed)
            directory.mkdir()
        except subprocess.TimeoutExpired:
            kill_run(process)
            kills += 1
            resumed += any((directory / "results").glob("**/step-*"))
    succeed(directory, *RESUMED, study=study, **SURROUNDINGS)
    results = directory / "results/small"
    assert differences(expected, results) == [] and len(fingerprints(results)) > 80
    assert planned(snakemake(directory, "-n", study=study)) == []
    assert not [path for path in results.rglob("*") if path.suffix in (".tmp", ".training")], "nothing is left over"
    print(f"\n{kills} kills, {resumed} of them inside a training; {completed + 1} studies completed, all identical")
    assert resumed or KILLS < 30, "no kill hit a training"
