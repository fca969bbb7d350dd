"""What planning costs: wall time and memory of `snakemake -n` for studies of many variants.

    python benchmarks/dry_run_scale.py 10 100 500

Each study has five metrics and three replicates for every variant. Prints one line for each size.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
MEBIBYTE = 2**20


def study_of(variants: int) -> dict:
    """The embedded study with `variants` variants, all but the baseline pruned to different sizes."""
    study = yaml.safe_load((ROOT / "config/studies/mini.yaml").read_text())
    study["replicates"] = 3
    study["variants"] = {"gpt2": {"method": "baseline"}}
    for i in range(1, variants):
        share = round(0.5 + 0.4 * i / variants, 6)
        study["variants"][f"pruned_{i}"] = {"method": "prune", "scope": "all", "keep_share": share}
    return study


def plan(variants: int) -> tuple[int, float, float]:
    """Jobs planned, wall time in s, and peak memory in MiB of one dry run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.yaml"
        path.write_text(yaml.safe_dump(study_of(variants), sort_keys=False))
        program = Path(sys.executable).with_name("snakemake")
        command = [program, "-s", ROOT / "Snakefile", "--directory", folder, "--cores", "2", "-n"]
        command = [*map(str, command), "--quiet", "rules", "reason", "--config", f"study={path}"]
        started = time.monotonic()
        with open(Path(folder) / "out.txt", "w") as stream:
            process = subprocess.Popen(
                [str(part) for part in command], stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT
            )
            _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - started
        output = (Path(folder) / "out.txt").read_text()
        if status != 0:
            sys.exit(output[-3000:])
        jobs = next(int(line.split()[1]) for line in output.splitlines() if line.startswith("total"))
    return jobs, wall_s, usage.ru_maxrss * 1024 / MEBIBYTE


def main() -> None:
    print(f"{'variants':>8} {'jobs':>7} {'wall s':>8} {'ms a job':>9} {'peak MiB':>9}")
    for variants in map(int, sys.argv[1:] or ["10", "100", "500"]):
        jobs, wall_s, peak_mib = plan(variants)
        print(f"{variants:8} {jobs:7} {wall_s:8.1f} {1000 * wall_s / jobs:9.2f} {peak_mib:9.0f}", flush=True)


if __name__ == "__main__":
    main()
