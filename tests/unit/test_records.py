import copy
import json
import math

import pandas as pd
import pytest
from ffnfold.errors import InputError
from ffnfold.records import METRICS, Value, check_record, exact, read_record, write_record

RECORD = {
    "study": "mini",
    "variant": "merged_2",
    "replicate": 0,
    "metric": "perplexity",
    "values": {"token_perplexity": Value(3.5, "perplexity", 3.25, 3.75, 12, "percentile bootstrap over windows")},
    "protocol": {"window": 128, "split": "test"},
    "checkpoint": {"path": "results/mini/x", "sha256": "0" * 64},
    "data": {"task": "language_modeling", "fingerprint": "f" * 64},
    "software": {"torch": "2.9"},
    "device": {"type": "cpu", "name": "a machine", "threads": 1},
    "started_at": "2026-01-01T00:00:00+00:00",
    "duration_s": 1.5,
}
ITEMS = pd.DataFrame({"start_token": [0, 64], "nats": [1.5, 2.25]})


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "perplexity.json"
    write_record(path, copy.deepcopy(RECORD), ITEMS)
    return path


def test_a_record_comes_back_as_it_was(written):
    record = read_record(written)
    figure = {"value": 3.5, "unit": "perplexity", "ci_low": 3.25, "ci_high": 3.75, "n": 12}
    method = {"ci_method": "percentile bootstrap over windows"}
    assert record == {
        **RECORD,
        "schema_version": 1,
        "values": {"token_perplexity": {**figure, **method}},
        "items": "perplexity.parquet",
    }
    pd.testing.assert_frame_equal(pd.read_parquet(written.with_suffix(".parquet")), ITEMS)
    assert sorted(path.name for path in written.parent.iterdir()) == ["perplexity.json", "perplexity.parquet"]


def test_a_record_without_items(tmp_path):
    record = {
        **RECORD,
        "metric": "parameters",
        "data": None,
        "values": {"stored_parameters": exact(7, "parameters", 3)},
    }
    write_record(tmp_path / "parameters.json", record, None)
    read = read_record(tmp_path / "parameters.json")
    assert read["items"] is None and read["data"] is None
    assert read["values"]["stored_parameters"] == {
        "value": 7.0, "unit": "parameters", "ci_low": 7.0, "ci_high": 7.0, "n": 3, "ci_method": "exact",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["parameters.json"]


@pytest.mark.parametrize("metric", METRICS)
def test_the_schema_knows_every_metric(tmp_path, metric):
    write_record(tmp_path / "r.json", {**RECORD, "metric": metric}, None)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"metric": "beauty"}, "metric"),
        ({"variant": "a/b"}, "variant"),
        ({"replicate": -1}, "replicate"),
        ({"replicate": "0"}, "replicate"),
        ({"values": {}}, "values"),
        ({"checkpoint": {"path": "x", "sha256": "abc"}}, "checkpoint.sha256"),
        ({"data": {"task": "poetry", "fingerprint": "f" * 64}}, "data"),
        ({"device": {"type": "tpu", "name": "x", "threads": 1}}, "device.type"),
        ({"duration_s": -1.0}, "duration_s"),
        ({"extra": 1}, "(top level)"),
    ],
)
def test_a_record_that_does_not_fit_the_schema_is_not_written(tmp_path, change, where):
    with pytest.raises(InputError, match="does not fit its schema") as error:
        write_record(tmp_path / "r.json", {**RECORD, **change}, ITEMS)
    assert f"r.json: {where}" in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", sorted(RECORD))
def test_a_missing_key_is_refused(written, key):
    record = json.loads(written.read_text())
    del record[key]
    written.write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"'{key}' is a required property"):
        read_record(written)


@pytest.mark.parametrize(
    "numbers", [(math.nan, 1, 2), (1, 0, math.inf), (-math.inf, -math.inf, 2), (3, 1, 2), (0, 1, 2)]
)
def test_a_figure_that_is_not_finite_or_outside_its_interval_is_refused(tmp_path, numbers):
    value, low, high = map(float, numbers)
    figure = Value(value, "perplexity", low, high, 3, "bootstrap")
    with pytest.raises(InputError, match="not finite or lies outside") as error:
        write_record(tmp_path / "r.json", {**RECORD, "values": {"token_perplexity": figure}}, ITEMS)
    assert "values.token_perplexity" in str(error.value) and "remedy" in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe{"])
def test_a_file_that_is_no_record_is_refused(written, content):
    written.write_bytes(content)
    with pytest.raises(InputError, match="record") as error:
        read_record(written)
    assert "perplexity.json" in str(error.value) and "delete the file" in str(error.value)


def test_a_nan_put_into_a_file_by_hand_is_refused(written):
    written.write_text(written.read_text().replace("3.75", "NaN"))
    with pytest.raises(InputError, match="not finite"):
        read_record(written)


def test_missing_records_and_missing_items_are_named(written):
    written.with_suffix(".parquet").unlink()
    with pytest.raises(InputError, match="per-item scores") as error:
        read_record(written)
    assert "perplexity.parquet" in str(error.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_record(written.with_name("none.json"))


def test_check_record_takes_what_read_record_gives(written):
    check_record(read_record(written), "here")
