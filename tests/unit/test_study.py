import copy
from functools import partial
from pathlib import Path

import pytest
import yaml
from ffnfold.errors import InputError
from ffnfold.relations import check_against_base
from ffnfold.study import (
    expand_variants,
    load_study,
    merge_settings,
    pretrained_config,
    read_yaml,
    validate_study,
)
from study_factory import SMALLEST, load_changed, nested, refused

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def load(tmp_path):
    """`load_changed` in a folder of its own."""
    return partial(load_changed, tmp_path)


# --------------------------------------------------------------------------------------------------- what is taken


def test_defaults_are_filled_in(load):
    study = load()
    assert study["name"] == "mine"
    assert study["seed"] == 20260101 and study["replicates"] == 1 and study["device"] == "auto"
    shape = {"layers": 12, "hidden_size": 64, "heads": 4, "positions": 128}
    assert study["base"]["architecture"].items() >= shape.items()
    assert study["base"]["source"] is None and study["base"]["tokenizer"]["source"] is None
    assert study["data"]["sentiment"]["labels"]["neg"] == 0
    assert study["metrics"]["latency"]["repeats"] == 20
    assert study["recovery"]["training"] == study["base"]["training"]
    assert study["recovery"]["training"]["accumulation"] == 1


def test_defaults_are_not_shared_and_what_is_given_stays(load):
    study = load({"recovery": {"training": {"steps": 7}}, "seed": 0})
    assert study["recovery"]["training"]["steps"] == 7 and study["base"]["training"]["steps"] == 100
    assert study["seed"] == 0
    study["data"]["sentiment"]["labels"]["x"] = 1
    assert "x" not in study["data"]["language_modeling"]["labels"] and "x" not in load()["data"]["sentiment"]["labels"]


def test_a_variants_defaults_are_its_methods(load):
    variants = {"student": {"method": "distill", "layers": [0]}, "pruned": {"method": "prune", "keep": 5}}
    table = load({"variants": variants})["variants"]
    assert table["student"]["temperature"] == 2.0 and table["student"]["training"]["steps"] == 100
    assert table["pruned"] == {"method": "prune", "keep": 5, "scope": "all", "score": "magnitude"}
    assert table["gpt2"] == {"method": "baseline"}


def test_a_list_expands_over_its_placeholder_in_the_studys_order(load):
    variants = {"merged_{n}": {"method": "merge", "n": [4, 2]}, "compressed_{n}": {"method": "compress", "n": [12]}}
    table = load({"variants": variants})["variants"]
    assert list(table) == ["gpt2", "merged_4", "merged_2", "compressed_12"]
    defaults = {"groups": "runs", "reference": "first", "align": "activations", "average": "mean"}
    merged = {key: value for key, value in table["merged_4"].items() if key not in ("fit", "validation_tokens")}
    assert merged == {"method": "merge", "n": 4, "write": "all", **defaults} and table["merged_4"]["fit"]["steps"] == 0


def test_the_order_of_a_studys_lines_changes_no_setting_but_the_order_of_the_variants(load):
    def reversed_keys(value):
        return {k: reversed_keys(value[k]) for k in reversed(value)} if isinstance(value, dict) else value

    given = {
        "recovery": {"training": {"steps": 7, "batch_size": 2}},
        "metrics": {"latency": {"repeats": 9, "warmup": 2}},
    }
    given["variants"] = {"merged_2": {"method": "merge", "n": 2}}
    first, second = load(given), load(reversed_keys(given))
    assert repr({**first, "variants": 0}) == repr({**second, "variants": 0})
    assert repr(first["variants"]["merged_2"]) == repr(second["variants"]["merged_2"])


def test_overrides_lie_over_the_study(load):
    study = load(overrides={"seed": 7, "metrics": {"latency": {"repeats": 50}}})
    assert study["seed"] == 7 and study["metrics"]["latency"] == {**load()["metrics"]["latency"], "repeats": 50}


def test_merging_settings_changes_neither_side():
    base, override = {"a": {"b": [1]}, "c": 1}, {"a": {"d": {"e": 2}}, "c": [3]}
    before = copy.deepcopy((base, override))
    merged = merge_settings(base, override)
    assert merged == {"a": {"b": [1], "d": {"e": 2}}, "c": [3]}
    merged["a"]["b"].append(2)
    merged["a"]["d"]["e"] = 5
    assert (base, override) == before


def test_a_study_may_be_named_by_its_path(load, tmp_path):
    load()
    assert load_study({"study": str(tmp_path / "mine.yaml")}, tmp_path / "elsewhere")["name"] == "mine"


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_of_the_project_is_valid(path):
    study = load_study({"study": path.stem}, path.parent)
    assert study["name"] == path.stem and "gpt2" in study["variants"]


