"""Running the workflow as a user does, for the tests of whole runs."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests/workflow/tiny.yaml"
SNAKEMAKE = Path(sys.executable).with_name("snakemake")


def command(directory, *arguments, study=TINY, cores=2):
    """Snakemake's command line on this checkout's workflow with its working directory elsewhere."""
    parts = [SNAKEMAKE, "-s", ROOT / "Snakefile", "--directory", directory]
    parts += ["--cores", cores] if cores else []
    return [str(part) for part in [*parts, *arguments, "--config", f"study={study}"]]


def snakemake(directory, *arguments, study=TINY, cores=2, timeout_s=600, **environment):
    """Run it to its end."""
    return subprocess.run(
        command(directory, *arguments, study=study, cores=cores),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **environment},
        cwd=ROOT,
    )


def succeed(directory, *arguments, **options):
    """Run it, and show the end of its output where it fails."""
    result = snakemake(directory, *arguments, **options)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    return result


def planned(result):
    """Names of the rules that a dry run would run, once for each job."""
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    lines = (result.stdout + result.stderr).splitlines()
    return sorted(line.split()[1].rstrip(":") for line in lines if line.startswith(("rule ", "localrule ")))


def tiny_study():
    """The tiny study's settings, free to change."""
    return yaml.safe_load(TINY.read_text())


def small_study():
    """Four variants, one of each way to come about."""
    study = tiny_study()
    study["variants"] = {name: study["variants"][name] for name in ("gpt2", "distilgpt2")}
    study["variants"] |= {"merged_4": {"method": "merge", "n": 4}, "compressed_4": {"method": "compress", "n": 4}}
    return study


def write_study(path, study):
    """Write a study file; the variants keep their order, which is that of the tables' rows."""
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path
