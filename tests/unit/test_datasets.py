import hashlib
import json

import pytest
from ffnfold import datasets, splits
from ffnfold.errors import InputError


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def language_spec(folder, **texts):
    """Local .txt files, "a" and "b" lines unless given."""
    source = {}
    for split in datasets.SPLITS:
        path = folder / f"{split}.txt"
        path.write_bytes(texts.get(split, b"a b\n\nc\n"))
        source[split] = str(path)
    return {"source": source}


def reviews(split, n=10):
    return [{"text": f"{split} review {i}", "label": int(i >= n // 2)} for i in range(n)]


def sentiment_spec(folder, **rows):
    source = {split: jsonl(folder / f"{split}.jsonl", rows.get(split, reviews(split))) for split in ("train", "test")}
    return {"source": source}


def test_lines_of_text_are_rows_and_counts_are_exact(tmp_path):
    datasets.prepare_task("language_modeling", language_spec(tmp_path), tmp_path / "out", 0)
    assert list(splits.read_split(tmp_path / "out", "test")["text"]) == ["a b", "", "c"]
    assert splits.read_text(tmp_path / "out", "test") == "a b\n\nc"
    info = splits.load_info(tmp_path / "out")
    split = info["splits"]["test"]
    assert (split["rows"], split["bytes"], split["words"]) == (3, 6, 3)
    assert split["sha256"] == hashlib.sha256((tmp_path / "out" / "test.parquet").read_bytes()).hexdigest()
    assert (info["task"], info["revision"], info["licence"], info["bounds"]) == (
        "language_modeling",
        None,
        "unknown",
        {},
    )


def test_other_line_ends_and_a_byte_order_mark_change_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    datasets.prepare_task("language_modeling", language_spec(tmp_path / "a", test="é\nb".encode()), tmp_path / "1", 0)
    other = language_spec(tmp_path / "b", test="\ufeffé\r\nb\r\n".encode())
    datasets.prepare_task("language_modeling", other, tmp_path / "2", 0)
    first, second = splits.load_info(tmp_path / "1"), splits.load_info(tmp_path / "2")
    assert first["fingerprint"] == second["fingerprint"] and first["splits"] == second["splits"]
    assert first["splits"]["test"]["bytes"] == 4


def test_the_fingerprint_follows_content_and_joint(tmp_path):
    spec = language_spec(tmp_path)
    marks = set()
    for number, changed in enumerate(({}, {"join": "\n\n"}, {"rows": {"test": 2}}, {"licence": "CC0"})):
        datasets.prepare_task("language_modeling", spec | changed, tmp_path / str(number), 0)
        marks.add(splits.load_info(tmp_path / str(number))["fingerprint"])
    assert len(marks) == 3


def test_files_of_a_split_may_be_a_list_a_pattern_or_a_folder(tmp_path):
    spec = language_spec(tmp_path)
    (tmp_path / "more_1.txt").write_text("x\n")
    (tmp_path / "more_2.txt").write_text("y")
    several = {"source": spec["source"] | {"train": [str(tmp_path / "more_*.txt"), spec["source"]["test"]]}}
    datasets.prepare_task("language_modeling", several, tmp_path / "out", 0)
    assert list(splits.read_split(tmp_path / "out", "train")["text"]) == ["x", "y", "a b", "", "c"]
    datasets.prepare_task("language_modeling", {"source": str(tmp_path)}, tmp_path / "out2", 0)
    assert splits.read_text(tmp_path / "out2", "train") == "a b\n\nc"


def test_a_selection_of_sorted_reviews_holds_both_classes_and_follows_the_seed(tmp_path):
    spec = sentiment_spec(tmp_path, train=reviews("train", 100)) | {
        "rows": {"train": 40, "validation": 5, "test": None}
    }
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        datasets.prepare_task("sentiment", spec, tmp_path / name, seed)
    a, b, c = (splits.read_split(tmp_path / name, "train") for name in "abc")
    assert len(a) == 40 and 8 < a["label"].sum() < 32 and a["label"].dtype == "int64"
    assert a.equals(b) and set(a["id"]) != set(c["id"])
    assert (tmp_path / "a" / "train.parquet").read_bytes() == (tmp_path / "b" / "train.parquet").read_bytes()
    assert len(splits.read_split(tmp_path / "a", "validation")) == 0
    assert len(splits.read_split(tmp_path / "a", "test")) == 10
    assert splits.load_info(tmp_path / "a")["label_names"] == ["negative", "positive"]


def test_labels_are_mapped_by_the_study_s_values(tmp_path):
    rows = [{"text": "x", "stars": "one"}, {"text": "y", "stars": "five"}, {"text": "z", "stars": "five"}]
    spec = sentiment_spec(tmp_path, train=rows, test=rows) | {"columns": {"label": "stars"}}
    for labels in (["one", "five"], {"one": 0, "five": 1}):
        datasets.prepare_task("sentiment", spec | {"labels": labels}, tmp_path / "out", 0)
        table = splits.read_split(tmp_path / "out", "test").sort_values("text")
        assert list(table["label"]) == [0, 1, 1]
    with pytest.raises(InputError, match=r"train\.jsonl, line 1, column 'stars'(.|\n)*'one'(.|\n)*'positive'"):
        datasets.prepare_task("sentiment", spec, tmp_path / "out", 0)


def test_ids_are_kept_where_they_tell_rows_apart(tmp_path):
    rows = [{"id": i, "article": "a", "highlights": "h"} for i in ("x", "", "y", "y")]
    spec = {"source": {"train": jsonl(tmp_path / "t.jsonl", rows), "test": jsonl(tmp_path / "u.jsonl", rows)}}
    datasets.prepare_task("summarization", spec, tmp_path / "out", 0)
    assert list(splits.read_split(tmp_path / "out", "test")["id"]) == ["x", "test-1", "test-2", "test-3"]


def test_csv_and_parquet_give_the_same_data_as_jsonl(tmp_path):
    import pandas

    rows = [{"article": 'a, "quoted"\nsecond line ' + "long " * 40000, "highlights": "h", "label": 1}] * 3
    frame = pandas.DataFrame(rows)
    frame.to_csv(tmp_path / "d.csv", index=False)
    frame.to_parquet(tmp_path / "d.parquet")
    jsonl(tmp_path / "d.jsonl", rows)
    marks = set()
    for suffix in ("csv", "parquet", "jsonl"):
        path = str(tmp_path / f"d.{suffix}")
        spec = {"source": {"train": path, "test": path}}
        datasets.check_local_files("summarization", spec)
        datasets.prepare_task("summarization", spec, tmp_path / suffix, 0)
        marks.add(splits.load_info(tmp_path / suffix)["fingerprint"])
    assert len(marks) == 1
    labels = {
        "source": {"train": str(tmp_path / "d.csv"), "test": str(tmp_path / "d.csv")},
        "columns": {"text": "article"},
    }
    datasets.prepare_task("sentiment", labels, tmp_path / "labels", 0)
    assert list(splits.read_split(tmp_path / "labels", "train")["label"]) == [1, 1, 1]


BAD = [
    ({"train": "none.jsonl"}, r"does not exist(.|\n)*none\.jsonl", True),
    ({"train": "empty.jsonl"}, r"is empty(.|\n)*empty\.jsonl", True),
    ({"train": "data.xml"}, r"unknown kind(.|\n)*\.xml(.|\n)*\.txt or \.jsonl", True),
    ({"train": "lines.txt"}, r"\.txt file holds one column(.|\n)*text, label", True),
    ({"train": "notjson.jsonl"}, r"not JSON(.|\n)*notjson\.jsonl, line 2", False),
    ({"train": "notjson1.jsonl"}, r"not JSON(.|\n)*notjson1\.jsonl, line 1", True),
    ({"train": "list.jsonl"}, r"not a JSON object(.|\n)*line 1", True),
    ({"train": "nolabel.jsonl"}, r"column is missing(.|\n)*line 1(.|\n)*columns: text(.|\n)*'label'", True),
    ({"train": "nolabel2.jsonl"}, r"column is missing(.|\n)*line 2(.|\n)*'label'", False),
    ({"train": "nolabel.csv"}, r"column is missing(.|\n)*nolabel\.csv(.|\n)*text, stars(.|\n)*'label'", True),
    ({"train": "fields.csv"}, r"another number of fields(.|\n)*line 3(.|\n)*2 fields", False),
    (
        {"train": "label7.jsonl"},
        r"outside the set(.|\n)*label7\.jsonl, line 2, column 'label'(.|\n)*7(.|\n)*0 or 1",
        False,
    ),
    ({"train": "number.jsonl"}, r"something else(.|\n)*number\.jsonl, line 1, column 'text'(.|\n)*5", False),
    ({"train": "half.jsonl"}, r"something else(.|\n)*half\.jsonl, line 1", False),
    ({"train": "latin.jsonl"}, r"not UTF-8(.|\n)*latin\.jsonl", True),
    ({"train": "cut.parquet"}, r"not Parquet, or is truncated(.|\n)*cut\.parquet", True),
    ({"train": "blank.jsonl"}, r"no rows(.|\n)*sentiment: train", False),
    ({"train": "p_*.jsonl"}, r"no file fits(.|\n)*p_\*\.jsonl", True),
    ({"training": "good.jsonl"}, r"unknown split(.|\n)*training(.|\n)*train, validation, test", True),
]


@pytest.fixture
def bad_files(tmp_path):
    good = '{"text": "fine", "label": 1}\n'
    contents = {
        "good.jsonl": good,
        "empty.jsonl": "",
        "data.xml": "<a/>",
        "lines.txt": "a\n",
        "notjson.jsonl": good + "{'text': 1}\n",
        "notjson1.jsonl": "text\n",
        "list.jsonl": "[1]\n",
        "nolabel.jsonl": '{"text": "x"}\n',
        "nolabel2.jsonl": good + '{"text": "x"}\n',
        "nolabel.csv": "text,stars\nx,1\n",
        "fields.csv": "text,label\nx,1\ny\n",
        "label7.jsonl": good + '{"text": "x", "label": 7}\n',
        "number.jsonl": '{"text": 5, "label": 1}\n',
        "half.jsonl": '{"text": "\\ud800", "label": 1}\n',
        "blank.jsonl": "\n\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9", "label": 1}\n')
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 not the rest")
    return tmp_path


@pytest.mark.parametrize(("change", "message", "early"), BAD, ids=[next(iter(c.values())) for c, _, _ in BAD])
def test_bad_input_is_named(bad_files, change, message, early):
    good = str(bad_files / "good.jsonl")
    source = {"train": good, "test": good} | {split: str(bad_files / name) for split, name in change.items()}
    spec = {"source": source}
    with pytest.raises(InputError, match=message) as caught:
        datasets.prepare_task("sentiment", spec, bad_files / "out", 0)
    assert not (bad_files / "out").exists()
    if early:
        with pytest.raises(InputError) as before:
            datasets.check_local_files("sentiment", spec)
        assert str(before.value) == str(caught.value)
    else:
        datasets.check_local_files("sentiment", spec)


def test_a_split_that_is_needed_and_absent_is_named(tmp_path):
    spec = language_spec(tmp_path)
    del spec["source"]["validation"]
    with pytest.raises(InputError, match="language_modeling: validation"):
        datasets.check_local_files("language_modeling", spec)
    with pytest.raises(InputError, match=r"no rows(.|\n)*language_modeling: validation"):
        datasets.prepare_task("language_modeling", spec, tmp_path / "out", 0)


def test_a_source_that_is_nothing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"does not exist(.|\n)*hub id"):
        datasets.check_local_files("sentiment", {"source": "./nowhere"})


def test_a_corrupted_split_is_named(tmp_path):
    datasets.prepare_task("sentiment", sentiment_spec(tmp_path), tmp_path / "out", 0)
    path = tmp_path / "out" / "train.parquet"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"train\.parquet(.|\n)*sha256(.|\n)*sha256"):
        splits.read_split(tmp_path / "out", "train")
    path.unlink()
    with pytest.raises(InputError, match="no file"):
        splits.read_split(tmp_path / "out", "train")


@pytest.mark.parametrize("task", ["language_modeling", "sentiment", "summarization"])
def test_the_embedded_corpus_gives_every_task_with_its_bounds(tmp_path, task):
    spec = {"source": "embedded", "rows": {"train": 20, "validation": 5, "test": 8}, "licence": "CC0-1.0"}
    datasets.prepare_task(task, spec, tmp_path / "a", 7)
    datasets.prepare_task(task, spec, tmp_path / "b", 7)
    info = splits.load_info(tmp_path / "a")
    assert [info["splits"][split]["rows"] for split in datasets.SPLITS] == [20, 5, 8]
    assert list(splits.read_split(tmp_path / "a", "test").columns) == list(datasets.STORED[task])
    assert (tmp_path / "a" / "train.parquet").read_bytes() == (tmp_path / "b" / "train.parquet").read_bytes()
    bounds = {"language_modeling": {"entropy_bits_per_byte"}, "sentiment": {"accuracy_ceiling"}, "summarization": set()}
    assert set(info["bounds"]) == bounds[task]
    if task == "language_modeling":
        assert splits.read_text(tmp_path / "a", "test").startswith(
            splits.read_split(tmp_path / "a", "test")["text"][0] + "\n\n"
        )
    for bound in info["bounds"].values():
        assert set(bound) == {"value", "unit", "meaning"} and 0 < bound["value"] <= 100
