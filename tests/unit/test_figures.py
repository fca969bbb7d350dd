"""Figures: well-formed SVG, the same bytes each time, for few and for many variants."""

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest
import record_factory as factory
from ffnfold.figures import FIGURES, LABEL_PX, _spread, bounds_by_task, draw, token_perplexity_floor
from ffnfold.published import read_published
from ffnfold.tables import METRICS

PUBLISHED = read_published(Path(__file__).parents[2] / "config" / "published.csv")
BOUNDS = bounds_by_task(factory.dataset_infos())


def tables(variants=factory.VARIANTS, replicates=(0,), figures=factory.FIGURES):
    made = [
        factory.record(metric, variant["name"], replicate, figures[variant["name"]])
        for metric in METRICS
        for variant in variants
        for replicate in replicates
    ]
    return factory.tables(variants, made=made)


def words(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_names_every_variant_and_is_the_same_twice(figure):
    svg = draw(figure, tables(), BOUNDS)
    assert svg == draw(figure, tables(), BOUNDS)
    text = words(svg)
    assert {variant["name"] for variant in factory.VARIANTS} <= set(text)
    assert {"baseline", "merge", "compress"} <= set(text)
    assert b"http" not in svg.replace(b"http://www.w3.org/", b"") and b"<script" not in svg


@pytest.mark.parametrize("figure", FIGURES)
def test_forty_variants_and_an_unknown_method(figure):
    variants = [{"name": "gpt2", "method": "baseline"}]
    variants += [{"name": f"made_{n}", "method": ("merge", "fold")[n % 2]} for n in range(39)]
    figures = {
        variant["name"]: (600_000 - 9_000 * (n % 5), 9.0 + n, 3.0 + n / 50, 50.0 - n, 80.0 - n / 9, 0.3 - n / 900)
        for n, variant in enumerate(variants)
    }
    assert {variant["name"] for variant in variants} <= set(words(draw(figure, tables(variants, (0,), figures))))


@pytest.mark.parametrize("figure", FIGURES)
def test_one_variant_and_three_replicates(figure):
    assert "gpt2" in words(draw(figure, tables(factory.VARIANTS[:1]), BOUNDS))
    assert "gpt2" in words(draw(figure, tables(factory.VARIANTS[:2], (0, 1, 2)), {}))


def test_lines_to_compare_with():
    sentiment = words(draw("sentiment", tables(), BOUNDS))
    assert "ceiling 95.0" in sentiment and sentiment.count("baseline") == 2  # the legend's and the line's
    assert "ceiling 95.0" not in words(draw("sentiment", tables(), {}))
    assert "first three sentences" in words(draw("summarization", tables(), {}))
    assert "bag of words and pairs" in sentiment
    assert "Kneser-Ney trigram" in words(draw("perplexity_vs_parameters", tables(), BOUNDS))


def test_the_floor_is_the_entropy_in_the_units_of_token_perplexity():
    # the made-up text has 2.6 bytes per token, so 0.611 bits per byte are 2 ** (0.611 * 2.6) per token
    floor = token_perplexity_floor(tables()["perplexity"], BOUNDS)
    assert floor == pytest.approx(2 ** (0.611 * 2.6))
    assert token_perplexity_floor(tables()["perplexity"], {}) is None
    assert any("entropy" in text for text in words(draw("perplexity_vs_parameters", tables(), BOUNDS)))


def test_markup_in_a_name_stays_text():
    name = "<script>alert(1)</script>"
    variants = [{"name": "gpt2", "method": "baseline"}, {"name": name, "method": "<b>merge</b>"}]
    svg = draw("latency", tables(variants, (0,), {"gpt2": factory.FIGURES["gpt2"], name: factory.FIGURES["merged_2"]}))
    assert b"<script" not in svg and name in words(svg)


def test_labels_keep_their_distance_and_their_order():
    assert _spread([5.0, 100.0], 0, 200) == [5.0, 100.0]
    placed = _spread([50.0, 50.0, 51.0], 0, 200)
    assert placed == pytest.approx([151 / 3 - LABEL_PX, 151 / 3, 151 / 3 + LABEL_PX])
    packed = _spread([1.0] * 4 + [199.0] * 3, 0, 200)
    gaps = [after - before for before, after in itertools.pairwise(packed)]
    assert min(gaps) >= LABEL_PX - 1e-9 and packed[0] >= 0 and packed[-1] <= 200


def test_an_unknown_figure_is_refused():
    with pytest.raises(ValueError, match="unknown figure"):
        draw("pie", tables())
