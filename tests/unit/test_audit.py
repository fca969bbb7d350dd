"""What the audit says of made-up records: changes with intervals, the four effects, the page."""

import math
import re
from pathlib import Path

import pytest
import record_factory as factory
from ffnfold.artefacts import ARTEFACTS
from ffnfold.audit import COLUMNS, change, effects_table, findings
from ffnfold.audit_page import build_context
from ffnfold.errors import InputError
from ffnfold.pages import render
from ffnfold.published import read_published

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "report" / "templates"
NAMES = ["gpt2", "pruned_104M", "compressed_10"]
FACTS = {
    "audited": NAMES,
    "baseline": ["gpt2"],
    "pads_masked": ["pruned_104M"],
    "pads_learnt": ["gpt2", "compressed_10"],
    "pooled_at_position": ["pruned_104M"],
    "summarized_unrecovered": NAMES,
}
FLOPS = {"gpt2": 12.0, "pruned_104M": 12.0, "compressed_10": 2.0}
BROKEN = {"gpt2": 1.7, "pruned_104M": 2.1, "compressed_10": 2150.0}

#: metric, scenario -> a figure for each variant (None where the scenario changes nothing for it)
FIGURES = {
    ("perplexity", "sound"): (1.7, 1.72, 4.1),
    ("perplexity", "published"): (1.3, 900.0, 2.9),
    ("perplexity", "without_score_padding"): (1.8, 1.9, 4.4),
    ("perplexity", "only_score_padding"): (60.0, 62.0, 80.0),
    ("latency", "sound"): (60.0, 61.0, 20.0),
    ("latency", "published"): (8.0, 60.0, 25.0),
    ("latency", "without_stop_at_end_of_text"): (60.0, 61.0, 20.0),
    ("sentiment", "sound"): (62.0, 61.0, 60.0),
    ("sentiment", "published"): (61.0, 52.0, 60.0),
    ("sentiment", "only_pool_last_position"): (55.0, 54.0, 59.0),
    ("sentiment", "without_pool_last_position"): (None, 60.0, None),
    ("summarization", "sound"): (0.59, 0.58, 0.28),
    ("summarization", "published"): (0.40, 0.40, 0.36),
    ("summarization", "without_include_prompt"): (0.30, 0.30, 0.03),
}
UNITS = {"perplexity": "perplexity", "latency": "ms", "sentiment": "%", "summarization": "F1"}
VALUES = {
    "perplexity": ("token_perplexity",),
    "latency": ("latency_ms_median", "generated_tokens"),
    "sentiment": ("accuracy",),
    "summarization": ("rougeL", "rouge1", "rouge2"),
}


def made(changes=None):
    """Cells and records of `FIGURES`, with some figures replaced."""
    cells, records = [], {}
    for (metric, scenario), figures in {**FIGURES, **(changes or {})}.items():
        for variant, figure in zip(NAMES, figures, strict=True):
            if figure is None:
                continue
            artefact = None if scenario in ("sound", "published") else scenario.partition("_")[2]
            owner = "" if scenario == "sound" else scenario
            names = {"metric": metric, "variant": variant, "scenario": scenario, "artefact": artefact}
            cells.append({**names, "owner": owner})
            values = {name: factory.value(figure, UNITS[metric], 0.02 * figure, 100) for name in VALUES[metric]}
            if metric == "latency":
                ratio = figures[0] / figure
                values["speedup"] = factory.value(ratio, "x", 0.02 * ratio, 100)
            records[owner, variant, metric] = {"values": values}
    return cells, records


def found(changes=None, facts=FACTS):
    return findings(effects_table(*made(changes)), facts, FLOPS, BROKEN)


def test_changes_by_hand():
    # Difference: 7 - 5 = 2; below sqrt((7 - 6)^2 + (8 - 5)^2) = sqrt(10), above sqrt((10 - 7)^2 + (5 - 4)^2), the same.
    before = {"value": 5.0, "ci_low": 4.0, "ci_high": 8.0}
    after = {"value": 7.0, "ci_low": 6.0, "ci_high": 10.0}
    assert change(before, after, "difference") == pytest.approx((2, 2 - math.sqrt(10), 2 + math.sqrt(10)))
    # Ratio: the same on logarithms. ln 2 either way on both sides: ln 4 -+ sqrt(2) ln 2.
    before = {"value": 1.0, "ci_low": 0.5, "ci_high": 2.0}
    after = {"value": 4.0, "ci_low": 2.0, "ci_high": 8.0}
    assert change(before, after, "ratio") == pytest.approx((4, 4 / 2 ** math.sqrt(2), 4 * 2 ** math.sqrt(2)))


