"""Which jobs run again after a change, and which must not: a study on local files, in a copy of the checkout."""

import json
import os
import shutil
import subprocess

import pytest
import yaml
from running import ROOT, SNAKEMAKE, small_study, write_study

SOURCES = ("Snakefile", "rules", "workflow", "config", "profiles", "report", "envs", "slurm")
METRICS = ("parameters", "perplexity", "latency", "sentiment", "summarization")
REPORT = {"render_report": 1, "all": 1}
AFTER_ALL_TABLES = {"tabulate": 5, "compare_variants": 1, "plot_figure": 5, **REPORT}
AFTER_ONE_TABLE = {**AFTER_ALL_TABLES, "tabulate": 1}


def run(checkout, *arguments, **environment):
    command = [str(SNAKEMAKE), "--cores", "2", *arguments, "--config", "study=small.yaml"]
    return subprocess.run(
        command, cwd=checkout, capture_output=True, text=True, timeout=600, env={**os.environ, **environment}
    )


def stale(checkout):
    """Jobs that a dry run would run: rule → count, and the variants they belong to."""
    result = run(checkout, "-n", "all")
    assert result.returncode == 0, result.stderr
    rules, variants = {}, set()
    for line in (result.stdout + result.stderr).splitlines():
        if line.startswith(("rule ", "localrule ")):
            name = line.split()[1].rstrip(":")
            rules[name] = rules.get(name, 0) + 1
        elif line.startswith("    wildcards:"):
            variants |= {part.removeprefix("variant=") for part in line.replace(",", "").split() if "variant=" in part}
    told = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items())) or "nothing"
    print(f"\n    reruns {told}; of {len(variants)} variants")
    return rules, variants


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with a finished study of five variants on local data and a local base."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_sources(folder)
    wide = small_study()
    wide["base"]["architecture"]["hidden_size"] = 64
    write_study(folder / "first.yaml", wide)
    first = [str(SNAKEMAKE), "--cores", "2", "results/first/base/manifest.json", "--config", "study=first.yaml"]
    subprocess.run(first, cwd=folder, check=True, capture_output=True, timeout=600)
    shutil.copytree(folder / "results/first/base", folder / "base")
    (folder / "base/manifest.json").unlink()
    shutil.rmtree(folder / "results")
    rows = [{"id": str(i), "text": f"review {i} was {'good' if i % 2 else 'bad'}", "label": i % 2} for i in range(40)]
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = small_study()
    study["base"] = {"source": "./base"}
    study["data"]["sentiment"] |= {"source": {"train": "reviews.jsonl", "test": "reviews.jsonl"}}
    study["variants"]["pruned"] = {"method": "prune", "scope": "all", "keep_share": 0.8}
    write_study(folder / "small.yaml", study)
    result = run(folder, "all")
    assert result.returncode == 0, result.stderr[-4000:]
    return folder


def copy_sources(folder):
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, folder / name)


@pytest.fixture
def edited(checkout):
    """edited(path, old, new) changes a file of the checkout; it is put back after the test."""
    before = {}

    def edit(path, old, new):
        path = checkout / path
        before[path] = path.read_bytes()
        text = before[path].decode()
        assert old in text, f"{path} does not hold {old!r}"
        path.write_text(text.replace(old, new, 1))
        return stale(checkout)

    yield edit
    for path, content in before.items():
        path.write_bytes(content)
    assert stale(checkout) == ({}, set()), "a change that is taken back leaves nothing to do"


def edit_study(checkout, edited, change):
    study = yaml.safe_load((checkout / "small.yaml").read_text())
    change(study)
    return edited("small.yaml", (checkout / "small.yaml").read_text(), yaml.safe_dump(study, sort_keys=False))


def test_nothing_is_stale_after_a_run(checkout):
    assert stale(checkout) == ({}, set())


def test_one_variants_parameter(checkout, edited):
    rules, variants = edit_study(checkout, edited, lambda s: s["variants"]["pruned"].update(keep_share=0.7))
    measured = {f"measure_{metric}": 1 for metric in METRICS}
    assert rules == {"build_variant": 1, "recover_variant": 1, **measured, **AFTER_ALL_TABLES}
    assert variants == {"pruned"}


def test_a_new_variant(checkout, edited):
    rules, variants = edit_study(checkout, edited, lambda s: s["variants"].update(m3={"method": "merge", "n": 3}))
    measured = {f"measure_{metric}": 1 for metric in METRICS}
    assert rules == {"build_variant": 1, "recover_variant": 1, **measured, **AFTER_ALL_TABLES}
    assert variants == {"m3"}


def test_one_metrics_setting(checkout, edited):
    rules, variants = edit_study(checkout, edited, lambda s: s["metrics"]["latency"].update(generated_tokens=5))
    assert rules == {"measure_latency": 5, **AFTER_ONE_TABLE}
    assert len(variants) == 5


def test_the_library_module_of_one_metric(edited):
    rules, _ = edited("workflow/ffnfold/metrics/rouge.py", '"""', '"""Changed. ')
    assert rules == {"measure_summarization": 5, "measure_floor": 4, **AFTER_ONE_TABLE}


