from functools import partial
from pathlib import Path

import pytest
import yaml
from ffnfold.errors import InputError
from ffnfold.study import load_audited, load_study
from study_factory import SMALLEST, load_changed, refused

STUDIES = Path(__file__).resolve().parents[2] / "config/studies"


@pytest.fixture
def load(tmp_path):
    """`load_changed` in a folder of its own."""
    return partial(load_changed, tmp_path)


def test_a_key_given_twice_is_refused_at_every_level(load):
    text = yaml.safe_dump(SMALLEST)
    message = refused(load, "given twice", "'seed'", "line", text=text + "seed: 1\nseed: 2\n")
    assert f"line {len(text.splitlines()) + 2}" in message
    refused(load, "given twice", "'tokens'", text=text + "alignment: {tokens: 100, tokens: 200}\n")


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\t- x", "", "just words", "- a\n- b", "{n}: 1"])
def test_a_file_that_is_no_mapping_is_refused(load, text):
    refused(load, "mine.yaml", text=text)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("description: café".encode("latin-1"))
    with pytest.raises(InputError, match="not valid YAML"):
        load_study({"study": "mine"}, tmp_path)


def test_an_unknown_study_lists_the_known_ones(load, tmp_path):
    load()
    for name in ("minee", "elsewhere/minee.yaml", "../mine"):
        refused(lambda name=name: load_study({"study": name}, tmp_path), "no such study", f"'{name}'", "mine")


@pytest.mark.parametrize("name", [None, "", 3, ["mini"]])
def test_a_study_name_that_is_not_text_is_refused(tmp_path, name):
    refused(lambda: load_study({"study": name}, tmp_path), "config: study", repr(name))


def test_a_study_file_name_that_is_no_folder_name_is_refused(tmp_path):
    (tmp_path / "my study.yaml").write_text("a: 1")
    refused(lambda: load_study({"study": str(tmp_path / "my study.yaml")}, tmp_path), "file name", "'my study'")


def test_settings_outside_overrides_are_refused(load):
    refused(load, "unknown key", "--config", "'seed'", "overrides: {seed: 1}", seed=3)
    refused(load, "config: overrides", "'seed=1'", overrides="seed=1")
    assert load(overrides=None)["seed"] == 20260101


def test_the_message_survives_a_process_boundary():
    import pickle

    error = InputError("what", where="here", got=3, expected="4", remedy="add 1")
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error) == "what\n  where:    here\n  got:      3\n  expected: 4\n  remedy:   add 1"


def test_a_line_that_is_null_takes_one_out_of_the_study_below(tmp_path):
    """Also where the as-published study above takes the same line out, and with questions on what it has not."""
    questions = {"sharing_or_no_ffn": None, "mine": {"question": "?", "variant": "shared_2", "against": "merged_2"}}
    overrides = {"variants": {"bypassed_4": None}, "questions": questions}
    settings = {"study": "mini", "overrides": overrides}
    study = load_study(settings, STUDIES)
    assert "bypassed_4" not in study["variants"] and "shared_4" in study["variants"]
    assert "mine" in study["questions"] and "sharing_or_no_ffn" not in study["questions"]
    published = load_audited(study, STUDIES / "mini.yaml", STUDIES, overrides)
    assert "shared_4" not in published["variants"] and published["questions"] == {}
    with pytest.raises(InputError, match="not a mapping"):  # a null that meets nothing is a slip of the pen
        load_study({"study": "mini", "overrides": {"variants": {"bypased_4": None}}}, STUDIES)
