"""A study on a real one-node SLURM with accounting and two stand-in GPUs, started here and stopped at the end."""

import os
import re
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from comparing import differences, fingerprints
from running import ROOT, command, planned, small_study, snakemake, succeed, write_study

HERE = Path(__file__).parent
POLL = ("--slurm-init-seconds-before-status-checks", "2")
GPU_RULES = {"pretrain_base", "align_layers", "recover_variant", "measure_perplexity", "measure_latency"}
GPU_RULES |= {"measure_sentiment", "measure_summarization"}
GIVEN = re.compile(r"^(\S+ \S+) INFO ffnfold.gpus: GPU (\S+), as the scheduler gave it$", re.M)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Environment of a running SLURM."""
    environment = {"SLURM_HOME": str(tmp_path_factory.mktemp("slurm")), "FAKE_CPUS": "8", "FAKE_GPUS": "2"}
    subprocess.run([HERE / "install.sh"], check=True)
    try:
        subprocess.run([HERE / "start_slurm.sh"], check=True, env={**os.environ, **environment}, timeout=120)
        yield {**environment, "SLURM_CONF": f"{environment['SLURM_HOME']}/etc/slurm.conf"}
    finally:
        subprocess.run([HERE / "stop_slurm.sh"], check=True, env={**os.environ, **environment}, timeout=120)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The small study as it is for machines with GPUs; torch runs on the CPU here."""
    return write_study(tmp_path_factory.mktemp("study") / "small.yaml", {**small_study(), "device": "auto"})


@pytest.fixture(scope="module")
def local(tmp_path_factory, study):
    """The same study's results without a cluster."""
    directory = tmp_path_factory.mktemp("local")
    succeed(directory, "all", study=study)
    return directory / "results/small"


@pytest.fixture(scope="module")
def scarce(tmp_path_factory):
    """The shipped profile with too little memory for the first attempt at the alignment."""
    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    profile["set-resources"]["align_layers"] = {
        **profile["set-resources"]["align_layers"],
        "mem_mb": "200 * attempt**3",
    }
    folder = tmp_path_factory.mktemp("profile")
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return folder


