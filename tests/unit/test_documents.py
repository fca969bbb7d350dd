import math

import numpy as np
import pytest
import torch
from ffnfold.errors import InputError
from ffnfold.metrics import documents
from hypothesis import given
from hypothesis import strategies as st

STATISTICS = {"confidence": 0.95, "resamples": 200}

# --------------------------------------------------------------------------------------------------- documents

TEXT = " \n = Du Fu = \n \n He wrote . \n \n = = Life = = \n \n More . \n \n = Rome = \n \n A city . \n \n"
PAGES = [
    " = Du Fu = \n \n He wrote . \n \n = = Life = = \n \n More . \n ",
    " = Rome = \n \n A city . \n \n",
]


def test_a_document_begins_at_a_first_level_heading():
    lines = TEXT.split("\n")[:-1]
    assert documents.documents(lines, "\n") == PAGES
    assert "".join(f"{page}\n" for page in PAGES) == TEXT.removeprefix(" \n") + "\n"


def test_blank_lines_that_a_study_puts_between_rows_are_no_part_of_the_text():
    assert documents.documents([f"{line}\n" for line in TEXT.split("\n")[:-1]], "\n\n") == PAGES


def test_the_hubs_empty_rows_get_back_the_space_of_the_published_files():
    rows = [f"{line}\n" if line.strip() else "" for line in TEXT.split("\n")[:-1]]
    assert rows[:4] == ["", " = Du Fu = \n", "", " He wrote . \n"]
    assert documents.documents(rows, "\n\n") == PAGES


def test_blank_lines_of_other_texts_stay_empty():
    assert documents.documents(["= A =\n", "", "words\n", "= B =\n"], "\n\n") == ["= A =\n\nwords", "= B =\n"]


def test_text_before_the_first_heading_is_a_document_if_it_holds_words():
    assert documents.documents(["an opening", "= A =", "x"], "\n") == ["an opening", "= A =\nx\n"]
    assert documents.documents(["", "  ", "= A =", "x"], "\n") == ["= A =\nx\n"]


def test_rows_that_are_no_lines_are_joined_as_the_study_says():
    assert documents.documents(["one passage", "another"], "\n\n") == ["one passage\n\nanother"]
    passages = [" = A = \n one . ", " = B = \n two . "]
    assert documents.documents(passages, "\n\n") == [" = A = \n one . \n", " = B = \n two . "]
    assert documents.documents(["", " "], "\n\n") == []
    assert documents.documents([], "\n") == []


@pytest.mark.parametrize("line", [" = Title = ", "= Title =", "= 1 rad / s and k = 2 =", "= a = = b ="])
def test_what_is_a_title(line):
    assert documents.documents(["before", line], "\n") == ["before", f"{line}\n"]


@pytest.mark.parametrize("line", [" = = Section = = ", " = = = Deep = = = ", "= x", "x =", "=", "= =", "=Title=", ""])
def test_what_is_no_title(line):
    assert documents.documents(["= A =", line], "\n") == [f"= A =\n{line}\n"]


# --------------------------------------------------------------------------------------------------- detokenising


@pytest.mark.parametrize(
    ("spaced", "written"),
    [
        ("a guest @-@ starring role", "a guest-starring role"),
        ("1 @,@ 290 @.@ 5", "1,290.5"),
        ("Rome : a city ; old , large . Yes ! No ? ", "Rome: a city; old, large. Yes! No? "),
        ("the end .", "the end ."),  # a mark at the very end has no space after it
        (" . . ", ". . "),  # the second has lost the space before it
        ("( One Direction song )", "(One Direction song)"),
        ("( a ( b ) c )", "(a ( b) c )"),  # no nesting: the first closing mark ends it
        ("[ sic ] { x }", "[sic] {x}"),
        ('said " hello there " twice', 'said "hello there" twice'),
        ('an odd " mark', 'an odd " mark'),
        ("the ' old ' way", "the 'old' way"),
        ("Kirby 's Block", "Kirby's Block"),
        ("the boys ' club", "the boys' club"),
        ("it doesn 't go", "it doesn 't go"),  # WikiText-2's odd apostrophes that the harness leaves as they are
        (" = Title = \n", " = Title =\n"),
        (" = = Life = = \n", " == Life ==\n"),
        (" = = = Deep = = = \n", " === Deep ===\n"),
        (" = = = = Deeper = = = = \n", " ==== Deeper ====\n"),
        ("90 ° N of", "90°N of"),
        ("a N b", "a 1 b"),
        ("one \n \n two", "one\n\ntwo"),
        ("/' 7/", "/'[0-9]/"),  # the harness's slip
        ("naïve – “ x ” 東京", "naïve – “ x ” 東京"),
        ("", ""),
    ],
)
def test_detokenised_by_hand(spaced, written):
    assert documents.detokenise(spaced) == written


