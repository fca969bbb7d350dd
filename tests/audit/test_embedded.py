"""The audit of the embedded study, made before by `make audit`: the four effects are there, with their sizes."""

from __future__ import annotations

import pandas as pd
import pytest
from running import ROOT

FOLDER = ROOT / "results/mini/audit"


@pytest.fixture(scope="module")
def figures():
    """The headline figures by step, artefact and variant."""
    assert (FOLDER / "effects.csv").is_file(), "run `make audit` first"
    table = pd.read_csv(FOLDER / "effects.csv", keep_default_na=False, na_values={"change": [""]})
    return table.set_index(["value_name", "step", "artefact", "variant"])["value"].sort_index()


def test_the_page_says_that_all_four_are_seen():
    page = (FOLDER / "index.html").read_text()
    assert page.count('<span class="unit">seen here</span>') == 4 and "not seen here" not in page


def test_counted_pads_alone_make_the_pruned_model_a_hundred_times_worse(figures):
    published = figures["token_perplexity", "published", ""]
    without = figures["token_perplexity", "without", "score_padding"]
    others = published.drop("pruned_104M")
    print(f"\n    as published {published.round(2).to_dict()}\n    less the pads {without.round(2).to_dict()}")
    assert published["pruned_104M"] > 100 * others.median()
    assert without["pruned_104M"] < 3 * without.drop("pruned_104M").median()


def test_early_stopping_scrambles_the_order_of_latencies(figures):
    # Times as shares of the baseline's, which is timed in turn with each variant: what else the machine does cancels.
    stopped, fixed = 1 / figures["speedup", "published", ""], 1 / figures["speedup", "without", "stop_at_end_of_text"]
    print(f"\n    stopped {stopped.round(2).to_dict()}\n    fixed {fixed.round(2).to_dict()}")
    assert stopped["compressed_10"] > 1.5 * stopped["compressed_4"], "two blocks, slower than three"
    assert stopped["pruned_104M"] > 2
    assert fixed[["compressed_4", "compressed_10"]].max() < 0.7
    assert fixed[["pruned_104M", "merged_4"]].min() > 0.6 and fixed[["pruned_104M", "merged_4"]].max() < 1.6


def test_the_articles_words_carry_a_broken_model(figures):
    whole, alone = figures["rougeL", "published", ""], figures["rougeL", "without", "include_prompt"]
    print(f"\n    with the article's words {whole.round(4).to_dict()}\n    alone {alone.round(4).to_dict()}")
    assert whole["compressed_10"] > 0.8 * whole["gpt2"] and alone["compressed_10"] < 0.3 * alone["gpt2"]


def test_pooling_at_a_pad_moves_the_accuracy(figures):
    sound, pooled = figures["accuracy", "sound", ""], figures["accuracy", "only", "pool_last_position"]
    print(f"\n    sound {sound.to_dict()}\n    at the last position {pooled.to_dict()}")
    assert (sound - pooled).abs().max() > 4