def test_the_default_study_has_all_thirteen_variants():
    settings = read_yaml(ROOT / "config" / "config.yaml")
    table = load_study(settings, ROOT / "config" / "studies")["variants"]
    expected = {"gpt2", "distilgpt2", "pruned_104M"}
    assert set(table) >= expected | {f"{kind}_{n}" for kind in ("merged", "compressed") for n in (2, 4, 6, 8, 10)}


def test_yaml_anchors_can_be_merged(load):
    text = yaml.safe_dump(SMALLEST) + "alignment: {<<: {tokens: 100}, sequence_length: 16}\n"
    assert {"tokens": 100, "sequence_length": 16}.items() <= load(text=text)["alignment"].items()


def test_the_pretrained_configuration(load):
    study = load({"base": {"architecture": {"layers": 3, "hidden_size": 8, "heads": 2, "positions": 128}}})
    config = pretrained_config(study, 500)
    assert (config["n_layer"], config["n_embd"], config["n_head"], config["n_positions"]) == (3, 8, 2, 128)
    assert config["vocab_size"] == 500 and "vocab_size" not in pretrained_config(study)


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "level",
    [
        "", "base", "base.tokenizer", "base.architecture", "base.training", "data", "data.sentiment",
        "data.sentiment.columns", "data.sentiment.rows", "alignment", "recovery", "recovery.training", "statistics",
        "metrics", "metrics.parameters", "metrics.perplexity", "metrics.latency", "metrics.sentiment",
        "metrics.sentiment.training", "metrics.summarization", "variants.gpt2",
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_at_every_level(load, level):
    changes = nested(f"{level}.colour".removeprefix("."), "red")
    refused(load, "unknown key", f"mine.yaml: {level or '(top level)'}", "'colour'", "README", changes=changes)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "checkpoint", "source": "a/b"},
        {"method": "distill", "layers": [0]},
        {"method": "prune", "keep": 3},
        {"method": "merge", "n": 2},
        {"method": "compress", "n": 2},
    ],
    ids=lambda options: options["method"],
)
def test_an_unknown_key_is_refused_in_every_method(load, options):
    load({"variants": {"v": options}})
    changes = {"variants": {"v": {**options, "colour": "red"}}}
    refused(load, "unknown key", "variants.v", "'colour'", changes=changes)


def test_an_unknown_key_of_a_files_mapping_is_named(load):
    source = {"train": "a.txt", "test": "b.txt", "tset": "c.txt"}
    refused(load, "unknown key", "data.sentiment.source", "'tset'", changes=nested("data.sentiment.source", source))
    refused(load, "missing key", "'test'", changes=nested("data.sentiment.source", {"train": "a.txt"}))
    refused(load, "of type string or object", "got:      3", changes=nested("data.sentiment.source", 3))


@pytest.mark.parametrize("key", ["description", "data", "variants"])
def test_a_missing_key_is_named(load, key):
    content = {name: value for name, value in SMALLEST.items() if name != key}
    refused(load, "missing key", "mine.yaml", f"no '{key}'", text=yaml.safe_dump(content))


@pytest.mark.parametrize("task", ["language_modeling", "sentiment", "summarization"])
def test_a_missing_task_is_named(load, task):
    content = copy.deepcopy(SMALLEST)
    del content["data"][task]
    refused(load, "missing key", "mine.yaml: data", f"no '{task}'", text=yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"n": 2}, "'method'"),
        ({"method": "merge"}, "'n'"),
        ({"method": "compress"}, "'n'"),
        ({"method": "distill"}, "'layers'"),
        ({"method": "checkpoint"}, "'source'"),
    ],
)
def test_a_missing_key_of_a_variant_is_named(load, options, key):
    refused(load, "missing key", "variants.v", f"no {key}", changes={"variants": {"v": options}})


def test_prune_takes_exactly_one_target(load):
    for target, got in (({}, "neither"), ({"keep": 5, "keep_share": 0.5}, "'keep', 'keep_share'")):
        changes = {"variants": {"v": {"method": "prune", **target}}}
        refused(load, "exactly one", "variants.v", f"got:      {got}", "keep, keep_share", changes=changes)


@pytest.mark.parametrize("method", ["merge", "compress"])
@pytest.mark.parametrize(
    ("n", "expected"),
    [(0, "at least 1"), (-2, "at least 1"), (1.5, "integer"), (2.0, "integer"), ("2", "integer"), (True, "integer"),
     ([2, 4], "integer"), (None, "integer"), (13, "1 to 12")],
)  # fmt: skip
def test_an_n_out_of_bounds_is_refused(load, method, n, expected):
    changes = {"variants": {"v": {"method": method, "n": n}}}
    refused(load, "variants.v.n", f"got:      {n!r}", expected, changes=changes)


