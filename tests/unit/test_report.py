"""The report: complete, escaped, self-contained, its numbers with unit, interval and n."""

import html
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
import record_factory as factory
from ffnfold.comparisons import NOT_COMPARED
from ffnfold.figures import FIGURES
from ffnfold.formatting import duration, figure, interval, number, published, variants
from ffnfold.pages import render
from ffnfold.provenance import collect_provenance
from ffnfold.published import read_published
from ffnfold.report import FIGURE_TITLES, build_context
from ffnfold.summary import findings
from ffnfold.tables import METRICS

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "report" / "templates"
PUBLISHED = read_published(ROOT / "config" / "published.csv")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"></svg>'
LINKS = {f"{metric}.csv": f"../tables/{metric}.csv" for metric in METRICS} | {"provenance.json": "../provenance.json"}


def context(rows=factory.VARIANTS, records=None, infos=None, study=None, replicates=(0,), **extra):
    records = records or factory.records(rows, replicates)
    return build_context(
        study=study or factory.study(),
        records=records,
        tables=factory.tables(rows, made=records),
        figures=dict.fromkeys(FIGURES, SVG),
        published_figures=PUBLISHED,
        dataset_infos=factory.dataset_infos() if infos is None else infos,
        links=LINKS,
        **{"comparisons": factory.comparisons(rows), "claims": factory.CLAIMS, **extra},
    )


