import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from ffnfold import preload
from ffnfold.jobs import as_job, describe, explained, failure_reason

LINUX = pytest.mark.skipif(not preload.supported(), reason="preloading needs Linux")

# A server that preloads nothing, so that the tests need not wait for the model stack.
SERVER = (
    "import sys; from ffnfold import preload; preload.MODULES = ('json',); preload.serve(sys.argv[1], int(sys.argv[2]))"
)
RUN = "import json, sys; from ffnfold import jobs, preload; description = json.load(open(sys.argv[2]));"
EXECUTE = RUN + "import runpy; sys.exit(jobs.execute(runpy.run_path(sys.argv[1])['main'], description))"
SUBMIT = RUN + "status = preload.submit(sys.argv[1], description); sys.exit(99 if status is None else status)"

WRITES = """
def main(job):
    import json, os
    print("to the log")
    facts = {"pid": os.getpid(), "marker": os.environ.get("MARKER"), "directory": os.getcwd()}
    with open(job.output.facts, "w") as stream:
        json.dump({**facts, "n": job.params.n, "threads": job.threads}, stream)
"""
MISTAKE = """
def main(job):
    from ffnfold.errors import InputError
    raise InputError("the file is empty", where="data.csv", got="0 rows", remedy="fill it")
"""
CRASH = """
def main(job):
    raise KeyError("missing piece")
"""
SLEEPS = """
def main(job):
    import os, time
    with open(job.output.facts + ".part", "w") as stream:
        stream.write(str(os.getpid()))
    os.replace(job.output.facts + ".part", job.output.facts)
    time.sleep(120)
"""


def wait_for(condition, seconds=20):
    """Wait until a condition holds; fail after some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def alive(pid):
    """Whether a process runs; one that has ended and is not yet waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def job(tmp_path):
    """A function that writes a script and its description, and gives the arguments of a process that runs it."""

    def prepare(code, source):
        script, description = tmp_path / "script.py", tmp_path / "description.json"
        script.write_text(source)
        content = {
            "rule": "measure_beauty",
            "input": {},
            "output": {"facts": str(tmp_path / "facts")},
            "params": {"n": [1, {"a": None}]},
            "wildcards": {"variant": "merged_2"},
            "log": str(tmp_path / "logs" / "a.log"),
            "threads": 1,
            "gpu": False,
        }
        description.write_text(json.dumps(content))
        return [sys.executable, "-c", code, str(script), str(description)]

    return prepare


@pytest.fixture
def server(tmp_path):
    """A running server and its address."""
    folder = tmp_path / "socket"
    folder.mkdir()
    address = folder / "s"
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(address), str(os.getpid())])
    wait_for(address.exists)
    yield SimpleNamespace(address=str(address), process=process, folder=folder)
    process.terminate()
    process.wait(10)


def call(arguments, **environment):
    return subprocess.run(
        arguments, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


# --------------------------------------------------------------------------------------------------- description


class Named(dict):
    """As Snakemake's named lists: items by name."""


def test_a_description_goes_through_json_and_back():
    from pathlib import Path

    snakemake = SimpleNamespace(
        rule="measure_latency",
        input=Named(checkpoint=Path("a/manifest.json"), data=["b", Path("c")]),
        output=Named(record="d.json"),
        params=Named(settings={"repeats": 5, "x": None}, seed=7, tasks=("a", "b")),
        wildcards=Named(study="mini", replicate=0),
        log=["logs/a.log"],
        threads=2,
        resources={"gpu": 1, "tmpdir": "/tmp"},
    )
    description = describe(snakemake)
    assert json.loads(json.dumps(description)) == description
    job = as_job(json.loads(json.dumps(description)))
    assert job.input.checkpoint == "a/manifest.json" and job.input.data == ["b", "c"]
    assert job.output.record == "d.json"
    assert job.params.settings == {"repeats": 5, "x": None} and job.params.seed == 7 and job.params.tasks == ["a", "b"]
    assert job.wildcards.study == "mini" and job.wildcards.replicate == "0"
    assert (job.log, job.threads, job.rule) == ("logs/a.log", 2, "measure_latency")
    assert description["gpu"] is True
    assert not hasattr(job.input, "other")


# --------------------------------------------------------------------------------------------------- execute


def test_a_job_that_succeeds_writes_to_its_log_alone(job, tmp_path):
    done = call(job(EXECUTE, WRITES), MARKER="here")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((tmp_path / "facts").read_text())["n"] == [1, {"a": None}]
    assert (tmp_path / "logs" / "a.log").read_text() == "to the log\n"


def test_a_users_mistake_is_a_message_and_no_traceback(job, tmp_path):
    done = call(job(EXECUTE, MISTAKE))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "\nffnfold: measure_beauty variant=merged_2: the file is empty\n"
        "  where:    data.csv\n  got:      0 rows\n  remedy:   fill it\n\n"
    )
    log = (tmp_path / "logs" / "a.log").read_text()
    assert "the file is empty" in log and "Traceback" not in log


def test_any_other_error_leaves_its_traceback_in_the_log(job, tmp_path):
    done = call(job(EXECUTE, CRASH))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "KeyError: 'missing piece'" in done.stderr and "a.log" in done.stderr
    assert "Traceback" in (tmp_path / "logs" / "a.log").read_text()


# --------------------------------------------------------------------------------------------------- preload


def test_without_a_server_there_is_nothing_to_submit_to(job, tmp_path):
    for address in ("", str(tmp_path / "none"), "off"):
        assert call(job(SUBMIT, WRITES), FFNFOLD_PRELOAD=address).returncode == 99
    assert not (tmp_path / "facts").exists()


