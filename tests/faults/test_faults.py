"""What happens on a user's machine: each fault ends clearly, and nothing that was finished is lost."""

import json
import os
import resource
import shutil
import signal
import subprocess
import time

import psutil
import pytest
from comparing import differences
from ffnfold.records import METRICS
from running import ROOT, command, planned, small_study, snakemake, succeed, write_study
from safetensors.torch import load_file, save_file

GIB = 2**30


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("faults") / "small.yaml", small_study())


@pytest.fixture(scope="module")
def undisturbed(study, tmp_path_factory):
    """Results of a run that nothing happened to."""
    directory = tmp_path_factory.mktemp("undisturbed")
    succeed(directory, "all", study=study)
    return directory / "results/small"


def broken_student(tmp_path, **training):
    """The small study with another training budget for distilgpt2."""
    study = small_study()
    study["variants"]["distilgpt2"]["training"] |= training
    return write_study(tmp_path / "small.yaml", study)


def only_distilgpt2_is_missing(directory, output):
    """Every other variant has all its records, and the page names the failed cells."""
    for variant in ("gpt2", "merged_4", "compressed_4"):
        for metric in METRICS:
            assert (directory / f"results/small/metrics/{variant}/0/{metric}.json").is_file()
    page = (directory / "results/small/report/index.html").read_text()
    assert "This study is incomplete" in page
    assert "distilgpt2, replicate 0: parameters, perplexity, latency, sentiment, summarization" in page
    assert page.count('<td class="failed">failed') >= 5
    assert "5 figures are missing; the report names them" in output
    return page


def test_out_of_memory_in_one_job_leaves_the_others(tmp_path):
    study = broken_student(tmp_path, batch_size=65536)
    result = subprocess.run(
        command(tmp_path, "all", "--keep-going", study=study),
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (6 * GIB, 6 * GIB)),
    )
    output = result.stdout + result.stderr
    assert result.returncode != 0 and "build_variant study=small variant=distilgpt2: out of memory" in output
    assert "Traceback" not in output and "raise training.accumulation" in output
    assert "out of memory" in only_distilgpt2_is_missing(tmp_path, output)


def test_a_job_that_the_system_kills_leaves_the_others(tmp_path, study, undisturbed):
    process = subprocess.Popen(
        command(tmp_path, "all", "--keep-going", study=study),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    killed = None
    while killed is None:
        assert process.poll() is None, "the job was not seen"
        killed = worker_of(process, "logs/build_variant/distilgpt2.log")
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "build_variant study=small variant=distilgpt2: killed by signal 9, most likely by the system" in output
    assert "killed by signal 9" in only_distilgpt2_is_missing(tmp_path, output)
    succeed(tmp_path, "all", study=study)
    assert differences(undisturbed, tmp_path / "results/small") == []
    assert "This study is incomplete" not in (tmp_path / "results/small/report/index.html").read_text()


def worker_of(process, log):
    """The process of a run that writes to a log, None where there is none."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if os.readlink(f"/proc/{child.pid}/fd/2").endswith(log):
                return child
        except OSError:
            pass
    return None


def test_a_loss_that_is_no_number_names_step_and_learning_rate(tmp_path, undisturbed):
    shutil.copytree(undisturbed / "base", tmp_path / "broken")
    state = load_file(tmp_path / "broken/model.safetensors")
    state["transformer.h.3.mlp.c_fc.weight"][0, 0] = float("inf")
    save_file(state, tmp_path / "broken/model.safetensors", metadata={"format": "pt"})
    study = small_study()
    study["variants"]["distilgpt2"] = {"method": "checkpoint", "source": str(tmp_path / "broken")}
    result = snakemake(tmp_path, "all", "--keep-going", study=write_study(tmp_path / "small.yaml", study))
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "recover_variant study=small variant=distilgpt2 replicate=0 failed" in output
    assert "training diverged: loss nan at step 1 of 2, learning rate" in output
    assert "Lower training.learning_rate" in output
    only_distilgpt2_is_missing(tmp_path, output)


def test_a_full_disk_loses_nothing(tmp_path, study, undisturbed):
    """The results lie on a file system of their own that is too small at first and then grows."""
    needed_kib = sum(path.stat().st_size for path in undisturbed.rglob("*") if path.is_file()) // 1024
    (tmp_path / "results").mkdir()
    arguments = command(tmp_path, "all", study=study)
    script = tmp_path / "full.sh"
    script.write_text(
        f"""set -eu
mount -t tmpfs -o size={needed_kib * 6 // 10}k tmpfs {tmp_path}/results
"$@" > {tmp_path}/first.txt 2>&1 && exit 3
find {tmp_path}/results -name '*.json' -path '*metrics*' -o -name manifest.json > {tmp_path}/finished.txt
mount -o remount,size={needed_kib * 6}k {tmp_path}/results
"$@" > {tmp_path}/second.txt 2>&1
cp -a {tmp_path}/results {tmp_path}/kept
"""
    )
    alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    subprocess.run([*alone, "sh", script, *arguments], check=True, timeout=600, cwd=ROOT)
    first, second = (tmp_path / "first.txt").read_text(), (tmp_path / "second.txt").read_text()
    assert "the disk is full" in first and "free space there and start again" in first and "Traceback" not in first
    assert (tmp_path / "finished.txt").read_text().count("\n") >= 1
    assert "pretrain_base" not in second, "what was finished is not made again"
    assert differences(undisturbed, tmp_path / "kept/small") == []


def test_a_checkpoint_that_changes_between_two_rules_is_named(tmp_path, study, undisturbed):
    shutil.copytree(undisturbed, tmp_path / "results/small")
    weights = tmp_path / "results/small/variants/merged_4/built/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 4
    weights.write_bytes(content)
    shutil.rmtree(tmp_path / "results/small/variants/merged_4/recovered")
    result = snakemake(
        tmp_path, "results/small/variants/merged_4/recovered/0/manifest.json", "--rerun-triggers", "input", study=study
    )
    output = result.stdout + result.stderr
    manifest = json.loads((weights.parent / "manifest.json").read_text())
    assert result.returncode != 0 and "a checkpoint file is not the one that was written" in output
    assert manifest["files"]["model.safetensors"]["sha256"] in output and "Traceback" not in output


def test_two_runs_at_once_in_one_directory(tmp_path, study, undisturbed):
    first = subprocess.Popen(
        command(tmp_path, "all", study=study), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    while not list((tmp_path / ".snakemake/locks").glob("*")):
        assert first.poll() is None
        time.sleep(0.05)
    second = snakemake(tmp_path, "all", study=study)
    output = second.stdout + second.stderr
    assert second.returncode != 0 and "Directory cannot be locked" in output and "Traceback" not in output
    assert first.poll() is None, "the first run goes on"
    assert first.wait(timeout=600) == 0
    assert differences(undisturbed, tmp_path / "results/small") == []
    assert planned(snakemake(tmp_path, "-n", study=study)) == []