def test_words_are_counted_between_white_space_with_the_empty_ends():
    assert documents.count_words("two words") == 2
    assert documents.count_words(" = Du Fu = \n \n He wrote . \n ") == 9  # 7 words, and the two ends


# --------------------------------------------------------------------------------------------------- windows


def test_rolling_windows_by_hand():
    # The end-of-text is 0, the document's tokens 1 to 10. The last window scores 9 and 10 and reads 6 to 9.
    assert documents.plan_rolling(10, 4) == [(0, 5, 4), (4, 9, 4), (6, 11, 2)]
    assert documents.plan_rolling(5, 4) == [(0, 5, 4), (1, 6, 1)]
    assert documents.plan_rolling(4, 4) == [(0, 5, 4)]
    assert documents.plan_rolling(3, 4) == [(0, 4, 3)]
    assert documents.plan_rolling(0, 4) == []


@given(st.integers(1, 300), st.integers(1, 40))
def test_rolling_windows_score_every_token_once_and_are_full(tokens, window):
    windows = documents.plan_rolling(tokens, window)
    scored = [position for _, end, count in windows for position in range(end - count, end)]
    assert scored == list(range(1, tokens + 1)), "the end-of-text itself is not scored"
    for start, end, count in windows:
        assert end - start - 1 == min(window, tokens) and count <= end - start - 1


def test_each_document_has_its_own_end_of_text_and_no_window_crosses(tokenizer):
    texts = ["the bridge of the town", "bread", "the mayor , a quiet baker"]
    ids, windows, owners = documents.plan_documents(tokenizer, texts, 5)
    encoded = [tokenizer(text.replace(" , ", ", "))["input_ids"] for text in texts]
    assert ids.tolist() == [i for tokens in encoded for i in [tokenizer.eos_token_id, *tokens]]
    begins = np.flatnonzero(ids == tokenizer.eos_token_id).tolist()
    ends = [*begins[1:], len(ids)]
    for (start, end, _), owner in zip(windows, owners, strict=True):
        assert begins[owner] <= start < end <= ends[owner]
    assert sorted(set(owners.tolist())) == [0, 1, 2] and sum(w[2] for w in windows) == len(ids) - 3


# --------------------------------------------------------------------------------------------------- figures

ROWS = [
    " = Brenvik = ",
    " ",
    " The river town of Brenvik has a stone bridge , and its mayor is a quiet baker . " * 4,
    " = Élan ° = ",
    " In winter the baker sells bread ( 1 @,@ 200 loaves ) . ",
]


def expected_nats(model, tokenizer, page, window):
    """Transformers' own loss over one window at a time, with the context's labels taken out."""
    encoded = [tokenizer.eos_token_id, *tokenizer(documents.detokenise(page))["input_ids"]]
    total, scored_to = 0.0, 1
    while scored_to < len(encoded):
        end = min(scored_to + window, len(encoded))
        start = max(0, end - window - 1)
        inputs = torch.tensor([encoded[start:end]])
        labels = inputs.clone()
        labels[:, : scored_to - start] = -100
        with torch.no_grad():
            total += float(model(input_ids=inputs, labels=labels).loss) * (end - scored_to)
        scored_to = end
    return total


