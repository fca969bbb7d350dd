import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ffnfold import gates
from ffnfold.errors import InputError
from ffnfold.metrics import documents, perplexity
from ffnfold.records import Value
from ffnfold.relations import check_against_base
from ffnfold.study import load_study
from study_factory import load_changed, nested, refused

STUDIES = Path(__file__).resolve().parents[2] / "config" / "studies"
STATISTICS = {"confidence": 0.95, "resamples": 100}
WINDOWS = {"protocol": "windows", "window": 1024, "stride": 1024, "tolerance": 0.01, "source": "a paper"}
GATE = {"name": "non_overlapping", **WINDOWS, "expected": 29.94}
KNOWN = {"protocol": "windows", "window": 32, "expected": 30.0, "source": "a paper"}


def found(value):
    return Value(value, "perplexity", value - 1, value + 1, 280, "bootstrap")


@pytest.fixture
def load(tmp_path):
    """`load_changed` in a folder of its own."""
    return partial(load_changed, tmp_path)


# --------------------------------------------------------------------------------------------------- judging


def test_a_result_holds_both_figures():
    assert gates.judge(GATE, found(31.20)) == {
        "name": "non_overlapping",
        "figure": "token_perplexity",
        "expected": 29.94,
        "tolerance": 0.01,
        "found": 31.20,
        "ci": [30.20, 32.20],
        "n": 280,
        "deviation": pytest.approx(0.0420842, rel=1e-5),
        "passed": False,
        "source": "a paper",
    }


@pytest.mark.parametrize(
    ("value", "passed"),
    [(30.0, True), (30.3, True), (29.7, True), (30.31, False), (29.69, False), (float("inf"), False)],
)
def test_the_tolerance_is_a_share_on_both_sides(value, passed):
    assert gates.judge({**GATE, "expected": 30.0}, found(value))["passed"] is passed


def test_the_lines_name_the_gate_and_both_figures():
    results = [
        gates.judge(GATE, found(31.20)),
        gates.judge(GATE, found(29.95)),
        gates.judge({**GATE, "name": "document_level", "protocol": "documents", "tolerance": 0.005}, found(1234567.0)),
    ]
    assert gates.describe(results) == [
        "gate non_overlapping failed: token perplexity 31.20, expected 29.94 within 1% (4.2% off)",
        "gate non_overlapping passed: token perplexity 29.95, expected 29.94 within 1% (0.0% off)",
        "gate document_level failed: word perplexity 1.23e+06, expected 29.94 within 0.5% (4,123,370.3% off)",
    ]


def test_rounding_does_not_hide_a_failure():
    (line,) = gates.describe([gates.judge({**GATE, "expected": 30.0}, found(30.301))])
    assert line == "gate non_overlapping failed: token perplexity 30.30, expected 30.00 within 1% (1.003% off)"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_console_is_coloured_on_a_terminal_alone():
    results = [gates.judge(GATE, found(31.20)), gates.judge(GATE, found(29.94))]
    plain = gates.describe(results)
    assert gates.console(results, io.StringIO()) == "\n".join(plain)
    assert gates.console(results, Terminal()) == f"\x1b[31m{plain[0]}\x1b[0m\n\x1b[32m{plain[1]}\x1b[0m"
    assert gates.console([], Terminal()) == ""


def test_enforcement_names_every_failed_gate_and_a_remedy():
    results = [gates.judge({**GATE, "name": name}, found(v)) for name, v in (("a", 31.2), ("b", 29.9), ("c", 20.0))]
    with pytest.raises(InputError) as error:
        gates.require(results)
    message = str(error.value)
    for part in ("2 of 3 known values", "gates.known.a, gates.known.c", "31.20", "20.00", "29.94 (a paper)", "remedy:"):
        assert part in message
    assert "gates.known.b" not in message and "gates.enforce: false" in message


def test_enforcement_lets_passed_gates_and_none_at_all_through():
    gates.require([])
    gates.require([gates.judge(GATE, found(29.94))])


# --------------------------------------------------------------------------------------------------- measuring

ROWS = [
    " = Brenvik = ",
    " The mayor of the river town is a quiet baker , and sells bread . " * 5,
    " = Élan = ",
    " In winter . ",
]