def test_each_step_is_compared_with_where_it_starts():
    table = effects_table(*made())
    assert list(table.columns) == list(COLUMNS)
    at = table.set_index(["value_name", "step", "artefact", "variant"])["change"]
    assert math.isnan(at["token_perplexity", "sound", "", "gpt2"])
    assert at["token_perplexity", "published", "", "gpt2"] == pytest.approx(1.3 / 1.7)
    assert at["token_perplexity", "without", "score_padding", "pruned_104M"] == pytest.approx(1.9 / 900)
    assert at["token_perplexity", "only", "score_padding", "compressed_10"] == pytest.approx(80 / 4.1)
    assert at["accuracy", "only", "pool_last_position", "gpt2"] == pytest.approx(-7)
    records = table.set_index(["value_name", "step", "artefact", "variant"])["record"]
    assert records["accuracy", "sound", "", "gpt2"] == "metrics/gpt2/0/sentiment.json"
    assert records["rouge1", "published", "", "gpt2"] == "audit/published/metrics/gpt2/0/summarization.json"


def test_the_four_effects_are_seen_where_they_are():
    pads, stopping, words, pooling = found()
    assert all(item["shown"] for item in (pads, stopping, words, pooling))
    assert "it is 692 times that of gpt2 and 310 times that of compressed_10, in the median 501 times" in pads["text"]
    assert "1.06 times gpt2 and 0.43 times compressed_10" in pads["text"], "1.9 / 1.8 and 1.9 / 4.4"
    assert "compressed_10, with less to compute, is slower than gpt2" in stopping["text"]
    assert "pruned_104M, with as much to compute, takes 7.50 times gpt2" in stopping["text"]
    assert "no order beyond the intervals contradicts" in stopping["text"]
    assert "2,150" in words["text"] and "90% of its ROUGE-1" in words["text"] and "10% of its ROUGE-L" in words["text"]
    assert (
        "shifts the accuracy by gpt2 −7.0 points" in pooling["text"]
        and "Beyond the interval: gpt2 and pruned_104M." in pooling["text"]
    )


@pytest.mark.parametrize(
    ("index", "changes"),
    [
        (0, {("perplexity", "published"): (1.3, 90.0, 2.9)}),  # 50 times in the median is not 100
        (0, {("perplexity", "without_score_padding"): (1.8, 900.0, 4.4)}),  # the pads were not the reason
        (1, {("latency", "published"): (60.0, 61.0, 20.0)}),
        (1, {("latency", "without_stop_at_end_of_text"): (8.0, 60.0, 25.0)}),  # still reversed at fixed lengths
        (2, {("summarization", "published"): (0.40, 0.40, 0.05)}),
        (2, {("summarization", "without_include_prompt"): (0.30, 0.30, 0.29)}),
        (3, {("sentiment", "only_pool_last_position"): (62.0, 61.0, 60.0)}),
    ],
)
def test_an_effect_is_not_claimed_where_it_is_not(index, changes):
    assert [item["shown"] for item in found(changes)] == [i != index for i in range(4)]


def test_an_effect_that_the_audited_variants_cannot_show_says_so():
    items = found(facts={**FACTS, "pads_masked": [], "summarized_unrecovered": []})
    assert not items[0]["shown"] and "Not to be seen here" in items[0]["text"]
    assert not items[2]["shown"] and "Not to be seen here" in items[2]["text"]


def test_a_record_without_its_figure_is_named():
    cells, records = made()
    del records["published", "gpt2", "perplexity"]["values"]["token_perplexity"]
    with pytest.raises(InputError, match="cannot be audited") as error:
        effects_table(cells, records)
    assert "scenario published, variant gpt2, metric perplexity" in str(error.value)


def page(name="made_up", facts=FACTS):
    context = build_context(
        study={"name": name, "description": "d", "comparable": False},
        table=effects_table(*made()),
        facts=facts,
        flops=FLOPS,
        before_recovery=BROKEN,
        published_figures=read_published(ROOT / "config" / "published.csv"),
        settings={artefact.name: dict.fromkeys(artefact.keys, "false → true") for artefact in ARTEFACTS},
        links={"report": "../report/index.html", "table": "effects.csv"},
    )
    return render(TEMPLATES, context, "audit.html.j2")


def test_the_page_leads_from_the_published_figure_to_the_sound_one():
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page()))
    chain = text[text.index("Token perplexity") :]
    steps = [
        "12.22",
        "As published, run again",
        "1.300",
        "less score padding",
        "Sound",
        "1.700",
        "with score padding alone",
    ]
    places = [chain.index(step) for step in steps]
    assert places == sorted(places)
    assert "210,346.42" in chain and "× 0.0021" in chain and "× 35.29" in chain
    accuracies = text[text.index("less pool last position") :]
    assert accuracies[: accuracies.index("Sound")].count("the same") == 2, "two are published at the last token"
    assert "less truncate tokens" not in text and "Sound, with truncate tokens" not in text, "no such scenario was made"


def test_the_page_escapes_and_loads_nothing():
    text = page("<script>alert(1)</script>")
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {h[1:] for h in re.findall(r'href="(#[^"]+)"', text)} <= set(ids)
    assert text.count("<caption") == text.count("<table")
