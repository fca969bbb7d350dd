"""Sharing out GPUs, with a stand-in for the driver's listing and real processes that hold them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ffnfold.gpus import VISIBLE, claimed_gpu, installed_gpus, usable_gpus

TWO = """GPU 0: NVIDIA H200 (UUID: GPU-aaaa-0)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb-1)"""
SLICED = """GPU 0: NVIDIA H200 (UUID: GPU-aaaa-0)
  MIG 1g.18gb     Device  0: (UUID: MIG-cccc-0)
  MIG 1g.18gb     Device  1: (UUID: MIG-dddd-1)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb-1)"""

HOLD = """
import sys, time
from ffnfold.gpus import claimed_gpu
with claimed_gpu(True) as uuid:
    print(uuid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """driver(listing) puts an `nvidia-smi` that prints it first on the path; locks go to a folder of the test's own."""
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def install(listing, status=0):
        program = tmp_path / "bin/nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}\nEND\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return install


def test_a_machine_without_a_driver_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed_gpus() == [] and usable_gpus() == []
    with claimed_gpu(True) as uuid:
        assert uuid is None


def test_gpus_and_their_slices_are_listed_in_order(driver):
    driver(TWO)
    assert installed_gpus() == ["GPU-aaaa-0", "GPU-bbbb-1"]
    driver(SLICED)
    assert installed_gpus() == ["MIG-cccc-0", "MIG-dddd-1", "GPU-bbbb-1"]


def test_a_driver_that_fails_counts_as_none(driver):
    driver("Failed to initialize NVML", status=255)
    assert installed_gpus() == []


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", ["GPU-bbbb-1"]),
        ("1,0", ["GPU-bbbb-1", "GPU-aaaa-0"]),
        ("GPU-aaaa", ["GPU-aaaa-0"]),
        ("", []),
        ("-1", []),
        ("7,0", []),
        ("0,0", ["GPU-aaaa-0"]),
    ],
)
def test_only_visible_gpus_are_usable(driver, monkeypatch, visible, expected):
    driver(TWO)
    monkeypatch.setenv(VISIBLE, visible)
    assert usable_gpus() == expected


def test_a_job_sees_its_gpu_alone_and_leaves_all_as_it_was(driver, monkeypatch):
    driver(TWO)
    with claimed_gpu(True) as uuid:
        assert os.environ[VISIBLE] == uuid == "GPU-aaaa-0"
    assert VISIBLE not in os.environ
    monkeypatch.setenv(VISIBLE, "1")
    with claimed_gpu(True) as uuid:
        assert os.environ[VISIBLE] == uuid == "GPU-bbbb-1"
    assert os.environ[VISIBLE] == "1"


def test_a_job_that_wants_none_gets_none(driver):
    driver(TWO)
    with claimed_gpu(False) as uuid:
        assert uuid is None and VISIBLE not in os.environ


def test_concurrent_jobs_hold_distinct_gpus_and_a_killed_one_frees_its_own(driver, tmp_path):
    driver(TWO)
    jobs = [subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        ready = {}
        while len(ready) < 2:
            ready |= {job: job.stdout.readline().strip() for job in jobs if job not in ready and readable(job)}
        assert sorted(ready.values()) == ["GPU-aaaa-0", "GPU-bbbb-1"]
        (third,) = set(jobs) - set(ready)
        assert not readable(third, 1.0), "no GPU is given twice"
        first = next(iter(ready))
        first.kill()
        first.wait()
        assert third.stdout.readline().strip() == ready[first]
    finally:
        for job in jobs:
            job.kill()
            job.wait()
    locks = Path(tmp_path, f"ffnfold-gpus-{os.getuid()}")
    assert sorted(path.name for path in locks.iterdir()) == ["GPU-aaaa-0", "GPU-bbbb-1"]


def readable(job, timeout_s=0.2):
    import select

    return bool(select.select([job.stdout], [], [], timeout_s)[0])