@LINUX
def test_a_server_that_has_gone_is_no_obstacle(job, server):
    server.process.kill()  # leaves its socket behind
    server.process.wait(10)
    assert os.path.exists(server.address)
    assert call(job(SUBMIT, WRITES), FFNFOLD_PRELOAD=server.address).returncode == 99


@LINUX
def test_a_submitted_job_runs_in_the_server_with_the_callers_surroundings(job, server, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    client = subprocess.Popen(
        job(SUBMIT, WRITES), cwd=folder, env={**os.environ, "FFNFOLD_PRELOAD": server.address, "MARKER": "here"}
    )
    assert client.wait(30) == 0
    facts = json.loads((tmp_path / "facts").read_text())
    assert facts["pid"] not in (client.pid, server.process.pid)
    assert facts["marker"] == "here" and facts["directory"] == str(folder)
    assert (tmp_path / "logs" / "a.log").read_text() == "to the log\n"
    assert os.environ.get("MARKER") is None


@LINUX
def test_status_and_message_of_a_failed_job_pass_on(job, server):
    done = call(job(SUBMIT, MISTAKE), FFNFOLD_PRELOAD=server.address)
    assert done.returncode == 1 and "the file is empty" in done.stderr and "Traceback" not in done.stderr
    done = call(job(SUBMIT, CRASH), FFNFOLD_PRELOAD=server.address)
    assert done.returncode == 1 and "missing piece" in done.stderr
    # One failure leaves the server ready for the next job.
    assert call(job(SUBMIT, WRITES), FFNFOLD_PRELOAD=server.address).returncode == 0


@LINUX
def test_a_worker_that_is_killed_fails_its_job(job, server, tmp_path):
    client = subprocess.Popen(job(SUBMIT, SLEEPS), env={**os.environ, "FFNFOLD_PRELOAD": server.address})
    wait_for((tmp_path / "facts").exists)
    os.kill(int((tmp_path / "facts").read_text()), signal.SIGKILL)
    assert client.wait(20) not in (0, 99)


@LINUX
def test_a_client_that_is_killed_ends_its_worker(job, server, tmp_path):
    client = subprocess.Popen(job(SUBMIT, SLEEPS), env={**os.environ, "FFNFOLD_PRELOAD": server.address})
    wait_for((tmp_path / "facts").exists)
    worker = int((tmp_path / "facts").read_text())
    assert alive(worker)
    client.kill()
    client.wait(10)
    wait_for(lambda: not alive(worker))
    assert server.process.poll() is None
    assert call(job(SUBMIT, WRITES), FFNFOLD_PRELOAD=server.address).returncode == 0


@LINUX
def test_two_jobs_run_side_by_side(job, server, tmp_path):
    environment = {**os.environ, "FFNFOLD_PRELOAD": server.address}
    slow = subprocess.Popen(job(SUBMIT, SLEEPS), env=environment)
    wait_for((tmp_path / "facts").exists)
    try:
        assert call(job(SUBMIT, WRITES), FFNFOLD_PRELOAD=server.address).returncode == 0
        assert slow.poll() is None
    finally:
        slow.kill()
        slow.wait(10)


@LINUX
def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    # The real way in: the server loads the model stack on its first job only, so this is quick.
    code = (
        "import os, sys, time; from ffnfold import preload; preload.start();"
        "address = os.environ[preload.ADDRESS]; assert os.path.exists(address);"
        "preload.start(); assert os.environ[preload.ADDRESS] == address;"
        "print(address, flush=True); sys.stdin.read()"
    )
    environment = {key: value for key, value in os.environ.items() if key != preload.ADDRESS}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "TMPDIR": str(tmp_path)},
    )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith(str(tmp_path)) and os.stat(address).st_mode & 0o077 == 0
    finally:
        process.kill()  # an end that leaves no time to clean up
        process.wait(10)
    wait_for(lambda: not os.path.exists(os.path.dirname(address)))


def test_preloading_can_be_turned_off(monkeypatch):
    monkeypatch.setenv(preload.ADDRESS, "off")
    preload.start()
    assert os.environ[preload.ADDRESS] == "off"
    assert preload.submit("script.py", {}) is None


# --------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "/data/x"), ["the disk is full", "/data/x", "free space"]),
        (RuntimeError("I/O error: No space left on device (os error 28)"), ["the disk is full"]),
        (MemoryError(), ["out of memory", "MemoryError", "--cores"]),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            ["out of memory", "training.accumulation"],
        ),
    ],
)
def test_a_machine_that_ran_out_of_something_is_explained(error, words):
    assert all(word in str(explained(error)) for word in words)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), KeyError("a"), OSError(2, "No such file")])
def test_other_errors_are_not(error):
    assert explained(error) is None


def test_the_reason_of_a_failure_is_the_farthest_one_that_is_stated(tmp_path):
    own, before, silent = (tmp_path / name for name in ("own.log", "before.log", "silent.log"))
    own.write_text("failed: the input is missing\n")
    before.write_text("step 1\nfailed: out of memory\n")
    silent.write_text("step 1\n")
    assert failure_reason([own, before]) == f"out of memory (log: {before})"
    assert failure_reason([own, silent]) == f"the input is missing (log: {own})", "a group's innocent members"
    assert "ended without a word" in failure_reason([silent]) and "ended without a word" in failure_reason(
        [tmp_path / "no"]
    )
    assert failure_reason([]).startswith("not run")
