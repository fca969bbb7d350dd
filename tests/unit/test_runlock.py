"""Locks of runs that were killed, with real processes."""

import subprocess
import sys
import time

import pytest
from ffnfold.runlock import enter, job_alive, record_owner

HOLD = """
import sys, time
from pathlib import Path
from ffnfold import runlock
directory = Path(sys.argv[2])
if sys.argv[1] == "run":
    held = runlock.enter(directory)
    print("held", flush=True)
    time.sleep(60)
else:
    with runlock.job_alive(directory):
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path):
    """A working directory whose last run left its lock behind."""
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.output.lock").write_text("results/x\n")
    return tmp_path


@pytest.fixture
def hold(directory):
    """hold("run" or "job") -> a process that holds the flock until it is killed."""
    processes = []

    def start(kind):
        process = subprocess.Popen([sys.executable, "-c", HOLD, kind, directory], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def locked(directory):
    return (directory / ".snakemake/locks").exists()


def test_the_lock_of_a_killed_run_is_given_back(directory):
    record_owner("local", directory)
    stream, message = enter(directory)
    assert not locked(directory) and "was killed" in message
    stream.close()


def test_without_a_lock_there_is_nothing_to_say(tmp_path):
    stream, message = enter(tmp_path)
    assert message is None and (tmp_path / ".snakemake").is_dir()
    stream.close()


def test_a_run_that_lives_keeps_its_lock_and_a_killed_one_loses_it(directory, hold):
    (directory / ".snakemake/locks/0.output.lock").unlink()
    process = hold("run")
    (directory / ".snakemake/locks/0.output.lock").write_text("results/x\n")
    stream, message = enter(directory, grace_s=0)
    assert locked(directory) and message is None
    stream.close()
    process.kill()
    process.wait()
    stream, message = enter(directory, grace_s=0)
    assert not locked(directory) and "was killed" in message
    stream.close()


def test_jobs_that_run_on_keep_the_lock_and_are_waited_for(directory, hold):
    process = hold("job")
    stream, message = enter(directory, grace_s=0.3)
    assert locked(directory) and "its jobs run on" in message and "remedy" in message
    stream.close()
    process.kill()
    started = time.monotonic()
    stream, message = enter(directory, grace_s=30)
    assert not locked(directory) and time.monotonic() - started < 10
    stream.close()


def test_the_lock_of_a_cluster_run_is_never_given_back(directory):
    record_owner("slurm", directory)
    (directory / ".snakemake/log").mkdir()
    (directory / ".snakemake/log/1.snakemake.log").write_text("SLURM run ID: 0a1b-2c\nnext line\n")
    stream, message = enter(directory)
    assert locked(directory)
    assert "scancel --name 0a1b-2c; snakemake --unlock;" in message
    stream.close()


def test_a_run_of_another_machine_is_left_alone(directory):
    (directory / ".snakemake/ffnfold.run.json").write_text('{"executor": "local", "host": "another"}')
    stream, message = enter(directory)
    assert locked(directory) and "another" in message
    stream.close()


def test_two_runs_in_one_directory_both_join(tmp_path):
    first, _ = enter(tmp_path)
    second, message = enter(tmp_path)
    assert message is None
    first.close()
    second.close()


def test_a_job_without_a_workflow_holds_nothing(tmp_path):
    with job_alive(tmp_path):
        assert list(tmp_path.iterdir()) == []
