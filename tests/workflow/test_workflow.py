"""The whole workflow with tiny budgets in a temporary directory, run as a user runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import pandas as pd
import pytest
from ffnfold.comparisons import read_comparisons
from ffnfold.floors import FLOORS
from ffnfold.records import METRICS, read_record
from ffnfold.tables import floors, models
from running import ROOT, SNAKEMAKE, TINY, planned, snakemake, succeed, tiny_study, write_study

RUNS = (2, 4, 6, 8, 10)
VARIANTS = ["gpt2", "distilgpt2", "pruned_104M"] + [f"{m}_{n}" for m in ("merged", "compressed") for n in RUNS]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished tiny study."""
    directory = tmp_path_factory.mktemp("study")
    succeed(directory, "all")
    return directory


def jobs_to_run(directory, *arguments, study=TINY):
    """Names of the rules a dry run would run, once for each job."""
    return planned(snakemake(directory, "-n", *arguments, study=study))


def test_every_variant_has_every_record(done):
    for variant in VARIANTS:
        for metric in METRICS:
            record = read_record(done / f"results/tiny/metrics/{variant}/0/{metric}.json")
            assert (record["variant"], record["metric"], record["study"]) == (variant, metric, "tiny")
            for figure in record["values"].values():
                assert figure["n"] >= 1 and figure["ci_low"] <= figure["value"] <= figure["ci_high"]


def test_tables_have_no_empty_cell_among_our_figures(done):
    for metric in METRICS:
        table = pd.read_csv(done / f"results/tiny/tables/{metric}.csv")
        assert list(models(table)["variant"]) == VARIANTS
        ours = models(table).drop(columns=[c for c in table if c.endswith("_published")])
        assert not ours.isna().any().any(), f"{metric}: {list(ours.columns[ours.isna().any()])}"


def test_tables_hold_what_needs_no_model(done):
    for metric in METRICS:
        table = pd.read_csv(done / f"results/tiny/tables/{metric}.csv")
        assert list(floors(table)["variant"]) == [name for name, floor in FLOORS.items() if floor.metric == metric]
    bound = pd.read_csv(done / "results/tiny/tables/latency.csv")
    assert (bound["latency_ms_memory_bound"] < bound["latency_ms_median"]).all()


