"""Document-level perplexity is lm-evaluation-harness's own: the same text, counts, windows and figures."""

import json
import shutil
import socket
import sys

import numpy as np
import pytest
from ffnfold import agreement
from ffnfold.architecture import FAMILIES, ffn_names
from ffnfold.checkpoints import load_config, load_model, load_state, load_tokenizer, save_checkpoint, save_model
from ffnfold.datasets import prepare_task
from ffnfold.metrics import documents
from ffnfold.sharing import share_ffns
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

LINES = [
    " ",
    " = Brenvik = ",
    " ",
    ' The river town of Brenvik has an " old " stone bridge ; its mayor , a baker , sells 1 @,@ 200 loaves a day . '
    * 3,
    " ",
    " = = Winter = = ",
    " ",
    " In winter the baker 's bread ( and the boys ' fruit ) is sold on the well @-@ known bridge : 3 @.@ 5 ° N . ",
    " ",
    " = Élan = ",
    " ",
    " Naïve – “ 東京 ” 🌉 déjà vu ! ",
    " ",
    " = Short = ",
    " x ",
]


@pytest.fixture(scope="module")
def checkpoint(make_gpt2, tokenizer_directory, tmp_path_factory):
    """A tiny random checkpoint with 64 positions."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(folder, make_gpt2(), tokenizer_directory)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The lines as a prepared language-modelling task."""
    folder = tmp_path_factory.mktemp("data")
    source = {split: str(folder / f"{split}.txt") for split in ("train", "validation", "test")}
    for path in source.values():
        with open(path, "w", encoding="utf-8", newline="\n") as stream:
            stream.write("".join(f"{line}\n" for line in LINES))
    prepare_task("language_modeling", {"source": source, "join": "\n\n"}, folder / "language_modeling", 1)
    return folder / "language_modeling"


