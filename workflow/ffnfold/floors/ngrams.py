"""Floors of perplexity: token frequencies, and a trigram model by Kneser and Ney, over the study's own token ids.

The vocabulary is the tokenizer's, so every token has a positive probability, and the perplexity of a token is
comparable with that of the models. Both are fitted on the training split alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ffnfold.errors import InputError
from ffnfold.metrics import perplexity
from ffnfold.records import Value
from ffnfold.text import encode_stream

LARGEST_VOCABULARY = 2_097_151  # the cube of a larger one does not fit an int64 key
DISCOUNT = 0.5  # where the counts of counts give none


@dataclass(frozen=True)
class Unigram:
    """Frequencies of single tokens.

    Attributes:
        probabilities: float64 (vocabulary,).
    """

    probabilities: np.ndarray

    def nats(self, ids: np.ndarray, context: int = 2) -> np.ndarray:
        """-log p of each token (nats), float64 (tokens,); no context changes it."""
        return -np.log(self.probabilities[ids])


@dataclass(frozen=True)
class Order:
    """One order of an interpolated model: p(w | h) = share(h w) + weight(h) p(w | shorter h).

    Attributes:
        ngrams: int64 (n-grams,), sorted keys: context x vocabulary size + word.
        shares: float64 (n-grams,), discounted count / count of the context; 0 for all others.
        contexts: int64 (contexts,), sorted keys.
        weights: float64 (contexts,), the mass that the discount frees; 1 for all others.
    """

    ngrams: np.ndarray
    shares: np.ndarray
    contexts: np.ndarray
    weights: np.ndarray

    def interpolate(self, contexts: np.ndarray, ngrams: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Probabilities, float64 (n-grams,), from those of the next lower order."""
        shares = _look_up(self.ngrams, self.shares, ngrams, 0.0)
        return shares + _look_up(self.contexts, self.weights, contexts, 1.0) * lower


