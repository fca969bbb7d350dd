"""The embedded corpus: three tasks from a seeded grammar whose entropy is known.

Every text is written by a sequence of choices, and every text has exactly one such sequence, so its information
content is the sum of -log2 p over the choices (`bits`). That sum over a split, per byte, is the floor under the bits
per byte of any model. The names of towns and people, the trades and many common words run through all three tasks.

Nothing here reads or writes anything, and a text depends on the seed, the task, the split and its place in the split
alone: the same bytes on every machine and Python version, and a longer split begins with the shorter one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffnfold.microworld.articles import write_article
from ffnfold.microworld.passages import write_passage
from ffnfold.microworld.reviews import write_review
from ffnfold.microworld.source import Sampler, Teller, derivations, stream

__all__ = [
    "JOIN",
    "LABEL_NOISE_PERCENT",
    "Article",
    "Passage",
    "Review",
    "bounds_language_modeling",
    "bounds_sentiment",
    "derivations",
    "generate_language_modeling",
    "generate_sentiment",
    "generate_summarization",
    "write_article",
    "write_passage",
    "write_review",
]

JOIN = "\n\n"  # between the rows of a language-modelling split; occurs in no passage
LABEL_NOISE_PERCENT = 4


@dataclass(frozen=True)
class Passage:
    """One encyclopedic passage. `bits` is -log2 of its probability."""

    text: str
    bits: float


@dataclass(frozen=True)
class Review:
    """One review. `label` is 1 positive, 0 negative, as given; `flipped` says that it is the wrong one; `bits` is
    -log2 of the text's probability, the label noise not counted."""

    id: str
    text: str
    label: int
    flipped: bool
    bits: float


@dataclass(frozen=True)
class Article:
    """One article and its reference summary. The summary follows from the article, so `bits` is that of both."""

    id: str
    article: str
    highlights: str
    bits: float


def generate_language_modeling(seed: int, rows: Mapping[str, int]) -> dict[str, list[Passage]]:
    """Write the passages of each split.

    Args:
        seed: any integer.
        rows: number of passages of each split, by name.

    Returns:
        The passages of each split. Texts begin with a space and must be kept as they are.

    Raises:
        ValueError: if a number of rows is negative or not an integer.
    """
    return {
        split: [
            Passage(teller.text, teller.bits)
            for teller, _ in _write(write_passage, n, seed, "language_modeling", split)
        ]
        for split, n in rows.items()
    }


def generate_sentiment(seed: int, rows: Mapping[str, int]) -> dict[str, list[Review]]:
    """Write the reviews of each split; arguments and errors as for `generate_language_modeling`.

    Each label is turned round with probability `LABEL_NOISE_PERCENT` / 100, from a stream of its own.
    """
    out = {}
    for split, n in rows.items():
        noise = stream(seed, "sentiment", split, "noise")
        out[split] = []
        for i, (teller, label) in enumerate(_write(write_review, n, seed, "sentiment", split)):
            flipped = noise.below(100) < LABEL_NOISE_PERCENT
            out[split].append(Review(f"{split}-{i}", teller.text[1:], label ^ flipped, flipped, teller.bits))
    return out


def generate_summarization(seed: int, rows: Mapping[str, int]) -> dict[str, list[Article]]:
    """Write the articles and summaries of each split; arguments and errors as for `generate_language_modeling`."""
    return {
        split: [
            Article(f"{split}-{i}", teller.text[1:], summary, teller.bits)
            for i, (teller, summary) in enumerate(_write(write_article, n, seed, "summarization", split))
        ]
        for split, n in rows.items()
    }


def bounds_language_modeling(passages: Sequence[Passage]) -> dict[str, dict[str, float | str]]:
    """State what no model can beat on a split of passages.

    The code length of the source is divided by the UTF-8 bytes of the passages joined by `JOIN`. The joins are counted
    as bytes and carry no information: where a passage ends follows from its words, and the number of rows is taken as
    known. It is the realised code length of these very passages; its expectation is the entropy of the source, and a
    model that knows anything less than the source exceeds it but for chance of the order of 2 ** -k for k bits.

    Args:
        passages: the split.

    Returns:
        `entropy_bits_per_byte` as value, unit and meaning; empty for an empty split.
    """
    if not passages:
        return {}
    size_bytes = len(JOIN.join(passage.text for passage in passages).encode())
    return {
        "entropy_bits_per_byte": {
            "value": math.fsum(passage.bits for passage in passages) / size_bytes,
            "unit": "bits/byte",
            "meaning": "information content of the test split under the grammar that wrote it; no model needs less",
        }
    }


def bounds_sentiment() -> dict[str, dict[str, float | str]]:
    """State the accuracy in % that a perfect reader of the reviews is expected to reach.

    It is the expected ceiling, 100 minus the noise rate. The realised one of a split is 100 minus the share of reviews
    with `flipped`, and differs from it by chance: for 1,000 reviews by 0.6 points in one standard deviation.
    """
    return {
        "accuracy_ceiling": {
            "value": 100.0 - LABEL_NOISE_PERCENT,
            "unit": "%",
            "meaning": f"expected accuracy of a perfect reader; {LABEL_NOISE_PERCENT}% of labels are wrong by design",
        }
    }


def _write(
    grammar: Callable[[Teller], object], rows: int, seed: int, task: str, split: str
) -> Iterator[tuple[Sampler, Any]]:
    """Yield, for each text of a split, the teller that holds it and what the grammar returned."""
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise ValueError(f"rows of {task} {split!r} must be a whole number, 0 or more; got {rows!r}")
    rng = stream(seed, task, split)
    for _ in range(rows):
        teller = Sampler(rng)
        yield teller, grammar(teller)
