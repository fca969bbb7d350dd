"""The page of a study with failed jobs."""

import json
from pathlib import Path

import pytest
import record_factory as factory
from ffnfold.failures import by_reason, complete_tables
from ffnfold.incomplete import write_incomplete_report
from ffnfold.published import read_published
from ffnfold.records import METRICS
from ffnfold.tables import build_table

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "config" / "published.csv"
ROWS = [row for row in factory.VARIANTS if row["name"] in ("gpt2", "merged_4", "compressed_4")]
EVIL = "out of memory <b>now</b>"


def cells(variant, metrics=METRICS, reason=EVIL):
    return [(variant, 0, metric, reason) for metric in metrics]


@pytest.fixture
def write(tmp_path):
    """write(unfinished) -> the page's text, None where none was written."""

    def run(unfinished):
        missing = {(variant, metric) for variant, _, metric, _ in unfinished}
        for metric in METRICS:
            for record in factory.records(ROWS):
                path = tmp_path / f"metrics/{record['variant']}/0/{record['metric']}.json"
                if record["metric"] == metric and (record["variant"], metric) not in missing:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(record))
                    if record["items"]:
                        (path.parent / record["items"]).touch()
        for info in factory.dataset_infos():
            path = tmp_path / f"data/{info['task']}/dataset_info.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(info))
        (tmp_path / "provenance.json").write_text("{}")
        (tmp_path / "trigram.json").write_text(json.dumps({**factory.floor_records("perplexity")[1], "items": None}))
        (tmp_path / "gates.json").write_text(json.dumps([factory.GATE]))
        page = write_incomplete_report(
            tmp_path,
            {**factory.study(), "known_values": 1},
            ROWS,
            [0],
            unfinished,
            PUBLISHED,
            ROOT / "report" / "templates",
            [("measure_floor tfidf", "no such file <i>there</i>")],
            [str(tmp_path / "trigram.json")],
            [str(tmp_path / "gates.json")],
        )
        return page and page.read_text()

    return run


def test_missing_cells_are_named_with_their_reason_and_the_others_shown(write, tmp_path):
    page = write(cells("merged_4"))
    assert "This study is incomplete" in page
    assert "merged_4, replicate 0: parameters, perplexity, latency, sentiment, summarization" in page
    assert "out of memory &lt;b&gt;now&lt;/b&gt;" in page and "<b>now" not in page
    assert page.count('class="failed"') > 5
    assert "3.165" in page, "the baseline's perplexity"
    assert "compressed_4 has the lowest" in page or "compressed_4" in page
    assert "measure_floor tfidf. Reason: no such file &lt;i&gt;there&lt;/i&gt;" in page
    assert "Kneser-Ney trigram" in page and "does not reproduce a known value" in page
    assert not (tmp_path / "provenance.json").exists(), "the next run has to write the page again"


def test_one_missing_metric_leaves_the_variants_other_figures(write):
    page = write(cells("merged_4", ["latency"]))
    assert "merged_4, replicate 0: latency" in page and "3.2" in page


def test_without_the_baseline_there_is_no_comparison(write):
    page = write(cells("gpt2"))
    assert "holds no complete baseline" in page and "<figure" not in page


def test_a_whole_metric_may_be_missing(write):
    page = write([cell for row in ROWS for cell in cells(row["name"], ["sentiment"])])
    assert 'id="table-sentiment"' not in page and 'id="table-latency"' in page


def test_without_any_figure_there_is_no_page(write):
    assert write([cell for row in ROWS for cell in cells(row["name"])]) is None


def test_cells_are_gathered_by_reason():
    failures = [
        {"variant": v, "replicate": r, "metric": m, "reason": why}
        for v, r, m, why in [("a", 0, "latency", "x"), ("a", 0, "sentiment", "x"), ("a", 1, "latency", "y")]
    ]
    assert by_reason(failures, {"latency": "Latency", "sentiment": "Sentiment"}) == [
        {"reason": "x", "cells": ["a, replicate 0: latency, sentiment"]},
        {"reason": "y", "cells": ["a, replicate 1: latency"]},
    ]


def test_findings_use_complete_variants_alone():
    records = factory.records(ROWS)
    tables = {metric: build_table(metric, records, read_published(PUBLISHED), ROWS) for metric in METRICS}
    assert complete_tables(tables, []).keys() == tables.keys()
    kept = complete_tables(tables, [{"variant": "merged_4"}])
    assert all(list(table["variant"]) == ["gpt2", "compressed_4"] for table in kept.values())
    assert complete_tables(tables, [{"variant": "gpt2"}]) == {}
