"""Locks of runs that were killed, with real processes."""

import base64
import subprocess
import sys
import time

import pytest
from ffnfold.runlock import Membership, begin, end, enter, job_alive

HOLD = """
import sys, time
from pathlib import Path
from ffnfold import runlock
directory = Path(sys.argv[2])
if sys.argv[1] == "run":
    held = runlock.enter(directory)
    runlock.begin(sys.argv[3], held, directory)
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

    def start(kind, executor="local"):
        arguments = [sys.executable, "-c", HOLD, kind, directory, executor]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        kill(process)


def kill(process):
    process.kill()
    process.wait()


def locked(directory):
    return (directory / ".snakemake/locks").exists()


def look(directory, **options):
    """Join and leave."""
    member = enter(directory, **options)
    member.stream.close()
    return member


def test_the_lock_of_a_killed_run_is_given_back(directory, hold):
    kill(hold("run"))
    (directory / ".snakemake/locks").mkdir(exist_ok=True)
    (directory / ".snakemake/locks/0.output.lock").write_text("results/x\n")
    member = look(directory)
    assert not locked(directory) and "was killed" in member.note and member.refused is None and member.flock
    assert look(directory).note is None


def test_without_a_lock_there_is_nothing_to_say(tmp_path):
    assert look(tmp_path).note is None and (tmp_path / ".snakemake").is_dir()


def test_a_run_that_lives_keeps_its_lock_and_a_killed_one_loses_it(directory, hold):
    process = hold("run")
    (directory / ".snakemake/locks").mkdir(exist_ok=True)
    (directory / ".snakemake/locks/0.output.lock").write_text("results/x\n")
    member = look(directory, grace_s=0)
    assert locked(directory) and member.note is None and member.refused is None
    kill(process)
    assert "was killed" in look(directory, grace_s=0).note and not locked(directory)


def test_jobs_that_run_on_keep_the_lock_and_are_waited_for(directory, hold):
    process = hold("job")
    member = look(directory, grace_s=0.3)
    assert locked(directory) and "its jobs run on" in member.refused and "remedy" in member.note
    kill(process)
    started = time.monotonic()
    look(directory, grace_s=30)
    assert not locked(directory) and time.monotonic() - started < 10


def lose_cluster_run(directory, hold):
    """A run on a cluster whose first process was killed."""
    kill(hold("run", "slurm"))
    (directory / ".snakemake/log").mkdir()
    (directory / ".snakemake/log/1.snakemake.log").write_text("SLURM run ID: 0a1b-2c\nnext line\n")


def test_a_lost_cluster_run_is_never_taken_for_ended(directory, hold):
    lose_cluster_run(directory, hold)
    for _ in range(2):
        member = look(directory)
        assert "scancel --name 0a1b-2c; wait until" in member.refused and "snakemake --unlock" in member.note


def test_another_study_in_between_does_not_hide_a_lost_cluster_run(directory, hold):
    lose_cluster_run(directory, hold)
    kill(hold("run"))
    assert "scancel" in look(directory).refused


def test_unlocking_says_that_a_cluster_run_has_ended_and_its_unrecorded_results_run_again(directory, hold):
    lose_cluster_run(directory, hold)
    recorded, other = directory / "results/s/a.json", directory / "results/s/b.json"
    for path in (recorded, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    notes = directory / ".snakemake/metadata"
    notes.mkdir()
    (notes / base64.urlsafe_b64encode(b"results/s/a.json").decode()).write_text("{}")
    assert look(directory, unlocking=True).refused is None
    marks = [base64.urlsafe_b64decode(p.name).decode() for p in (directory / ".snakemake/incomplete").iterdir()]
    assert marks == ["results/s/b.json"]
    assert look(directory).refused is None


def test_a_run_that_ended_leaves_nothing_to_say(tmp_path):
    member = enter(tmp_path)
    begin("slurm", member, tmp_path)
    end(tmp_path)
    member.stream.close()
    assert look(tmp_path).note is None


def test_a_run_of_another_machine_is_left_alone(directory):
    (directory / ".snakemake/ffnfold.runs").mkdir()
    (directory / ".snakemake/ffnfold.runs/a.json").write_text('{"executor": "local", "host": "another", "flock": true}')
    member = look(directory)
    assert locked(directory) and "end it on another" in member.refused


def test_without_flocks_no_lock_is_given_back(directory):
    begin("local", Membership(stream=None, flock=False), directory)
    member = look(directory)
    assert locked(directory) and "snakemake --unlock" in member.note and member.refused is None


def test_two_runs_in_one_directory_both_join(tmp_path):
    first, second = enter(tmp_path), enter(tmp_path)
    assert second.note is None and second.flock
    first.stream.close()
    second.stream.close()


def test_a_job_without_a_workflow_holds_nothing(tmp_path):
    with job_alive(tmp_path):
        assert list(tmp_path.iterdir()) == []
