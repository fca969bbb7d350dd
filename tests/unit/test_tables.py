"""Records into tables: order, completeness, every digit kept."""

import copy
import math
from pathlib import Path

import pytest
import record_factory as factory
from ffnfold.errors import InputError
from ffnfold.published import PUBLISHED_VALUES, read_published
from ffnfold.tables import (
    METRICS,
    VALUE_NAMES,
    build_table,
    floors,
    models,
    read_table,
    replicate_table,
    value_names,
    write_table,
)

PUBLISHED = read_published(Path(__file__).parents[2] / "config" / "published.csv")


def build(metric, records, variants=factory.VARIANTS):
    return build_table(metric, records, PUBLISHED, variants)


@pytest.mark.parametrize("metric", METRICS)
def test_a_table_is_complete_and_in_study_order(metric):
    table = build(metric, factory.records()[::-1])
    assert table["variant"].tolist() == [variant["name"] for variant in factory.VARIANTS]
    assert value_names(table) == list(VALUE_NAMES[metric])
    ours = table[[column for column in table.columns if not column.endswith("_published")]]
    assert not ours.isna().any().any()
    published = [column.removesuffix("_published") for column in table.columns if column.endswith("_published")]
    assert published == list(PUBLISHED_VALUES[metric])


def test_replicates_are_one_row_and_each_has_one_in_a_table_of_its_own():
    records = factory.records(replicates=(2, 0, 1))
    table = build("latency", records)
    assert len(table) == len(factory.VARIANTS) and set(table["replicates"]) == {3}
    # 52, 52.52 and 53.04 ms: the mean, with Student's interval of three values, 4.303 x 0.52 / sqrt(3) either way.
    row = table.iloc[0]
    assert row["latency_ms_median"] == pytest.approx(52.52)
    assert row["latency_ms_median_ci_high"] - 52.52 == pytest.approx(4.3027 * 0.52 / math.sqrt(3), rel=1e-4)
    each = replicate_table("latency", records, factory.VARIANTS)
    assert len(each) == 3 * len(factory.VARIANTS) and each["replicate"].tolist()[:4] == [0, 1, 2, 0]
    assert each["latency_ms_median"].tolist()[:3] == pytest.approx([52, 52.52, 53.04])


def test_floors_follow_the_models_and_lack_what_they_do_not_measure(tmp_path):
    table = factory.tables()["perplexity"]
    write_table(table, tmp_path / "table.csv")
    again = read_table(tmp_path / "table.csv")
    assert models(again)["variant"].tolist() == [variant["name"] for variant in factory.VARIANTS]
    assert floors(again)["variant"].tolist() == ["unigram", "trigram"]
    trigram = floors(again).iloc[1]
    assert trigram["token_perplexity"] == 4.4 and trigram["token_perplexity_n"] == 214
    assert math.isnan(trigram["token_perplexity_before_recovery"])
    assert trigram["token_perplexity_before_recovery_unit"] == "" and math.isnan(trigram["token_perplexity_published"])
    assert ",214," in (tmp_path / "table.csv").read_text() and ",214.0," not in (tmp_path / "table.csv").read_text()


def test_values_pass_unrounded_through_the_file(tmp_path):
    records = factory.records()
    records[0] = copy.deepcopy(records[0])
    for metric in METRICS:
        table = build(metric, records)
        write_table(table, tmp_path / "table.csv")
        again = read_table(tmp_path / "table.csv")
        assert again.columns.tolist() == table.columns.tolist()
        for column in table:
            for before, after in zip(table[column], again[column], strict=True):
                assert before == after or (math.isnan(before) and math.isnan(after)), column


def test_counts_are_written_without_a_decimal_point(tmp_path):
    write_table(build("parameters", factory.records()), tmp_path / "table.csv")
    assert "." not in (tmp_path / "table.csv").read_text()


def test_a_value_of_one_is_kept_with_its_unit_and_n():
    row = build("sentiment", factory.records()).iloc[0]
    assert (row["accuracy"], row["accuracy_n"], row["accuracy_unit"]) == (88.1, 2000, "%")
    assert row["accuracy_published"] == 87.45


def test_values_beyond_the_known_ones_follow_at_the_end():
    records = factory.records()
    for record in records:
        if record["metric"] == "sentiment":
            record["values"]["f1"] = factory.value(0.5, "F1", 0.01, 10)
    assert value_names(build("sentiment", records)) == ["accuracy", "f1"]


def test_a_missing_record_is_named():
    records = [record for record in factory.records() if record["variant"] != "merged_6"]
    with pytest.raises(InputError, match="lacks a record") as error:
        build("latency", records)
    assert "merged_6, replicate 0" in str(error.value)


def test_a_replicate_that_one_variant_lacks_is_named():
    with pytest.raises(InputError, match="lacks a record"):
        build("latency", [*factory.records(), factory.record("latency", "gpt2", 1)])


def test_a_double_or_unknown_record_is_refused():
    with pytest.raises(InputError, match="same thing"):
        build("latency", [*factory.records(), factory.record("latency", "gpt2")])
    with pytest.raises(InputError, match="unknown variant"):
        build("latency", factory.records(), factory.VARIANTS[:-1])


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_no_number_is_refused(value):
    records = factory.records()
    records[0]["values"]["size_bytes"]["value"] = value
    with pytest.raises(InputError, match="not a finite number") as error:
        build("parameters", records)
    assert "gpt2" in str(error.value) and "size_bytes" in str(error.value)


def test_a_missing_value_and_an_unknown_metric_are_refused():
    records = factory.records()
    del records[0]["values"]["size_bytes"]
    with pytest.raises(InputError, match="lacks a value"):
        build("parameters", records)
    with pytest.raises(InputError, match="unknown metric"):
        build("speed", records)
