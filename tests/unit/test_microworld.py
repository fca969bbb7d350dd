"""The embedded corpus: the same bytes everywhere, one derivation a text, and the shapes that the study counts on."""

import hashlib
import itertools
import json
import math
import re
from collections import Counter

import pytest
from ffnfold import microworld
from ffnfold.microworld import source, words

ROWS = {"train": 60, "validation": 8, "test": 30}
TASKS = {
    "language_modeling": microworld.generate_language_modeling,
    "sentiment": microworld.generate_sentiment,
    "summarization": microworld.generate_summarization,
}
GOLDEN = {
    "language_modeling": "3bc6e79498b609cb1310e5f94cfd0b8f9f605158097d36296c02b75e626bfc8a",
    "sentiment": "84e11c0e86fb0d589316f110eb87a933f4d518526ec845fd9a6537859fcbc981",
    "summarization": "e8e771d41e3d584772a3b75373ad8233c34384e002d5cad841832681f59e8fd5",
}


def fields(row):
    """The row's texts and label, without the floats."""
    return [value for value in vars(row).values() if not isinstance(value, float)]


def digest(splits):
    canonical = json.dumps({split: [fields(row) for row in rows] for split, rows in splits.items()}, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize("task", TASKS)
def test_same_bytes_on_every_machine(task):
    assert digest(TASKS[task](7, ROWS)) == GOLDEN[task]


def test_splitmix64_reference_values():
    # First outputs for state 1234567, from the algorithm worked by hand in 64-bit arithmetic.
    rng = source.SplitMix64(1234567)
    assert [rng.next() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_below_is_in_range_and_even():
    rng = source.stream(0, "below")
    counts = Counter(rng.below(6) for _ in range(6000))
    assert sorted(counts) == list(range(6))
    assert all(abs(n - 1000) < 150 for n in counts.values())


def test_weights_are_the_probabilities():
    rng = source.stream(1, "weights")
    counts = Counter()
    for _ in range(4000):
        teller = source.Sampler(rng)
        chosen = teller.pick("abc", (1, 2, 5))
        counts[chosen] += 1
        assert teller.bits == pytest.approx(math.log2(8 / {"a": 1, "b": 2, "c": 5}[chosen]))
    assert abs(counts["c"] / 4000 - 5 / 8) < 0.04 and abs(counts["a"] / 4000 - 1 / 8) < 0.03


@pytest.mark.parametrize("task", TASKS)
def test_splits_and_sizes_are_independent(task):
    generate = TASKS[task]
    whole = generate(3, {"train": 20, "test": 5})
    assert generate(3, {"test": 5})["test"] == whole["test"]
    assert generate(3, {"train": 9})["train"] == whole["train"][:9]
    assert [row.bits for row in whole["train"][:5]] != [row.bits for row in whole["test"]]
    assert generate(4, {"train": 5})["train"] != whole["train"][:5]
    assert generate(3, {"validation": 0}) == {"validation": []}


@pytest.mark.parametrize("rows", [-1, 1.5, True, "3"])
def test_rows_must_be_a_whole_number(rows):
    with pytest.raises(ValueError, match="whole number"):
        microworld.generate_language_modeling(0, {"train": rows})


@pytest.mark.parametrize("seed", [0, 11])
def test_one_derivation_a_text(seed):
    """A search over every choice finds one derivation of each text, with the bits that were counted in writing it."""
    passages = microworld.generate_language_modeling(seed, {"a": 15})["a"]
    reviews = microworld.generate_sentiment(seed, {"a": 20})["a"]
    articles = microworld.generate_summarization(seed, {"a": 20})["a"]
    cases = [(microworld.write_passage, row.text, row.bits) for row in passages]
    cases += [(microworld.write_review, " " + row.text, row.bits) for row in reviews]
    cases += [(microworld.write_article, " " + row.article, row.bits) for row in articles]
    for grammar, text, bits in cases:
        assert microworld.derivations(grammar, text) == pytest.approx([bits])


def test_derivations_counts_an_ambiguous_grammar():
    def ambiguous(t):
        if t.pick((0, 1)):
            t.write("mill mill")
        else:
            t.write("mill")
            t.write("mill")

    assert microworld.derivations(ambiguous, " mill mill") == [1.0, 1.0]
    assert microworld.derivations(ambiguous, " mill") == []
    assert microworld.derivations(ambiguous, " mills mill") == []


def test_probabilities_add_up_to_one():
    """All texts of a small grammar, found through the generator, carry the whole probability between them."""

    def small(t):
        names = ["a", "b", "c"]
        for _ in range(t.pick((1, 2), (1, 3))):
            t.write(t.take(names))

    texts = [" a", " b", " c"] + [f" {x} {y}" for x, y in itertools.permutations("abc", 2)]
    bits = [microworld.derivations(small, text) for text in texts]
    assert all(len(found) == 1 for found in bits)
    assert sum(2 ** -found[0] for found in bits) == pytest.approx(1)


def test_options_never_run_into_each_other():
    """The options of a slot are distinct, and none is another one with more words after it."""
    for name, options in vars(words).items():
        if name.isupper():
            assert len(set(options)) == len(options), name
            assert not any(a != b and b.startswith(a + " ") for a in options for b in options), name


def test_shape_of_the_passages():
    rows = microworld.generate_language_modeling(0, {"train": 300})["train"]
    lengths = [len(row.text.split()) for row in rows]
    assert min(lengths) >= 50 and max(lengths) <= 115
    for row in rows:
        assert row.text.startswith(" = ") and row.text.endswith(" .")
        assert microworld.JOIN not in row.text and "  " not in row.text
        assert row.text.isascii()


def test_news_is_asked_for_again():
    """What the first two sentences under `Today` draw at random comes back in the rest of the passage."""
    again = 0
    for row in microworld.generate_language_modeling(5, {"train": 200})["train"]:
        today = row.text.split("= = Today = = \n ")[1].split(" . ")
        mayor = today[0].split()[1]
        assert {w for w in " ".join(today[2:]).split() if w[0].isupper()} <= {mayor}
        again += any(mayor in sentence for sentence in today[2:])
    assert again > 150


def test_facts_of_the_world_never_change():
    """The same subject is told of with the same facts, whatever the seed: they carry no information."""
    told = {}
    for seed in (0, 1):
        for row in microworld.generate_language_modeling(seed, {"train": 300})["train"]:
            heading, rest = row.text.split(" = \n ", 1)
            for sentence in rest.split(" \n = = Today")[0].split(" . "):
                kind = " ".join(w for w in sentence.split() if not w[0].isupper())[:12]
                told.setdefault((heading, kind), set()).add(sentence.removesuffix(" ."))
    assert len(told) > 100 and all(len(sentences) == 1 for sentences in told.values())


def test_shape_of_the_reviews():
    rows = microworld.generate_sentiment(0, {"train": 2000})["train"]
    lengths = [len(row.text.split()) for row in rows]
    assert min(lengths) >= 18 and max(lengths) <= 42
    assert abs(sum(row.label for row in rows) / len(rows) - 0.5) < 0.04
    assert abs(sum(row.flipped for row in rows) / len(rows) - 0.04) < 0.015
    assert microworld.bounds_sentiment()["accuracy_ceiling"]["value"] == 96.0


def label_by_hand(text):
    """Read a review with rules written down a second time, without the grammar."""

    def mind(clause):
        w = clause.split()
        sign = 1 if w[-1] in words.GOOD else -1
        return -sign if {"not", "never", "hardly"} & set(w) else sign

    score = 0
    for sentence in text.split(" ."):
        clauses = [c for c in re.split(r" and |,", sentence) if c.split() and c.split()[-1] in words.GOOD + words.BAD]
        if not clauses:
            continue
        if " and " in sentence:
            assert mind(clauses[0]) == mind(clauses[1])
            score += 4 * mind(clauses[0])
        elif len(clauses) == 2:
            assert mind(clauses[0]) == -mind(clauses[1])
            score += mind(clauses[1])
        else:
            score += 2 * mind(clauses[0])
    return int(score > 0)


def test_labels_follow_from_the_composition():
    for row in microworld.generate_sentiment(2, {"train": 400})["train"]:
        assert label_by_hand(row.text) == row.label ^ row.flipped, row.text


def test_shape_of_the_articles():
    rows = microworld.generate_summarization(0, {"train": 300})["train"]
    article_lengths = [len(row.article.split()) for row in rows]
    summary_lengths = [len(row.highlights.split()) for row in rows]
    assert min(article_lengths) >= 30 and max(article_lengths) <= 70
    assert min(summary_lengths) >= 12 and max(summary_lengths) <= 32
    late = 0
    for row in rows:
        names = {w for w in row.highlights.split() if w[0].isupper()}
        assert names <= set(row.article.split())
        late += any(name not in " . ".join(row.article.split(" . ")[:3]) for name in names)
    assert late > 0.3 * len(rows)


def test_floor_is_bits_over_joined_bytes():
    passages = [microworld.Passage(" a", 3.0), microworld.Passage(" bc", 5.0)]
    bound = microworld.bounds_language_modeling(passages)["entropy_bits_per_byte"]
    assert bound["value"] == pytest.approx(8 / 7)  # 2 + 3 bytes and the join of 2
    assert bound["unit"] == "bits/byte"
    assert microworld.bounds_language_modeling([]) == {}
