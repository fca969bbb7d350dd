import numpy as np
import pytest
from ffnfold.errors import InputError
from ffnfold.text import ENCODE_ROWS, encode_stream, leading_tokens, token_windows, training_order, training_texts
from hypothesis import given
from hypothesis import strategies as st


class Bytes:
    """A tokenizer whose tokens are the text's bytes."""

    def __call__(self, text, **options):
        return {"input_ids": list(text.encode())}


class Starting:
    """A generator that always draws the same row."""

    def __init__(self, row):
        self.row = row

    def integers(self, rows):
        assert 0 <= self.row < rows
        return self.row


def test_training_texts():
    assert training_texts("language_modeling", {"text": ["a", "b"]}, "?") == ["a", "b"]
    reviews = {"text": ["a", "b"], "label": [1, 0], "id": ["x", "y"]}
    assert training_texts("sentiment", reviews, "?") == ["a\nVerdict: good", "b\nVerdict: bad"]
    rows = {"article": ["A.", "B."], "highlights": ["a", "b"], "id": ["1", "2"]}
    assert training_texts("summarization", rows, "\nTL;DR:") == ["A.\nTL;DR: a", "B.\nTL;DR: b"]


def test_the_stream_goes_round_from_its_first_row():
    read = b"".join(bytes(piece.tolist()) for piece in encode_stream(Bytes(), ["a", "b", "c"], "--", 1))
    assert read == b"b--c--a--"


@given(st.integers(1, 2 * ENCODE_ROWS + 3), st.data())
def test_the_stream_holds_every_row_once(count, data):
    rows = [f"{i}" for i in range(count)]
    first = data.draw(st.integers(0, count - 1))
    pieces = list(encode_stream(Bytes(), rows, "\n", first))
    assert all(piece.dtype == np.int64 for piece in pieces)
    read = b"".join(bytes(piece.tolist()) for piece in pieces).decode()
    assert read == "\n".join([*rows[first:], *rows[:first]]) + "\n"


def test_windows_are_cut_without_gaps():
    windows = token_windows(Bytes(), ["abc", "defg", "hi"], "-", 4, 2, Starting(1))
    assert [bytes(row.tolist()) for row in windows] == [b"defg", b"-hi-"]
    every = token_windows(Bytes(), ["abc", "defg", "hi"], "-", 4, 100, Starting(0))
    assert [bytes(row.tolist()) for row in every] == [b"abc-", b"defg", b"-hi-"]


def test_too_little_text_is_refused(generator):
    for rows in (["abc"], []):
        with pytest.raises(InputError, match="shorter than one sequence") as error:
            token_windows(Bytes(), rows, "\n", 8, 1, generator)
        assert "at least 8" in str(error.value) and "sequence_length" in str(error.value)


@given(st.integers(1, 40), st.integers(1, 200), st.integers(0, 99))
def test_the_order_makes_whole_passes(windows, needed, seed):
    order = training_order(windows, needed, np.random.default_rng(seed))
    assert len(order) == needed
    counts = np.bincount(order, minlength=windows)
    assert len(counts) == windows and counts.max() - counts.min() <= 1
    for start in range(0, needed - windows + 1, windows):
        assert sorted(order[start : start + windows]) == list(range(windows))


def test_leading_tokens():
    assert bytes(leading_tokens(Bytes(), "abcdefgh", 3, 2).tolist()) == b"abcdef"
    assert bytes(leading_tokens(Bytes(), "abcd", 3, 2).tolist()) == b"abcd"
    with pytest.raises(InputError, match=r"metrics\.latency\.prompt_tokens"):
        leading_tokens(Bytes(), "ab", 3, 2)


def test_a_trained_tokenizer_keeps_the_text(tokenizer, tokenizer_directory, texts):
    assert len(tokenizer) == 300 and tokenizer.eos_token == "<|endoftext|>"
    for text in (*texts[:4], "unseen: Žluťoučký 🐎\n\ttabs", ""):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert len(tokenizer(texts[0])["input_ids"]) < len(texts[0])


def test_a_tokenizer_needs_text(tmp_path):
    from ffnfold.tokenization import train_tokenizer

    with pytest.raises(InputError, match="no text to train a tokenizer on"):
        train_tokenizer(["", ""], 300, 64, tmp_path)


def test_the_same_text_gives_the_same_tokenizer(tmp_path, texts, tokenizer_directory):
    from ffnfold.tokenization import train_tokenizer

    train_tokenizer(iter(texts), 300, 64, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tokenizer_directory / name).read_bytes()