@pytest.mark.parametrize(("n", "expected"), [(0, "at least 1"), (1.5, "integer"), (13, "1 to 12")])
def test_an_n_out_of_bounds_in_a_list_is_refused(load, n, expected):
    changes = {"variants": {"merged_{n}": {"method": "merge", "n": [2, n]}}}
    refused(load, f"variants.merged_{n}.n", f"got:      {n}", expected, changes=changes)


@pytest.mark.parametrize("name", ["a/b", "a b", "../a", ".hidden", "", "a\nb", "café", "-a", "a{b", "gpt2 ", "a\n"])
def test_a_name_that_is_no_folder_is_refused(load, name):
    changes = {"variants": {name: {"method": "merge", "n": 2}}}
    refused(load, "mine.yaml: variants", f"got:      {name!r}", "no slashes and no spaces", changes=changes)


def test_a_name_that_comes_twice_after_expansion_is_refused(load):
    lists = {"merged_{n}": {"method": "merge", "n": [2, 2]}}
    refused(load, "same name", "variants.merged_2", changes={"variants": lists})
    both = {"merged_2": {"method": "merge", "n": 2}, "merged_{n}": {"method": "merge", "n": [2]}}
    refused(load, "same name", "variants.merged_2", changes={"variants": both})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("merged_{n}", {"method": "merge", "n": 2}),
        ("merged_{n}", {"method": "merge", "n": []}),
        ("merged_{n}", {"method": "merge"}),
        ("merged_{n}_{n}", {"method": "merge", "n": [2]}),
    ],
)
def test_a_placeholder_needs_one_list(load, name, options):
    refused(load, "placeholder", f"variants.{name}", changes={"variants": {name: options}})


@pytest.mark.parametrize("options", [None, 3, "merge", ["merge"]])
def test_a_variant_that_is_not_a_mapping_is_refused(load, options):
    refused(load, "variants.v", repr(options), changes={"variants": {"v": options}})


def test_an_unknown_method_is_refused(load):
    changes = {"variants": {"v": {"method": "shrink"}}}
    refused(load, "variants.v.method", "'shrink'", "'compress'", changes=changes)


