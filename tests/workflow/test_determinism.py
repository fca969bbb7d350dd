"""Two runs of one study from nothing on one machine: the same bytes but for times, latencies and memory."""

from __future__ import annotations

import pytest
from comparing import differences, fingerprints, is_record, timeless
from running import small_study, succeed, write_study


def audited_study(folder):
    """A small study with two replicates, and an audit of it against itself with every artefact on."""
    study = small_study()
    study["replicates"] = 2
    study["audit"] = {"against": "as_published", "variants": ["merged_4"]}
    published = {
        "extends": "sound",
        "audit": {"against": None, "variants": []},
        "replicates": 1,
        "alignment": {"calibrate_on_test": True, "count_padding": True, "max_items": 3},
        "recovery": {"training": {"pack": False, "labels_on_padding": True}},
        "metrics": {
            "perplexity": {"truncate_tokens": 40, "score_padding": True, "max_items": 6},
            "latency": {"stop_at_end_of_text": True, "max_items": 1},
            "sentiment": {"stage": "built", "pool": "last_position", "max_items": 20},
            "summarization": {"stage": "built", "prompt": "", "include_prompt": True, "beams": 2, "max_items": 4},
        },
        "variants": {"merged_4": {"write": "anchor"}},
    }
    write_study(folder / "as_published.yaml", published)
    return write_study(folder / "sound.yaml", study)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The results of two runs, the study and its audit in each."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    study = audited_study(folders[0])
    for folder in folders:
        succeed(folder, "all", "audit", study=study)
    return [folder / "results/sound" for folder in folders]


def test_two_runs_from_nothing_agree_to_the_byte(runs):
    assert differences(*runs) == []
    found = fingerprints(runs[0])
    records = [name for name in found if is_record(runs[0] / name)]
    print(f"\n{len(found)} results, {len(records)} of them metric records, are the same to the byte in both runs")
    for expected in ("metrics/merged_4/1/perplexity.json", "floors/trigram.json", "tables/comparisons.csv"):
        assert expected in found
    assert any(name.startswith("audit/published/metrics/") for name in records)


def test_the_comparison_sees_one_changed_figure(runs, tmp_path):
    path = runs[0] / "metrics/merged_4/0/sentiment.json"
    copy = tmp_path / "metrics/merged_4/0/sentiment.json"
    copy.parent.mkdir(parents=True)
    copy.write_text(path.read_text())
    assert timeless(copy) == timeless(path)
    copy.write_text(path.read_text().replace('"value": ', '"value": 1', 1))
    assert timeless(copy) != timeless(path)


def test_the_audits_page_and_table_stand_beside_its_scenarios(runs):
    page = (runs[0] / "audit/index.html").read_text()
    assert "As published, run again" in page and "merged_4" in page
    assert (runs[0] / "audit/effects.csv").read_text().count("\n") > 30
