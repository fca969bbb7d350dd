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
    study["base"]["training"]["steps"] = 150
    study["recovery"]["training"]["steps"] = study["metrics"]["sentiment"]["training"]["steps"] = 60
    study["variants"]["distilgpt2"]["training"]["steps"] = 60
    return write_study(tmp_path_factory.mktemp("kill") / "small.yaml", study)


@pytest.fixture(scope="module")
def undisturbed(study, tmp_path_factory):
    """Results of a run that nothing happened to, and how long it took in seconds."""
    directory, started = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    succeed(directory, *RESUMED, study=study, **SURROUNDINGS)
    return directory / "results/small", time.monotonic() - started


def kill_run(process, mark, whole):
    """SIGKILL a run: its first process alone, or that and every process that it started, until none is left."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    while whole and (alive := [p for p in psutil.process_iter() if p.pid != os.getpid() and marked(p, mark)]):
        for member in alive:
            with contextlib.suppress(psutil.Error):
                member.kill()
        time.sleep(0.02)


def marked(process, mark):
    """Whether a process or what it was forked from was started with this mark in its environment."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get("FFNFOLD_TEST_MARK") == mark
    except psutil.Error:
        return False


def resumed_rules(results):
    """Rules whose last job went on with a training."""
    return [log.parent.name for log in results.glob("logs/*/*.log") if "going on from" in log.read_text()]


def test_a_run_that_is_killed_anywhere_completes_with_the_same_results(study, undisturbed, tmp_path):
    expected, duration_s = undisturbed
    moments, kills, completed, resumed = random.Random(20260101), 0, 0, []
    directory = tmp_path / "0"
    directory.mkdir()
    while kills < KILLS:
        mark = f"{os.getpid()}-{kills}-{completed}"
        process = subprocess.Popen(
            command(directory, *RESUMED, study=study),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **SURROUNDINGS, "FFNFOLD_TEST_MARK": mark},
            cwd=ROOT,
        )
        try:
            _, errors = process.communicate(timeout=moments.uniform(0.5, 0.35 * duration_s))
            assert process.returncode == 0, errors[-4000:]
            assert differences(expected, directory / "results/small") == []
            resumed += resumed_rules(directory / "results/small")
            completed += 1
            directory = tmp_path / str(completed)
            directory.mkdir()
        except subprocess.TimeoutExpired:
            kill_run(process, mark, whole=kills % 3 != 2)
            kills += 1
    succeed(directory, *RESUMED, study=study, **SURROUNDINGS)
    results = directory / "results/small"
    resumed += resumed_rules(results)
    assert differences(expected, results) == [] and len(fingerprints(results)) > 80
    assert planned(snakemake(directory, "-n", study=study)) == []
    assert not [path for path in results.rglob("*") if path.suffix in (".tmp", ".training")], "nothing is left over"
    counts = ", ".join(f"{rule}: {resumed.count(rule)}" for rule in sorted(set(resumed)))
    print(f"\n{kills} kills; {completed + 1} studies completed, all identical; trainings gone on with: {counts}")
    assert len(set(resumed)) >= 2 or KILLS < 30, "hardly a training was hit"