def test_every_variant_is_compared_with_the_baseline_and_the_best_floor(done):
    table = read_comparisons(done / "results/tiny/tables/comparisons.csv")
    for metric in METRICS[1:]:
        rows = table[table["metric"] == metric]
        assert list(rows[rows["against"] == "baseline"]["variant"]) == VARIANTS[1:]
        assert list(rows[rows["against"] == "floor"]["variant"]) == ([] if metric == "latency" else VARIANTS)
    assert ((table["p_value"] >= 0) & (table["p_holm"] >= table["p_value"]) & (table["p_holm"] <= 1)).all()
    claims = json.loads((done / "results/tiny/tables/claims.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in claims}
    assert verdicts["merged_keeps_parameters"] == "confirmed" and verdicts["merged_accuracy_83"] == "left open"


def test_variants_are_what_their_names_say(done):
    table = models(pd.read_csv(done / "results/tiny/tables/parameters.csv")).set_index("variant")
    stored = table["stored_parameters"]
    assert (stored[[f"merged_{n}" for n in (2, 4, 6, 8, 10)]] == stored["gpt2"]).all()
    assert stored["compressed_2"] == stored["distilgpt2"] < stored["gpt2"]
    assert stored["compressed_6"] == stored["compressed_10"] < stored["compressed_4"] < stored["compressed_2"]
    kept = table["nonzero_parameters"]["pruned_104M"] / stored["pruned_104M"]
    assert kept == pytest.approx(0.8413, abs=0.01), "the zeros must survive recovery"


def test_baseline_latency_is_measured_against_itself(done):
    table = pd.read_csv(done / "results/tiny/tables/latency.csv").set_index("variant")
    assert 0.2 < table["speedup"]["gpt2"] < 5


def test_item_scores_stand_beside_the_records(done):
    folder = done / "results/tiny/metrics/merged_4/0"
    windows = pd.read_parquet(folder / "perplexity.parquet")
    record = json.loads((folder / "perplexity.json").read_text())
    mean_nats = windows["nats"].sum() / windows["scored_tokens"].sum()
    assert record["values"]["token_perplexity"]["value"] == pytest.approx(2.718281828459045**mean_nats)
    reviews = pd.read_parquet(folder / "sentiment.parquet")
    assert len(reviews) == 24 and set(reviews["predicted"]) <= {0, 1}
    assert len(pd.read_parquet(folder / "summarization.parquet")) == 6


def test_report_holds_every_variant_and_the_provenance(done):
    page = (done / "results/tiny/report/index.html").read_text()
    assert all(variant in page for variant in VARIANTS)
    provenance = json.loads((done / "results/tiny/provenance.json").read_text())
    assert "checkpoint" in json.dumps(provenance)


def test_a_finished_study_has_nothing_to_run(done):
    assert jobs_to_run(done) == []


def test_one_metric_setting_reruns_that_metric_alone(done, tmp_path):
    study = tiny_study()
    study["metrics"]["summarization"]["generated_tokens"] = 7
    changed = write_study(tmp_path / "tiny.yaml", study)
    expected = ["measure_summarization"] * 13 + ["measure_floor"] * 4 + ["tabulate", "compare_variants"]
    expected += ["plot_figure"] * 5 + ["render_report", "all"]
    assert jobs_to_run(done, study=changed) == sorted(expected)


def test_one_variants_line_reruns_that_variant_alone(done, tmp_path):
    study = tiny_study()
    study["variants"]["pruned_104M"]["keep_share"] = 0.9
    changed = write_study(tmp_path / "tiny.yaml", study)
    expected = ["build_variant", "recover_variant", *(f"measure_{m}" for m in METRICS)]
    expected += ["tabulate"] * 5 + ["compare_variants"] + ["plot_figure"] * 5 + ["render_report", "all"]
    assert jobs_to_run(done, study=changed) == sorted(expected)


def test_snakemakes_own_report_holds_tables_plots_and_page(done):
    page = done / "report.html"
    result = snakemake(done, "--report", page)
    assert result.returncode == 0, result.stderr
    content = page.read_text()
    assert "perplexity.csv" in content and "recovery.svg" in content and "index.html" in content


def test_the_same_job_gives_the_same_bytes_with_and_without_the_warm_interpreter(done, tmp_path):
    shutil.copytree(done, tmp_path / "copy")
    record = "results/tiny/metrics/compressed_4/0/sentiment.parquet"
    before = (tmp_path / "copy" / record).read_bytes()
    (tmp_path / "copy" / record).unlink()
    result = snakemake(tmp_path / "copy", record, FFNFOLD_PRELOAD="off")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "copy" / record).read_bytes() == before


def test_a_changed_checkpoint_is_named_and_nothing_else_is_lost(done, tmp_path):
    shutil.copytree(done, tmp_path / "copy")
    weights = tmp_path / "copy/results/tiny/variants/merged_2/recovered/0/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    record = "results/tiny/metrics/merged_2/0/parameters.json"
    (tmp_path / "copy" / record).unlink()
    result = snakemake(tmp_path / "copy", record)
    assert result.returncode != 0
    assert "a checkpoint file is not the one that was written" in result.stderr and "sha256" in result.stderr
    assert (tmp_path / "copy/results/tiny/metrics/merged_4/0/parameters.json").is_file()


def test_lint_has_no_complaint():
    result = subprocess.run([str(SNAKEMAKE), "--lint"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "good condition" in result.stdout + result.stderr, result.stderr


BAD = {
    "unknown key": ({"metrics": {"perplexity": {"strid": 3}}}, "metrics.perplexity", "'strid'"),
    "n of zero": ({"variants": {"bad": {"method": "merge", "n": 0}}}, "variants.bad.n", "at least 1"),
    "n of one and a half": ({"variants": {"bad": {"method": "merge", "n": 1.5}}}, "variants.bad.n", "integer"),
    "n above the blocks": ({"variants": {"bad": {"method": "compress", "n": 13}}}, "variants.bad.n", "1 to 12"),
    "a slash in a name": ({"variants": {"a/b": {"method": "merge", "n": 2}}}, "variants", "'a/b'"),
    "a space in a name": ({"variants": {"a b": {"method": "merge", "n": 2}}}, "variants", "'a b'"),
    "a name twice": ({"variants": {"merged_2": {"method": "merge", "n": 2}}}, "variants.merged_2", "same name"),
    "a budget of zero": ({"recovery": {"training": {"steps": 0}}}, "recovery.training.steps", "at least 1"),
    "a missing file": (
        {"data": {"sentiment": {"source": {"train": "no.jsonl", "test": "no.jsonl"}}}},
        "no.jsonl",
        "remedy",
    ),
    "no folder of that name": ({"base": {"source": "./no-such-folder"}}, "no-such-folder", "remedy"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_a_message_before_any_job(name, tmp_path):
    change, *expected = BAD[name]
    study = tiny_study()

    def lay_over(target, source):
        for key, value in source.items():
            if isinstance(value, dict) and isinstance(target.get(key), dict) and "method" not in value:
                lay_over(target[key], value)
            else:
                target[key] = value

    lay_over(study, change)
    path = write_study(tmp_path / "bad.yaml", study)
    result = snakemake(tmp_path, "all", study=path)
    assert result.returncode != 0
    output = result.stdout + result.stderr
    assert "Traceback" not in output
    for text in expected:
        assert text in output, output
    assert not (tmp_path / "results").exists()


def test_an_unreachable_hub_is_one_message_for_the_whole_study(tmp_path):
    study = tiny_study()
    study["base"] = {"source": "openai-community/gpt2", "revision": "main"}
    study["variants"]["distilgpt2"] = {"method": "checkpoint", "source": "distilbert/distilgpt2"}
    path = write_study(tmp_path / "hub.yaml", study)
    for _ in range(2):  # the second run must not find a lock that the first one left
        started = time.monotonic()
        result = snakemake(tmp_path, "all", study=path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
        assert time.monotonic() - started < 15
        output = result.stdout + result.stderr
        assert result.returncode != 0 and "Traceback" not in output
        assert output.count("cannot be reached") == 1
        assert "distilbert/distilgpt2, openai-community/gpt2" in output and "local files" in output


def test_cuda_that_is_absent_is_refused_before_any_job(tmp_path):
    study = {**tiny_study(), "device": "cuda"}
    path = write_study(tmp_path / "cuda.yaml", study)
    result = snakemake(tmp_path, "all", study=path, CUDA_VISIBLE_DEVICES="")
    output = result.stdout + result.stderr
    assert result.returncode != 0 and "CUDA was asked for" in output and "Traceback" not in output
    assert not (tmp_path / "results/tiny/base").exists()