@dataclass(frozen=True)
class Trigram:
    """A trigram model.

    Attributes:
        vocabulary_size: tokens.
        unigrams: float64 (vocabulary,), probabilities without context.
        bigrams, trigrams: the orders above.
    """

    vocabulary_size: int
    unigrams: np.ndarray
    bigrams: Order
    trigrams: Order

    def nats(self, ids: np.ndarray, context: int = 2) -> np.ndarray:
        """-log p of each token given the tokens before it in the array.

        Args:
            ids: int64 (tokens,).
            context: tokens before it that count, 0 to 2; the first tokens have fewer.

        Returns:
            float64 (tokens,), nats.
        """
        size = self.vocabulary_size
        p = self.unigrams[ids]
        if context >= 1:
            p[1:] = self.bigrams.interpolate(ids[:-1], ids[:-1] * size + ids[1:], p[1:])
        if context >= 2:
            pairs = ids[:-2] * size + ids[1:-1]
            p[2:] = self.trigrams.interpolate(pairs, pairs * size + ids[2:], p[2:])
        return -np.log(p)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, otherwise: float) -> np.ndarray:
    """The values of the wanted keys, `otherwise` for those that are not among the sorted, non-empty keys."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], otherwise)


def discount(counts: np.ndarray) -> float:
    """The absolute discount n1 / (n1 + 2 n2), where n_k n-grams have the count k.

    Without n-grams of count one it would be 0, and leave nothing to unseen words; without any of count two it would be
    1, and throw away all that was seen once. Such small texts get 0.5.

    Source: Ney, Essen and Kneser 1994; Chen and Goodman 1999, section 2.6.
    """
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else DISCOUNT


def fit_unigram(ids: np.ndarray, vocabulary_size: int) -> Unigram:
    """Relative frequencies with one added to every count, so that no token is impossible.

    Args:
        ids: int64 (tokens,), at least 3.
        vocabulary_size: tokens.

    Raises:
        ValueError: as `fit_trigram`.

    Source: Chen and Goodman 1999, section 2.1 (additive smoothing).
    """
    _check(ids, vocabulary_size)
    counts = np.bincount(ids, minlength=vocabulary_size)
    return Unigram((counts + 1) / (len(ids) + vocabulary_size))


def fit_trigram(ids: np.ndarray, vocabulary_size: int) -> Trigram:
    """Interpolated Kneser-Ney with one discount for each order.

    Trigrams have their counts; a bigram's count is how many tokens stand before it, a token's how many stand before
    it (continuation counts). The lowest order is interpolated with the uniform distribution.

    Args:
        ids: int64 (tokens,), at least 3.
        vocabulary_size: tokens.

    Raises:
        ValueError: fewer than 3 tokens, an id outside the vocabulary, or a vocabulary above 2,097,151.

    Source: Kneser and Ney 1995; Chen and Goodman 1999, section 2.7, in the interpolated form.
    """
    _check(ids, vocabulary_size)
    size = vocabulary_size
    pairs = ids[:-1] * size + ids[1:]
    trigrams, counts = np.unique(pairs[:-1] * size + ids[2:], return_counts=True)
    bigrams, before_bigram = np.unique(trigrams % (size * size), return_counts=True)
    before_token = np.bincount(np.unique(pairs) % size, minlength=size)
    # A token is a bigram without context: the one context is everything, and what is freed goes to 1 / V each.
    cut, total = discount(before_token), before_token.sum()
    uniform = cut * (before_token > 0).sum() / total / size
    unigrams = np.maximum(before_token - cut, 0) / total + uniform
    return Trigram(size, unigrams, _order(bigrams, before_bigram, size), _order(trigrams, counts, size))


def _check(ids: np.ndarray, vocabulary_size: int) -> None:
    if not 1 <= vocabulary_size <= LARGEST_VOCABULARY:
        raise ValueError(f"vocabulary of {vocabulary_size} tokens, expected 1 to {LARGEST_VOCABULARY}")
    if len(ids) < 3:
        raise ValueError(f"a trigram needs 3 tokens, got {len(ids)}")
    if ids.min() < 0 or ids.max() >= vocabulary_size:
        raise ValueError(f"ids {ids.min()} to {ids.max()}, expected 0 to {vocabulary_size - 1}")


def _order(ngrams: np.ndarray, counts: np.ndarray, vocabulary_size: int) -> Order:
    """One order from its sorted n-grams and their counts."""
    cut = discount(counts)
    contexts, starts, types = np.unique(ngrams // vocabulary_size, return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, starts)
    return Order(ngrams, (counts - cut) / np.repeat(totals, types), contexts, cut * types / totals)


FITS: dict[str, Callable[[np.ndarray, int], Unigram | Trigram]] = {"unigram": fit_unigram, "trigram": fit_trigram}


def training_ids(tokenizer: Any, rows: list[str], join: str, settings: Mapping[str, Any]) -> np.ndarray:
    """Token ids to fit on: the training text, cut and padded by rows where the scored text is.

    A model that is scored on pads was trained to emit them, so its floor is, too.

    Returns:
        int64 (tokens,).

    Raises:
        InputError: there are not three tokens.
    """
    if not any(row.strip() for row in rows):
        ids = np.empty(0, dtype=np.int64)
    elif settings["truncate_tokens"] or settings["score_padding"]:
        ids = perplexity.plan(tokenizer, rows, join, {**settings, "max_items": None}).ids
    else:
        ids = np.concatenate(list(encode_stream(tokenizer, rows, join)))
    if len(ids) < 3:
        raise InputError(
            "the training text is too short for n-grams",
            where="data.language_modeling, the training split",
            got=f"{len(ids)} tokens",
            expected="at least 3",
            remedy="give training rows with text",
        )
    return ids


def score(model: Unigram | Trigram, planned: perplexity.Plan) -> np.ndarray:
    """Nats of the scored tokens of each window, with context from inside the window alone, as the models have it.

    Returns:
        float64 (windows,), nats.
    """
    nats, first = model.nats(planned.ids), model.nats(planned.ids, context=1)
    sums = np.empty(len(planned.windows))
    for index, (start, end, scored) in enumerate(planned.windows):
        sums[index] = nats[end - scored : end].sum()
        if end - scored == start + 1:  # the window's second token has one token before it, whatever the text has
            sums[index] += first[start + 1] - nats[start + 1]
    return sums


def measure(
    name: str,
    tokenizer: Any,
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    join: str,
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """Perplexity of `unigram` or `trigram` over the windows that the models are scored on.

    Args:
        train, test: column text; `test` is the split that the settings name.
        join: what stands between two rows.
        settings: as of `metrics.perplexity.plan`.

    Returns:
        The figures, and one row for each window: start_token, scored_tokens, nats.

    Raises:
        InputError: the training text has not three tokens, or the scored text not two.
    """
    planned = perplexity.plan(tokenizer, list(test["text"]), join, settings)
    model = FITS[name](training_ids(tokenizer, list(train["text"]), join, settings), len(tokenizer))
    nats, scored = score(model, planned), np.asarray([w[2] for w in planned.windows])
    items = pd.DataFrame({"start_token": [w[0] for w in planned.windows], "scored_tokens": scored, "nats": nats})
    return perplexity.figures(nats, scored, planned.size, statistics, generator), items