@pytest.mark.parametrize("place", ["recovery", "base", "metrics.sentiment"])
@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("steps", 0, "at least 1"),
        ("steps", -3, "at least 1"),
        ("steps", 10.0, "integer"),
        ("batch_size", 0, "at least 1"),
        ("sequence_length", 0, "at least 8"),
        ("learning_rate", 0, "more than 0"),
        ("learning_rate", float("nan"), "number"),
        ("learning_rate", float("inf"), "number"),
        ("learning_rate", "1e-3", "number"),
        ("schedule", "steep", "cosine"),
    ],
)
def test_a_budget_out_of_bounds_is_refused(load, place, key, value, expected):
    refused(load, f"mine.yaml: {place}.training.{key}", expected, changes=nested(f"{place}.training.{key}", value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", -1), ("seed", 2**32), ("seed", "one"), ("replicates", 0), ("device", "gpu"), ("description", ""),
        ("base.architecture.layers", 0), ("base.tokenizer.vocabulary_size", 100), ("data.sentiment.rows.train", 0),
        ("data.sentiment.labels.good", 2), ("alignment.tokens", 0), ("statistics.resamples", 0),
        ("statistics.confidence", 1), ("statistics.confidence", 95), ("metrics.latency.repeats", 0),
        ("metrics.latency.warmup", 0), ("metrics.perplexity.stride", 0),
        ("metrics", None), ("recovery", []), ("recovery.tasks", []), ("recovery.tasks", ["translation"]),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_refused(load, path, value):
    message = refused(load, f"mine.yaml: {path}", "got:", "expected:", changes=nested(path, value))
    assert "schemas" not in message and "{'" not in message


def test_a_stride_beyond_the_window_is_refused(load):
    changes = {"metrics": {"perplexity": {"window": 64, "stride": 65}}}
    refused(load, "metrics.perplexity.stride", "65", "at most the window, 64", changes=changes)


def test_heads_must_divide_the_hidden_size(load):
    changes = nested("base.architecture", {"hidden_size": 10, "heads": 4})
    refused(load, "base.architecture", "hidden_size 10, heads 4", changes=changes)


@pytest.mark.parametrize(
    "path", ["recovery.training", "base.training", "metrics.sentiment.training", "variants.v.training"]
)
def test_micro_batches_must_divide_the_batch(load, path):
    changes = merge_settings(
        {"variants": {"v": {"method": "distill", "layers": [0]}}}, nested(path, {"batch_size": 6, "accumulation": 4})
    )
    refused(load, f"{path}.accumulation", "batch_size 6, accumulation 4", changes=changes)


def test_exactly_one_baseline_is_needed(load):
    content = {**SMALLEST, "variants": {"m": {"method": "merge", "n": 2}}}
    refused(load, "exactly one baseline", "variants", "none", text=yaml.safe_dump(content))
    changes = {"variants": {"second": {"method": "baseline"}}}
    refused(load, "exactly one baseline", "gpt2, second", changes=changes)
    refused(load, "mine.yaml: variants", text=yaml.safe_dump({**SMALLEST, "variants": {}}))
    refused(load, "mine.yaml: variants", text=yaml.safe_dump({**SMALLEST, "variants": ["gpt2"]}))


@pytest.mark.parametrize("layers", [[0, 12], [12]])
def test_a_block_outside_the_base_is_refused(load, layers):
    changes = {"variants": {"v": {"method": "distill", "layers": layers}}}
    refused(load, "variants.v.layers", "[12]", "0 to 11", changes=changes)


@pytest.mark.parametrize("layers", [[], [1, 1], [-1], [1.5], 3])
def test_block_indices_out_of_bounds_are_refused(load, layers):
    refused(load, "variants.v.layers", changes={"variants": {"v": {"method": "distill", "layers": layers}}})


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"metrics": {"perplexity": {"window": 129}}}, "metrics.perplexity.window"),
        ({"metrics": {"latency": {"prompt_tokens": 100, "generated_tokens": 29}}}, "metrics.latency.prompt_tokens"),
        ({"metrics": {"sentiment": {"max_length": 129}}}, "metrics.sentiment.max_length"),
        ({"metrics": {"summarization": {"article_tokens": 100}}}, "metrics.summarization.article_tokens"),
        ({"recovery": {"training": {"sequence_length": 129}}}, "recovery.training.sequence_length"),
        ({"base": {"training": {"sequence_length": 129}}}, "base.training.sequence_length"),
        ({"alignment": {"sequence_length": 129}}, "alignment.sequence_length"),
        (
            {"variants": {"v": {"method": "distill", "layers": [0], "training": {"sequence_length": 129}}}},
            "variants.v.training.sequence_length",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_length_beyond_the_positions_is_refused(load, changes, where):
    refused(load, "more than the base's positions", where, "at most 128", changes=changes)


def test_a_study_over_a_checkpoint_is_checked_against_that(load):
    study = load({"base": {"source": "a/b"}, "variants": {"m": {"method": "merge", "n": 13}}})
    check_against_base(study, {"model_type": "gpt2", "n_layer": 24, "n_positions": 1024}, "s.yaml")
    with pytest.raises(InputError, match=r"s\.yaml: variants\.m\.n"):
        check_against_base(study, {"model_type": "gpt2", "n_layer": 12, "n_positions": 1024}, "s.yaml")
    with pytest.raises(InputError, match="model family"):
        check_against_base(study, {"model_type": "llama", "n_layer": 24}, "s.yaml")


def test_the_given_study_is_not_changed():
    study = copy.deepcopy(SMALLEST)
    study["variants"]["merged_{n}"] = {"method": "merge", "n": [2, 4]}
    before = copy.deepcopy(study)
    validate_study(study, "test")
    expand_variants(study["variants"])
    assert study == before


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ({"method": "share", "n": 2, "train": "deltas"}, "no low-rank matrices"),
        ({"method": "share", "n": 1, "train": "deltas", "rank": 2}, "no low-rank matrices"),
        ({"method": "share", "n": 2, "rank": 500}, "rank is more"),
        ({"method": "merge", "n": 2, "fit": {"steps": 1, "sequence_length": 500}}, "positions"),
        ({"method": "merge", "n": 2, "write": "anchor", "fit": {"steps": 1}}, "writes it to one"),
        ({"method": "distill", "layers": [0], "weight_soft": 0, "weight_hidden": 0, "weight_lm": 0}, "weights"),
        ({"method": "merge", "n": 2, "align": "none", "groups": "similarity"}, "matches none"),
        ({"method": "compress", "n": 2, "align": "none", "reference": "medoid"}, "matches none"),
        ({"method": "prune", "keep": 5, "score": "wanda"}, "Wanda"),
    ],
)
def test_options_that_exclude_each_other_are_refused(load, line, what):
    with pytest.raises(InputError, match=what) as error:
        load({"variants": {"odd": line}})
    assert "variants.odd" in str(error.value) and "remedy" in str(error.value)
    assert "odd" in load({"variants": {"odd": {"method": "share", "n": 2, "train": "deltas", "rank": 1}}})["variants"]
