"""Floors of sentiment accuracy: the majority class, and a bag of words and pairs with logistic regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ffnfold.metrics.sentiment import encode_reviews, figures
from ffnfold.records import Value

# Inverse strength of the L2 penalty. Fixed, so that the floor has nothing to tune: 5-fold cross-validation on 10,000
# IMDb training reviews is best here (82.8%; 81.7% at 1, 82.6% at 30), and within 0.6 points of its best on the
# embedded reviews.
C = 10.0
SMALLEST_DF = 2  # a word or pair that stands in one review alone says nothing of another
MOST_ITERATIONS = 1000


def read_texts(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[str]:
    """The texts as the models see them: cut to `max_length` tokens, without end-of-text."""
    return [tokenizer.decode(row, skip_special_tokens=True) for row in encode_reviews(tokenizer, texts, max_length)]


def training_size(rows: int, settings: Mapping[str, Any]) -> int:
    """Reviews that the models' fine-tuning reads: no more than there are, and than steps x batch_size."""
    budget = settings["training"]
    return min(rows, settings["max_training_items"] or rows, budget["steps"] * budget["batch_size"])


def majority(labels: np.ndarray) -> int:
    """The most frequent label, the smaller one of two that are equally frequent.

    Args:
        labels: int64 (reviews,), not negative.
    """
    return int(np.bincount(labels).argmax())


def predict_majority(train: Sequence[str], labels: np.ndarray, test: Sequence[str]) -> np.ndarray:
    """The majority label of the training reviews for each test review, int64 (test reviews,)."""
    return np.full(len(test), majority(labels))


def predict_tfidf(train: Sequence[str], labels: np.ndarray, test: Sequence[str]) -> np.ndarray:
    """Labels by logistic regression on TF-IDF of words and pairs of words.

    Words and pairs count 1 + log(frequency) times log inverse document frequency, each review has length 1. Those in
    only one training review are left out, unless nothing would remain. L-BFGS draws nothing at random.

    Args:
        train, test: texts.
        labels: int64 (training reviews,).

    Returns:
        int64 (test reviews,). Where the training reviews have one class or no words, their majority.

    Source: Wang and Manning 2012, section 4.3 (bigrams for sentiment); Manning, Raghavan and Schütze 2008, section
    6.4.1 (sublinear term frequency).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, norm="l2", min_df=SMALLEST_DF)
    analyze = vectorizer.build_analyzer()
    documents: dict[str, int] = {}
    for text in train:
        for feature in set(analyze(text)):
            documents[feature] = documents.get(feature, 0) + 1
    if len(np.unique(labels)) < 2 or not documents:
        return predict_majority(train, labels, test)
    if max(documents.values()) < SMALLEST_DF:
        vectorizer.set_params(min_df=1)
    classifier = LogisticRegression(C=C, solver="lbfgs", max_iter=MOST_ITERATIONS)
    classifier.fit(vectorizer.fit_transform(train), labels)
    return classifier.predict(vectorizer.transform(test)).astype(np.int64)


PREDICTORS = {"majority": predict_majority, "tfidf": predict_tfidf}


def measure(
    name: str,
    tokenizer: Any,
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    join: str | None,
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """Accuracy of `majority` or `tfidf` on the test reviews, from as many training reviews as the fine-tuning reads.

    Args:
        train, test: columns id, text, label. Training rows are in random order, so the first are a random sample.
        join, generator: not used; nothing is drawn.
        settings: max_length, training (steps, batch_size), max_items, max_training_items.

    Returns:
        The figures, and one row for each test review: id, label, predicted, correct.
    """
    size = training_size(len(train["text"]), settings)
    test = {column: list(test[column])[: settings["max_items"]] for column in ("id", "text", "label")}
    train_texts, test_texts = (
        read_texts(tokenizer, texts, settings["max_length"]) for texts in (list(train["text"])[:size], test["text"])
    )
    train_labels = np.asarray(list(train["label"])[:size], dtype=np.int64)
    predicted = PREDICTORS[name](train_texts, train_labels, test_texts)
    labels = np.asarray(test["label"], dtype=np.int64)
    items = pd.DataFrame({"id": test["id"], "label": labels, "predicted": predicted, "correct": predicted == labels})
    return figures(items["correct"].to_numpy(), statistics["confidence"]), items