@pytest.mark.parametrize(("window", "batch_size"), [(8, 3), (31, 2), (63, 16)])
def test_nats_are_those_of_transformers_own_loss(make_gpt2, tokenizer, generator, window, batch_size):
    model = make_gpt2()
    settings = {"window": window, "batch_size": batch_size}
    values, items = documents.measure(model, tokenizer, ROWS, "\n", settings, STATISTICS, generator, "cpu")
    pages = documents.documents(ROWS, "\n")
    nats = [expected_nats(model, tokenizer, page, window) for page in pages]
    assert items["nats"].tolist() == pytest.approx(nats, rel=1e-5)
    assert items["words"].tolist() == [len(page.split()) + 2 for page in pages]
    assert items["bytes"].tolist() == [len(page.encode()) for page in pages] and "°" in pages[1]
    each_word, each_byte = sum(nats) / items["words"].sum(), sum(nats) / items["bytes"].sum()
    assert {name: (value.value, value.unit, value.n) for name, value in values.items()} == {
        "word_perplexity": (pytest.approx(math.exp(each_word), rel=1e-4), "perplexity", 2),
        "byte_perplexity": (pytest.approx(math.exp(each_byte), rel=1e-4), "perplexity", 2),
        "bits_per_byte": (pytest.approx(each_byte / math.log(2), rel=1e-5), "bits/byte", 2),
    }
    assert all(value.ci_low <= value.value <= value.ci_high for value in values.values())
    assert values["word_perplexity"].ci_method == "Student's t over 2 documents"


def test_a_window_may_be_all_of_the_models_positions(make_gpt2, tokenizer, generator):
    model = make_gpt2()
    settings = {"window": model.config.n_positions, "batch_size": 2}
    _, items = documents.measure(model, tokenizer, ROWS, "\n", settings, STATISTICS, generator, "cpu")
    tokens = [len(tokenizer(documents.detokenise(page))["input_ids"]) for page in documents.documents(ROWS, "\n")]
    assert items["scored_tokens"].tolist() == tokens and tokens[0] > 64
    assert np.isfinite(items["nats"]).all()


def test_a_model_that_knows_nothing_has_the_vocabulary_to_each_words_tokens(make_gpt2, tokenizer, generator):
    model = make_gpt2()
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
    settings = {"window": 16, "batch_size": 4}
    values, items = documents.measure(model, tokenizer, ROWS, "\n", settings, STATISTICS, generator, "cpu")
    tokens = items["scored_tokens"].sum()
    assert values["word_perplexity"].value == pytest.approx(300 ** (tokens / items["words"].sum()), rel=1e-4)
    assert values["bits_per_byte"].value == pytest.approx(math.log2(300) * tokens / items["bytes"].sum(), rel=1e-5)


def test_one_document_alone_is_resampled_by_its_windows(make_gpt2, tokenizer, generator):
    settings = {"window": 8, "batch_size": 4}
    values, items = documents.measure(make_gpt2(), tokenizer, ROWS[:3], "\n", settings, STATISTICS, generator, "cpu")
    figure = values["word_perplexity"]
    assert len(items) == 1 and "windows of the one document" in figure.ci_method
    assert figure.n == math.ceil(items["scored_tokens"][0] / 8)
    assert figure.value == pytest.approx(math.exp(items["nats"][0] / items["words"][0]))
    assert figure.ci_low < figure.value < figure.ci_high


def test_a_split_without_words_is_an_error(make_gpt2, tokenizer, generator):
    with pytest.raises(InputError, match="no words"):
        documents.measure(make_gpt2(), tokenizer, ["", " "], "\n", {"window": 8}, STATISTICS, generator, "cpu")


def test_a_loss_that_is_not_finite_is_an_error(make_gpt2, tokenizer, generator):
    model = make_gpt2()
    with torch.no_grad():
        model.transformer.wte.weight.fill_(math.nan)
    settings = {"window": 8, "batch_size": 4}
    with pytest.raises(FloatingPointError, match="not finite"):
        documents.measure(model, tokenizer, ROWS, "\n", settings, STATISTICS, generator, "cpu")