@pytest.fixture
def no_network(monkeypatch):
    """Any connection is an error."""

    def refuse(*arguments):
        raise AssertionError(f"a connection was tried: {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


# Whole marks and single characters, so that many of the table's patterns come up.
PIECES = [
    "s '",
    " 's",
    " @-@ ",
    " @,@ ",
    " @.@ ",
    "/' 4/",
    "= = = =",
    "= =",
    " ° ",
    " N ",
    " \n",
    "\n ",
    " . ",
    '" ',
    "é",
]
STRINGS = st.lists(st.sampled_from(PIECES) | st.sampled_from(list(" \n\t'\"()[]{}=@-,.:;!?/sN°47a"))).map("".join)


@given(STRINGS)
def test_the_detokeniser_is_the_harnesss(text):
    assert documents.detokenise(text) == wikitext_detokenizer({"page": text})


@given(STRINGS)
def test_words_and_bytes_are_the_harnesss(text):
    counted = process_results({"page": text}, (0.0,))
    assert documents.count_words(text) == counted["word_perplexity"][1]
    assert len(text.encode()) == counted["byte_perplexity"][1]


@given(st.integers(0, 100), st.integers(1, 20))
def test_the_windows_are_the_harnesss(tokens, window):
    ids = list(range(1, tokens + 1))  # 0 is the end-of-text
    theirs = [make_disjoint_window(pair) for pair in get_rolling_token_windows(ids, 0, window, 1)]
    found = []
    for start, end, scored in documents.plan_rolling(tokens, window):
        read = list(range(start, end))
        found.append((read[: len(read) - scored], read[len(read) - scored :]))
    assert found == theirs


def test_the_text_has_what_could_go_wrong(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    texts = documents.documents(LINES, "\n")
    lengths = [len(tokenizer(documents.detokenise(text))["input_ids"]) for text in texts]
    assert len(texts) == 3 and max(lengths) > 2 * 64 and max(lengths) % 64 and min(lengths) < 64
    assert any(len(text.encode()) > len(text) for text in texts)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_figures_are_the_harnesss(checkpoint, no_network, batch_size):
    ours = agreement.own_figures(checkpoint, LINES, "\n\n", "cpu", batch_size)
    theirs = agreement.harness_figures(checkpoint, documents.documents(LINES, "\n\n"), "cpu", batch_size)
    rows = agreement.agree(ours, theirs)
    assert [row["figure"] for row in rows] == ["word_perplexity", "byte_perplexity", "bits_per_byte"]
    assert all(row["agrees"] and abs(row["difference"]) < 1e-5 for row in rows), rows


def test_the_figures_are_those_that_a_study_would_report(checkpoint):
    settings = {"window": 64, "batch_size": 4}
    statistics = {"confidence": 0.95, "resamples": 100}
    values, _ = documents.measure(
        load_model(checkpoint),
        load_tokenizer(checkpoint),
        LINES,
        "\n",
        settings,
        statistics,
        np.random.default_rng(1),
        "cpu",
    )
    ours = agreement.own_figures(checkpoint, LINES, "\n", "cpu")
    assert {name: value.value for name, value in values.items()} == pytest.approx(ours, rel=1e-6)


def test_a_difference_above_the_tolerance_is_told():
    rows = agreement.agree({"a": 10.02, "b": 10.0}, {"a": 10.0, "b": 10.005})
    assert [(row["agrees"], row["difference"]) for row in rows] == [
        (False, pytest.approx(0.002)),
        (True, pytest.approx(-0.0005, rel=1e-3)),
    ]
    head, first, second = agreement.table(rows)
    assert head.split() == ["figure", "ffnfold", "lm-eval", "difference", "within", "0.1%"]
    assert first.split() == ["a", "10.02", "10", "+0.2%", "NO"] and second.split()[-1] == "yes"


def test_the_command_prints_a_table_for_each_checkpoint(checkpoint, data, no_network, capsys):
    assert agreement.main([str(checkpoint), str(checkpoint), "--data", str(data), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "split test: 3 documents" in printed and printed.count("word_perplexity") == 2
    assert printed.count("  yes\n") == 6 and "all figures agree within 0.1%" in printed


def test_the_command_fails_where_figures_differ(checkpoint, data, monkeypatch, capsys):
    monkeypatch.setattr(agreement, "harness_figures", lambda *_: {"bits_per_byte": 1.0})
    assert agreement.main([str(checkpoint), "--data", str(data), "--device", "cpu"]) == 1
    assert "1 figure differs by more than 0.1%" in capsys.readouterr().out


def test_a_checkpoint_with_tied_ffns_is_judged_by_its_expanded_export(checkpoint, data, tmp_path, capsys, no_network):
    state, config = load_state(checkpoint), load_config(checkpoint)
    ffn = {part: state[name] for part, name in ffn_names(FAMILIES["gpt2"], 1).items()}
    save_checkpoint(tmp_path / "tied", *share_ffns(state, config, [[0, 1, 2, 3]], [ffn]), checkpoint)
    assert agreement.main([str(tmp_path / "tied"), "--data", str(data), "--device", "cpu"]) == 0
    assert "all figures agree within 0.1%" in capsys.readouterr().out


def test_a_checkpoint_of_an_unknown_class_is_refused_before_any_is_measured(checkpoint, data, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    assert agreement.main([str(checkpoint), str(other), "--data", str(data)]) == 2
    printed = capsys.readouterr()
    assert "bert" in printed.err and not printed.out


def test_without_the_harness_the_message_says_how_to_get_it(checkpoint, data, monkeypatch, capsys):
    monkeypatch.setattr(agreement.importlib.util, "find_spec", lambda name: None)
    assert agreement.main([str(checkpoint), "--data", str(data)]) == 2
    message = capsys.readouterr().err
    assert "lm-evaluation-harness is not installed" in message and sys.executable in message
    assert "'.[parity]'" in message and "Traceback" not in message
