"""Several GPUs on one machine, with a stand-in for the driver's listing: torch itself runs on the CPU here."""

import itertools
import os
import re
from datetime import datetime

import pytest
from running import planned, small_study, snakemake, succeed, write_study

LINE = re.compile(r"^(\S+ \S+) INFO ffnfold.gpus: GPU (\S+)( is free again)?$", re.M)


@pytest.fixture
def two_gpus(tmp_path):
    """Environment with an `nvidia-smi` that lists two GPUs."""
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    listing = "".join(f"GPU {i}: NVIDIA Stand-In (UUID: GPU-{i})\n" for i in range(2))
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}END\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(tmp_path)}


def test_concurrent_jobs_take_distinct_gpus(tmp_path, two_gpus):
    study = write_study(tmp_path / "small.yaml", {**small_study(), "device": "auto"})
    result = succeed(tmp_path, "all", study=study, cores=3, **two_gpus)
    assert re.search(r'Provided resources: .*"gpu", 2', result.stdout + result.stderr), "the GPUs limit the run"
    held = []
    for log in (tmp_path / "results/small/logs").glob("*/*.log"):
        events = LINE.findall(log.read_text())
        if events:
            (taken, gpu, _), (given_back, same, _) = events
            assert gpu == same
            held.append((*(datetime.strptime(t, "%Y-%m-%d %H:%M:%S,%f") for t in (taken, given_back)), gpu))
    # base, alignment, the distilled student, 4 recoveries, and 4 metrics of 4 variants
    assert len(held) == 1 + 1 + 1 + 4 + 16 and {gpu for *_, gpu in held} == {"GPU-0", "GPU-1"}
    for gpu in ("GPU-0", "GPU-1"):
        spans = sorted((start, end) for start, end, g in held if g == gpu)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), "two jobs on one GPU"
    assert any(a[0] < b[0] < a[1] for a in held for b in held), "and yet two at a time"


def test_a_study_on_the_cpu_asks_for_no_gpu(tmp_path, two_gpus):
    study = write_study(tmp_path / "small.yaml", small_study())
    result = snakemake(tmp_path, "-n", study=study, **two_gpus)
    assert "gpu=1" not in result.stdout + result.stderr and planned(result)