def test_the_library_module_of_one_method(edited):
    rules, variants = edited("workflow/ffnfold/methods/prune.py", '"""', '"""Changed. ')
    measured = {f"measure_{metric}": 1 for metric in METRICS}
    assert rules == {"build_variant": 1, "recover_variant": 1, **measured, **AFTER_ALL_TABLES}
    assert variants == {"pruned"}


def test_how_jobs_are_started_shapes_no_result(edited):
    assert edited("workflow/ffnfold/jobs.py", '"""', '"""Changed. ') == ({}, set())


def test_a_script(edited):
    rules, _ = edited("workflow/scripts/measure_latency.py", '"""', '"""Changed. ')
    assert rules == {"measure_latency": 5, **AFTER_ONE_TABLE}


def test_the_data_of_one_task(edited):
    rules, _ = edited("reviews.jsonl", "review 3 was good", "review 3 was very good")
    assert rules == {"prepare_data": 1, "measure_sentiment": 5, "measure_floor": 2, **AFTER_ONE_TABLE}


def test_the_base_checkpoint(edited, checkout):
    config = json.loads((checkout / "base/config.json").read_text())
    assert config["n_layer"] == 12
    rules, variants = edited("base/config.json", '"layer_norm_epsilon": 1e-05', '"layer_norm_epsilon": 2e-05')
    assert "prepare_data" not in rules
    assert rules["fetch_base"] == rules["align_layers"] == 1 and rules["build_variant"] == 5 and len(variants) == 5


def test_one_variants_own_protocol(checkout, edited):
    def change(study):
        study["variants"]["merged_4"]["protocol"] = {"sentiment": {"max_items": 7}}

    rules, variants = edit_study(checkout, edited, change)
    assert rules == {"measure_sentiment": 1, **AFTER_ONE_TABLE} and variants == {"merged_4"}


def test_one_variants_own_recovery(checkout, edited):
    def change(study):
        study["variants"]["merged_4"]["protocol"] = {"recovery": {"steps": 3}}

    rules, variants = edit_study(checkout, edited, change)
    measured = {f"measure_{metric}": 1 for metric in METRICS}
    assert rules == {"recover_variant": 1, **measured, **AFTER_ALL_TABLES} and variants == {"merged_4"}


def test_one_kind_of_floor(edited):
    rules, variants = edited("workflow/ffnfold/floors/ngrams.py", '"""', '"""Changed. ')
    assert rules == {"measure_floor": 2, **AFTER_ONE_TABLE} and variants == set()


def test_a_known_value_of_the_base(checkout, edited):
    def change(study):
        gate = {"protocol": "windows", "window": 64, "expected": 30.0, "source": "a made-up page"}
        study["gates"] = {"known": {"mine": gate}}

    rules, _ = edit_study(checkout, edited, change)
    assert rules == {"measure_gates": 1, **REPORT}


def test_the_published_claims(edited):
    rules, _ = edited("config/claims.yaml", "# What", "# Changed. What")
    assert rules == {"compare_variants": 1, **REPORT}


def test_the_audits_template_is_not_the_reports(edited):
    assert edited("report/templates/audit.html.j2", "ffnfold · audit", "ffnfold · an audit") == ({}, set())


def test_a_template_of_the_report(edited):
    assert edited("report/templates/_style.css.j2", "line-height", "line-height ")[0] == REPORT


def test_files_that_are_touched_but_not_changed(checkout):
    for name in (*SOURCES, "base", "reviews.jsonl", "small.yaml"):
        for path in [checkout / name, *(checkout / name).rglob("*")]:
            os.utime(path)
    assert stale(checkout) == ({}, set())


def test_a_large_file_that_is_touched_but_not_changed(checkout):
    weights = checkout / "base/model.safetensors"
    assert weights.stat().st_size > 1_000_000, "Snakemake goes by the time of such files"
    os.utime(weights)
    assert stale(checkout) == ({}, set())


def test_a_large_file_that_changes_by_one_bit(checkout):
    weights = checkout / "base/model.safetensors"
    content, status = weights.read_bytes(), weights.stat()
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
        rules, _ = stale(checkout)
        assert rules["fetch_base"] == 1 and rules["measure_perplexity"] == 5
    finally:
        weights.write_bytes(content)
    assert stale(checkout) == ({}, set())


def test_a_fresh_checkout_with_kept_results(checkout, tmp_path):
    copy_sources(tmp_path)
    for name in ("base", "reviews.jsonl", "small.yaml"):
        copy = shutil.copytree if (checkout / name).is_dir() else shutil.copy
        copy(checkout / name, tmp_path / name)
    shutil.copytree(checkout / "results", tmp_path / "results")
    assert not (tmp_path / ".snakemake").exists()
    for path in tmp_path.rglob("*"):
        if "results" not in path.parts:
            os.utime(path)
    assert stale(tmp_path) == ({}, set())