class Page(HTMLParser):
    """What the tests ask of a page: its tags in order, its headings' levels, each table's cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def page():
    return render(TEMPLATES, context())


def test_the_page_is_self_contained_and_accessible(page):
    parsed = Page(page)
    tags = [tag for tag, _ in parsed.tags]
    assert "script" not in tags and "iframe" not in tags
    for tag, attributes in parsed.tags:
        assert not (attributes.get("src") or "data:").startswith(("http", "//")), tag
        if tag == "a":
            assert attributes["href"].startswith(("#", "../"))
        if tag == "img":
            assert attributes["alt"] and attributes["src"].startswith("data:image/svg+xml;base64,")
        if tag == "th":
            assert attributes["scope"] in ("col", "row", "colgroup")
    assert parsed.tags[0] == ("html", {"lang": "en"}) or ("html", {"lang": "en"}) in parsed.tags
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert tags.count("caption") == tags.count("table")
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"][1:] for tag, attributes in parsed.tags if tag == "a" and attributes["href"][0] == "#"]
    assert set(targets) <= set(ids)


def test_every_table_holds_every_variant_and_no_empty_cell(page):
    tables = Page(page).tables[: len(METRICS)]
    for table in tables:
        names = [row[0].strip() for row in table]
        assert all(variant["name"] in names for variant in factory.VARIANTS)
        assert all(cell.strip() for row in table for cell in row)
    rows = {row[0].strip(): [" ".join(cell.split()) for cell in row] for row in tables[1]}
    assert rows["gpt2"][2:4] == ["3.165[3.127, 3.203]", "12.22"]
    assert rows["merged_2"][3] == "not published"
    # The last two columns: against the baseline, and against the best floor.
    assert rows["compressed_10"][-2:] == ["worse× 1.482 [1.472, 1.492]", "does not beat it× 1.066 [1.056, 1.076]"]
    assert rows["merged_2"][-2] == "indistinguishable× 1.005 [0.995, 1.015]" and rows["gpt2"][-2] == "–"
    assert "first three sentences" in {row[0].strip() for row in tables[4]}
    assert rows["Kneser-Ney trigram"][1] == "no model" and "not measured" in rows["Kneser-Ney trigram"]


def test_a_variant_the_published_study_lacks_says_so():
    rows = [*factory.VARIANTS[:2], {"name": "shared_2", "method": "share"}]
    records = [
        factory.record(metric, row["name"], 0, factory.FIGURES["merged_2"]) for metric in METRICS for row in rows
    ]
    assert "not in that study" in render(TEMPLATES, context(rows, records))


def test_text_from_data_and_study_is_escaped():
    evil = "<script>alert('x')</script>"
    rows = [factory.VARIANTS[0], {"name": evil, "method": "<img src=x onerror=alert(1)>"}]
    records = [
        factory.record(metric, row["name"], 0, factory.FIGURES["merged_2"]) for metric in METRICS for row in rows
    ]
    for record in records:
        record["protocol"] = {evil: evil}
        record["software"] = {evil: evil}
        record["device"]["name"] = evil
    infos = factory.dataset_infos()
    infos[0]["source"] = infos[0]["licence"] = evil
    infos[0]["bounds"]["entropy_bits_per_byte"]["meaning"] = evil
    study = {"name": evil, "description": evil, "seed": evil, "comparable": False}
    page = render(TEMPLATES, context(rows, records, infos, study))
    assert "<script" not in page and "onerror=alert(1)>" not in page.replace("onerror=alert(1)&gt;", "")
    assert html.escape(evil) in page or "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert not {tag for tag, _ in Page(page).tags} & {"script"}
    assert sum(tag == "img" for tag, _ in Page(page).tags) == len(FIGURES)


def test_a_value_the_template_lacks_is_an_error(tmp_path):
    without = context()
    del without["bounds"]
    with pytest.raises(jinja2.UndefinedError, match="bounds"):
        render(TEMPLATES, without)
    templates = tmp_path / "templates"
    shutil.copytree(TEMPLATES, templates)
    (templates / "index.html.j2").write_text("{{ study.nothing_of_the_kind }}")
    with pytest.raises(jinja2.UndefinedError):
        render(templates, context())


def test_the_page_says_whether_it_can_be_compared(page):
    assert "Not comparable with the published figures" in page
    assert "Not comparable" not in render(TEMPLATES, context(study=factory.study(comparable=True)))


def test_a_failed_gate_is_a_red_line_at_the_top_with_both_figures():
    page = render(
        TEMPLATES, context(gates=[factory.GATE, {**factory.GATE, "name": "fine", "found": 29.95, "passed": True}])
    )
    top = page[: page.index('<nav aria-label="Contents">')]
    assert top.count("does not reproduce a known value") == 1 and top.count('class="notice failed"') == 1
    assert "31.2" in top and "29.94" in top and "no known values" not in page
    assert "no known values" in render(TEMPLATES, context())


def test_claims_stand_with_their_verdict_and_evidence():
    evil = {**factory.CLAIMS[0], "claim": "<b>x</b>"}
    page = render(TEMPLATES, context(claims=[evil]))
    assert "confirmed" in page and "exactly 1: supports" in page and "<b>x" not in page
    assert 'id="claims"' not in render(TEMPLATES, context(claims=[]))


def test_questions_stand_with_their_answers():
    questions = factory.questions()
    page = render(TEMPLATES, context(questions=questions))
    text = " ".join(page.split())
    assert 'href="#questions"' in page and "Is &lt;b&gt;averaging&lt;/b&gt; better?" in page and "<b>" not in page
    first, second = (table for table in Page(page).tables if table[0][0] == "Figure")
    rows = [[" ".join(cell.split()) for cell in row] for row in first]
    assert rows[1] == ["Stored parametersratio", "1×exact", "–", "1", "exact count", "–", "as many as merged_4"]
    assert rows[2][1:] == ["0.952×[0.942, 0.962]", "1,214", "1", "made up", "< 0.001", "better than merged_4"]
    assert rows[3][0] == "Accuracydifference" and rows[3][1] == "+1.5 points[0.5, 2.5]" and rows[3][5] == "0.040"
    assert second[1][1:] == ["–", "–", "–", "none", "–", NOT_COMPARED]
    assert "with one replicate the spread between seeds of recovery and fine-tuning is not in them" in text
    several = render(TEMPLATES, context(questions=questions.assign(replicates=3)))
    assert "the spread between replicates is in them" in " ".join(several.split())


def test_a_study_without_questions_has_no_such_section():
    for questions in (None, factory.questions().iloc[:0]):
        page = render(TEMPLATES, context(questions=questions))
        assert 'id="questions"' not in page and "#questions" not in page


def test_the_audit_is_named_where_there_is_one():
    page = render(TEMPLATES, context(audit={"command": "snakemake audit", "href": "../audit/index.html"}))
    assert 'href="../audit/index.html"' in page and "../audit" not in render(TEMPLATES, context())


def test_two_renderings_are_the_same(page):
    assert render(TEMPLATES, context()) == page


def test_a_study_without_bounds_baseline_or_with_replicates_renders():
    infos = factory.dataset_infos()
    for info in infos:
        info["bounds"] = {}
    rows = [row for row in factory.VARIANTS if row["method"] != "baseline"]
    assert "None is known" in render(TEMPLATES, context(rows, infos=infos, comparisons=None))
    assert "2 replicates each" in render(TEMPLATES, context(replicates=(0, 1)))
    assert render(TEMPLATES, context(factory.VARIANTS[:1]))


def test_findings_follow_from_the_tables():
    tables, compared = factory.tables(), factory.comparisons()
    found = {item["lead"]: item["text"].replace("\u00a0", " ") for item in findings(tables, compared)}
    assert found["Token perplexity"].startswith("Indistinguishable from gpt2: pruned_104M and merged_2/4/6/8/10. ")
    assert "last comes compressed_10, 4.69" in found["Token perplexity"]
    assert (
        "Of the 7 variants with fewer" in found["Best smaller model"] and "pruned_104M" in found["Best smaller model"]
    )
    assert "the best of them, compressed_6" in found["Best smaller model"]
    assert found["Speed"].startswith("6 of 12 variants are faster") and "compressed_8" in found["Speed"]
    floors = found["Against no model at all"]
    assert "Token perplexity: the best without a language model is Kneser-Ney trigram, 4.400" in floors
    assert "compressed_6/8/10 do not beat it" in floors and "ROUGE-L: the best without" in floors
    assert "Token perplexity" not in {item["lead"] for item in findings(tables)}, "nothing to compare with"
    assert "compressed_10 is worst, token perplexity 1,641" in found["Recovery"]


def test_every_figure_has_a_title_and_the_text_alternative_has_numbers():
    assert set(FIGURE_TITLES) == set(FIGURES)
    for item in context()["figures"]:
        assert re.search(r"Lowest.*n\s=\s\d+.*Highest", item["alt"]), item["id"]


def test_protocols_show_each_value_that_differs_once():
    records = factory.records()
    for record in records:
        if record["metric"] == "latency":
            record["protocol"] = {"repeats": 30, "nested": {"batch": 1 if record["variant"] == "gpt2" else 2}}
    table = next(table for table in context(records=records)["tables"] if table["id"] == "latency")
    assert table["protocol"] == [{"name": "repeats", "value": "30"}, {"name": "nested: batch", "value": "1 or 2"}]


def test_provenance_traces_every_measurement():
    records = factory.records()
    facts = collect_provenance(factory.study(), records, factory.dataset_infos(), {"a.csv": b"abc"})
    assert len(facts["measurements"]) == len(records) and len(facts["checkpoints"]) == len(factory.VARIANTS)
    assert facts["started_at"] == "2026-01-02T03:00:05Z" and facts["finished_at"] == "2026-01-02T03:00:09Z"
    assert facts["compute_s"] == 4.25 * len(records)
    assert facts["files"]["a.csv"].startswith("ba7816bf")
    assert facts["software"]["torch"] == ["2.13.0"]
    json.dumps(facts)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (3.127, 3.203, "[3.127, 3.203]"),
        (86.7, 89.5, "[86.7, 89.5]"),
        (1500, 1900, "[1,500, 1,900]"),
        (5.0, 5.0, "exact"),
    ],
)
def test_intervals_have_two_digits_of_their_width(low, high, expected):
    assert interval((low + high) / 2, low, high) == expected


def test_numbers_as_text():
    assert number(124439808.0) == "124,439,808" and number(0.61144) == "0.6114" and number(-2.5, 1) == "−2.5"
    assert figure(1.9, 1.87, 1.93, 30, "x") == "1.900× (95% interval 1.870 to 1.930, n\u00a0=\u00a030)"
    assert published(81_910_000.0, "stored_parameters") == "81.91\u00a0M"
    assert published(210346.42, "token_perplexity") == "210,346.42" and published(0.186, "rougeL") == "0.1860"
    assert [duration(s).replace("\u00a0", " ") for s in (4.25, 125, 7620)] == ["4.2 s", "2 min 05 s", "2 h 07 min"]
    assert variants(["gpt2", "merged_2", "merged_4", "pruned_104M"]) == "gpt2, merged_2/4 and pruned_104M"
