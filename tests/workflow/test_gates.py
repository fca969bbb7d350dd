"""Known values of the base: reported, and with `enforce` a stop before anything is built."""

from __future__ import annotations

import json

import pytest
from running import small_study, snakemake, succeed, write_study


def gated(folder, expected, enforce=False):
    """A study of the baseline and one merged variant, whose base is known to reach `expected`."""
    study = small_study()
    study["variants"] = {name: study["variants"][name] for name in ("gpt2", "merged_4")}
    gate = {"protocol": "windows", "window": 64, "stride": 32, "expected": expected, "source": "a made-up page"}
    study["gates"] = {"enforce": enforce, "known": {"strided": gate}}
    return write_study(folder / "gated.yaml", study)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with the check's file alone, and what it found."""
    folder = tmp_path_factory.mktemp("gates")
    result = succeed(folder, "results/gated/gates.json", study=gated(folder, 1.5))
    (found,) = json.loads((folder / "results/gated/gates.json").read_text())
    assert not found["passed"] and "gate strided failed" in result.stderr
    return folder, found


def test_a_failed_gate_that_is_enforced_stops_the_study_before_any_variant(measured):
    folder, found = measured
    result = snakemake(folder, "all", study=gated(folder, 1.5, enforce=True))
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert "does not reproduce 1 of 1 known values" in result.stderr
    assert f"{found['found']:,.2f}" in result.stderr and "1.50" in result.stderr and "remedy:" in result.stderr
    assert not list(folder.glob("results/gated/variants/*")) and not (folder / "results/gated/alignment").exists()


def test_a_failed_gate_is_a_red_line_of_the_report_and_a_passed_one_is_not(measured):
    folder, found = measured
    result = succeed(folder, "all", study=gated(folder, 1.5))
    page = (folder / "results/gated/report/index.html").read_text()
    assert "does not reproduce a known value" in page and "gate strided failed" in page
    assert f"{found['found']:,.2f}" in page and "gate strided failed" in result.stderr
    result = succeed(folder, "all", study=gated(folder, found["found"]))
    page = (folder / "results/gated/report/index.html").read_text()
    assert "does not reproduce" not in page and "gate strided passed" in page and "no known values" not in page
    assert "gate strided passed" in result.stderr


def test_enforcing_what_holds_reruns_the_check_alone(measured):
    folder, found = measured
    succeed(folder, "all", study=gated(folder, found["found"]))
    files = [folder / "results/gated/gates.json", *folder.glob("results/gated/variants/*/*/model.safetensors")]
    before = [path.stat().st_mtime_ns for path in files]
    assert len(before) == 3
    succeed(folder, "all", study=gated(folder, found["found"], enforce=True))
    after = [path.stat().st_mtime_ns for path in files]
    assert after[0] > before[0] and after[1:] == before[1:]