def ask(slurm, *arguments):
    """Standard output of one of SLURM's commands."""
    result = subprocess.run(arguments, env={**os.environ, **slurm}, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def wait_until(condition, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


def accounting(slurm, run_id):
    """Jobs of a run as accounting has them: rule, state, GPUs, memory asked for in MB, start, end."""
    fields = "JobIDRaw,State,AllocTRES%200,ReqMem,Start,End,Comment%200,ExitCode"
    lines = ask(slurm, "sacct", "-S", "now-1days", "-X", "-P", "-n", "--name", run_id, "-o", fields).splitlines()
    jobs = []
    for line in lines:
        number, state, allocated, memory, start, end, comment, code = line.split("|")
        rule, _, wildcards = comment.removeprefix("rule_").partition("_wildcards_")
        rule = "report" if rule.startswith("report_") else rule  # the group's name goes on with those of its rules
        gpus = re.search(r"gres/gpu=(\d+)", allocated)
        jobs.append(
            {
                "id": int(number),
                "rule": rule,
                "wildcards": wildcards,
                "state": state.split()[0],
                "gpus": int(gpus[1]) if gpus else 0,
                "memory": memory,
                "start": start,
                "end": end,
                "code": code,
            }
        )
    return sorted(jobs, key=lambda job: job["id"])


def test_a_study_on_slurm(tmp_path, slurm, study, local, scarce):
    arguments = command(tmp_path, "--profile", scarce, *POLL, study=study, cores=None)
    # The controlling process dies while a job runs: the job runs on, the next start says what to do, and that works.
    first = subprocess.Popen(
        arguments, env={**os.environ, **slurm}, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: (tmp_path / "results/small/logs/pretrain_base/base.log").exists(), 120)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert ask(slurm, "squeue", "-h", "-o", "%T").split(), "the job runs on"
    refused = snakemake(tmp_path, "--profile", scarce, *POLL, study=study, cores=None, **slurm)
    output = refused.stdout + refused.stderr
    assert refused.returncode != 0 and "did not end by itself; its jobs may run on" in output
    lost = re.search(r"scancel --name (\S+); wait until", output)[1]
    ask(slurm, "scancel", "--name", lost)
    wait_until(lambda: not ask(slurm, "squeue", "-h"), 60)
    succeed(tmp_path, "--unlock", study=study)

    started = time.monotonic()
    result = succeed(tmp_path, "--profile", scarce, *POLL, "--rerun-incomplete", study=study, cores=None, **slurm)
    duration_s = time.monotonic() - started
    output = result.stdout + result.stderr
    run_id = re.search(r"SLURM run ID: (\S+)", output)[1]
    jobs = accounting(slurm, run_id)
    print(f"\n{len(jobs)} SLURM jobs in {duration_s:.0f} s")
    for job in jobs:
        print("  {id:4} {rule:22} {wildcards:28} {state:14} gpu {gpus}  {memory:>8}  {start} to {end}".format(**job))

    assert differences(local, tmp_path / "results/small") == []
    assert len(fingerprints(local)) > 80
    assert planned(snakemake(tmp_path, "-n", study=study)) == [], "the local run has nothing to do after it"

    alignment = [job for job in jobs if job["rule"] == "align_layers"]
    assert len(alignment) == 2, "one failure, one success"
    assert alignment[0]["state"] != "COMPLETED" and alignment[1]["state"] == "COMPLETED"
    assert alignment[0]["memory"].startswith("200M") and alignment[1]["memory"].startswith("1600M")
    assert all(job["state"] == "COMPLETED" for job in jobs if job not in alignment[:1])
    for job in jobs:
        alone = job["rule"] == "measure_latency"  # has the whole node, and so both GPUs
        assert job["gpus"] == (2 if alone else int(job["rule"] in GPU_RULES)), job
    rules = [job["rule"] for job in jobs]
    assert rules.count("report") == 1, "tables, figures and the page are one job"

    spans = {job["id"]: [datetime.fromisoformat(job[key]) for key in ("start", "end")] for job in jobs}
    held = [(*spans[job["id"]], job["gpus"]) for job in jobs if job["gpus"]]
    most = max(sum(gpus for start, end, gpus in held if start <= at < end) for at, *_ in held)
    assert most == 2, "no more GPUs in use than there are"
    side_by_side = [(a, b) for a in held for b in held if a is not b and a[2] == b[2] == 1 and a[0] <= b[0] < a[1]]
    assert side_by_side, "two GPU jobs at a time"
    for job in (job for job in jobs if job["rule"] == "measure_latency"):
        start, end = spans.pop(job["id"])
        assert not any(a < end and start < b for a, b in spans.values()), "nothing else runs on its node meanwhile"
    devices = devices_in_use(tmp_path / "results/small/logs")
    assert {gpu for *_, gpu in devices} == {"0", "1"}
    for start, end, gpu in devices:
        others = [d for d in devices if d[2] == gpu and d != (start, end, gpu)]
        assert not any(a < end and start < b for a, b, _ in others), "two jobs on one GPU"


def devices_in_use(logs):
    """Begin, end and GPU of every job that was given one, from its log; its end is the log's last writing."""
    found = []
    for log in logs.glob("*/*.log"):
        for moment, gpu in GIVEN.findall(log.read_text()):
            found.append((datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f").timestamp(), log.stat().st_mtime, gpu))
    return found


def test_the_shipped_profile_is_found_from_the_checkout(tmp_path, slurm, study):
    result = snakemake(tmp_path, "-n", "--profile", "slurm", study=study, cores=None, **slurm)
    assert len(planned(result)) == 55 - 12, "the jobs of a group are listed under it"
    assert "Group job report (jobs in lexicogr. order)" in result.stdout + result.stderr
    assert "retries" not in (ROOT / "rules/metrics.smk").read_text()