@pytest.mark.parametrize(("stride", "used"), [(None, 32), (32, 32), (8, 8)])
def test_windows_give_the_token_perplexity(make_gpt2, tokenizer, stride, used):
    model = make_gpt2()
    settings = {"window": 32, "stride": used, "batch_size": 3, "truncate_tokens": None, "score_padding": False}
    settings |= {"max_items": None, "pad_to": "longest"}
    expected, _ = perplexity.measure(
        {"": model}, tokenizer, ROWS, "\n", settings, STATISTICS, np.random.default_rng(0), "cpu"
    )
    gate = {**WINDOWS, "name": "x", "window": 32, "stride": stride, "expected": expected["token_perplexity"].value}
    result = gates.measure_gate(model, tokenizer, ROWS, "\n", gate, 3, STATISTICS, np.random.default_rng(0), "cpu")
    figure = expected["token_perplexity"]
    assert result["passed"] and result["figure"] == "token_perplexity" and result["deviation"] == 0
    assert (result["found"], result["ci"], result["n"]) == (figure.value, [figure.ci_low, figure.ci_high], figure.n)


def test_documents_give_the_word_perplexity(make_gpt2, tokenizer):
    model = make_gpt2()
    settings = {"window": 64, "batch_size": 3}
    expected, _ = documents.measure(model, tokenizer, ROWS, "\n", settings, STATISTICS, np.random.default_rng(0), "cpu")
    gate = {**WINDOWS, "name": "x", "protocol": "documents", "window": 64, "stride": None, "expected": 1.0}
    result = gates.measure_gate(model, tokenizer, ROWS, "\n", gate, 3, STATISTICS, np.random.default_rng(0), "cpu")
    assert not result["passed"] and result["figure"] == "word_perplexity" and result["n"] == 2
    assert result["found"] == expected["word_perplexity"].value


# --------------------------------------------------------------------------------------------------- in a study


def test_a_study_has_no_gates_and_enforces_none_unless_it_says_so(load):
    assert load()["gates"] == {"enforce": False, "known": {}}
    assert gates.known_values(load()) == []


def test_defaults_of_a_gate_are_filled_in(load):
    study = load({"gates": {"enforce": True, "known": {"b": KNOWN, "a": {**KNOWN, "stride": 16, "tolerance": 0.02}}}})
    assert study["gates"]["enforce"] is True
    assert gates.known_values(study) == [
        {"name": "a", **KNOWN, "stride": 16, "tolerance": 0.02},
        {"name": "b", **KNOWN, "stride": None, "tolerance": 0.01},
    ]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"stride": 33}, ("gates.known.x.stride", "33", "at most the window, 32")),
        ({"stride": 16, "protocol": "documents"}, ("gates.known.x.stride", "do not overlap")),
        ({"protocol": "lines"}, ("gates.known.x.protocol", "'lines'")),
        ({"tolerance": 0}, ("gates.known.x.tolerance", "more than 0")),
        ({"expected": 0.5}, ("gates.known.x.expected", "at least 1")),
        ({"window": 1}, ("gates.known.x.window", "at least 2")),
        ({"colour": "red"}, ("gates.known.x", "unknown key", "'colour'")),
        ({"window": 129}, ("gates.known.x.window", "129 tokens", "at most 128")),
    ],
)
def test_a_wrong_gate_is_refused(load, change, parts):
    refused(load, *parts, changes={"gates": {"known": {"x": {**KNOWN, **change}}}})


@pytest.mark.parametrize("key", ["protocol", "window", "expected", "source"])
def test_a_gate_says_what_is_known_how_and_by_whom(load, key):
    gate = {name: value for name, value in KNOWN.items() if name != key}
    refused(load, "missing key", "gates.known.x", repr(key), changes={"gates": {"known": {"x": gate}}})


def test_an_unknown_key_and_a_strange_name_are_refused(load):
    refused(load, "unknown key", "gates", "'colour'", changes=nested("gates.colour", "red"))
    refused(load, "gates.known", "'a/b'", changes={"gates": {"known": {"a/b": KNOWN}}})


def test_the_full_size_study_knows_three_values_of_its_base():
    study = load_study({"study": "gpt2"}, STUDIES)
    known = {gate["name"]: gate for gate in gates.known_values(study)}
    assert {
        name: (g["protocol"], g["window"], g["stride"], g["expected"], g["tolerance"]) for name, g in known.items()
    } == {
        "non_overlapping": ("windows", 1024, 1024, 29.94, 0.01),
        "strided": ("windows", 1024, 512, 25.17, 0.01),
        "document_level": ("documents", 1024, None, 37.37, 0.01),
    }
    assert all(gate["source"] for gate in known.values())
    check_against_base(study, {"model_type": "gpt2", "n_layer": 12, "n_positions": 1024}, "gpt2")
    with pytest.raises(InputError, match=r"gates\.known\."):
        check_against_base(
            {**study, "metrics": load_study({"study": "mini"}, STUDIES)["metrics"]},
            {"model_type": "gpt2", "n_layer": 12, "n_positions": 512},
            "gpt2",
        )
    assert load_study({"study": "published"}, STUDIES)["gates"] == study["gates"]
