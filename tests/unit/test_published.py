"""The published figures: complete, checked, found by our names."""

from pathlib import Path

import pytest
from ffnfold.errors import InputError
from ffnfold.published import PUBLISHED_VALUES, published_value, read_published

PUBLISHED = Path(__file__).parents[2] / "config" / "published.csv"


@pytest.fixture(scope="module")
def published():
    return read_published(PUBLISHED)


def write(tmp_path, *rows, header="variant,metric,value,unit"):
    path = tmp_path / "published.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_every_published_figure_is_there(published):
    counts = published["metric"].value_counts().to_dict()
    assert counts == {
        "stored_parameters": 11,  # all but merged_2 and the pruned model, whose figure is non-zero parameters
        "nonzero_parameters": 1,
        "token_perplexity": 12,
        "latency_ms_median": 10,
        "speedup": 9,
        "accuracy": 13,
        "rouge1": 11,
        "rouge2": 11,
        "rougeL": 11,
    }
    assert set(counts) == {name for names in PUBLISHED_VALUES.values() for name in names}


@pytest.mark.parametrize(
    ("variant", "name", "expected"),
    [
        ("gpt2", "stored_parameters", 124_439_808),
        ("gpt2", "token_perplexity", 12.22),
        ("pruned_104M", "nonzero_parameters", 104_690_000),
        ("pruned_104M", "token_perplexity", 210346.42),
        ("compressed_4", "latency_ms_median", 590.37),
        ("compressed_6", "speedup", 2.42),
        ("merged_2", "accuracy", 83.67),
        ("merged_10", "rougeL", 0.1860),
    ],
)
def test_lookup(published, variant, name, expected):
    assert published_value(published, variant, name) == expected


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("pruned_104M", "stored_parameters"),
        ("merged_2", "token_perplexity"),
        ("distilgpt2", "latency_ms_median"),
        ("gpt2", "speedup"),
        ("shared_2", "accuracy"),
    ],
)
def test_what_was_not_published_is_none(published, variant, name):
    assert published_value(published, variant, name) is None


def test_latency_is_found_by_both_names(published):
    assert published_value(published, "gpt2", "latency_ms") == published_value(published, "gpt2", "latency_ms_median")


def test_published_speedups_follow_from_the_published_latencies(published):
    rows = published[published["metric"] == "speedup"]
    for variant, speedup in zip(rows["variant"], rows["value"], strict=True):
        latency = published_value(published, variant, "latency_ms")
        assert 73.90 / latency == pytest.approx(speedup, abs=0.0151), variant


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("gpt2,speed,1.0,x", "unknown published metric"),
        ("gpt2,accuracy,high,%", "not a positive number"),
        ("gpt2,accuracy,,%", "not a positive number"),
        ("gpt2,accuracy,-1,%", "not a positive number"),
        ("gpt2,accuracy,inf,%", "not a positive number"),
        (",accuracy,80,%", "names no variant"),
        ("gpt2,accuracy,80,", "no unit"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
    with pytest.raises(InputError, match=message) as error:
        read_published(write(tmp_path, "gpt2,rouge1,0.2,F1", row))
    assert "row 3" in str(error.value) and "published.csv" in str(error.value)


def test_a_repeated_figure_is_refused(tmp_path):
    path = write(tmp_path, "gpt2,latency_ms,70,ms", "gpt2,latency_ms_median,71,ms")
    with pytest.raises(InputError, match="given twice"):
        read_published(path)


def test_other_columns_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="other columns"):
        read_published(write(tmp_path, "gpt2,accuracy,80", header="variant,metric,value"))
    with pytest.raises(InputError, match="missing"):
        read_published(tmp_path / "nothing.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="not a readable CSV"):
        read_published(tmp_path / "empty.csv")
