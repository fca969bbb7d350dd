"""Sentiment accuracy: a classification head on the last token, fine-tuned with one protocol for all variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from ffnfold.records import Value
from ffnfold.statistics import wilson_interval


def encode_reviews(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each review, cut to `max_length`; an empty review becomes one end-of-text token."""
    rows = tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=max_length)["input_ids"]
    return [row or [tokenizer.eos_token_id] for row in rows]


def pad_batch(examples: Sequence[Mapping[str, Any]], pad_token_id: int, length: int | None = None) -> dict[str, Tensor]:
    """A batch padded on the right.

    Args:
        examples: mappings with `input_ids` (list of int) and `labels` (int).
        length: tokens to pad to; None for the batch's longest review.

    Returns:
        input_ids and attention_mask int64 (batch, length), labels int64 (batch,).
    """
    length = length or max(len(e["input_ids"]) for e in examples)
    ids = torch.full((len(examples), length), pad_token_id)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        ids[row, : len(example["input_ids"])] = torch.tensor(example["input_ids"])
        mask[row, : len(example["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([e["labels"] for e in examples])}


def pooled_logits(model: nn.Module, batch: Mapping[str, Tensor], pool: str) -> Tensor:
    """Class scores of a batch, (batch, 2), read at the last token or (an artefact) at the last position, pad or not."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if pool == "last_token":
        return model(**inputs).logits
    return model.score(model.base_model(**inputs).last_hidden_state[:, -1])


def predict(
    model: nn.Module,
    rows: Sequence[list[int]],
    batch_size: int,
    device: str,
    pool: str = "last_token",
    length: int | None = None,
) -> np.ndarray:
    """Predicted labels, int64 (reviews,). Reviews of similar length share a batch, to pad little.

    Args:
        pool: as the study's `metrics.sentiment.pool`.
        length: tokens that every review is padded to; None pads to the longest of a batch.
    """
    model.to(device).eval()
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    predicted = np.zeros(len(rows), dtype=np.int64)
    with torch.inference_mode():
        for first in range(0, len(order), batch_size):
            members = order[first : first + batch_size]
            batch = pad_batch([{"input_ids": rows[i], "labels": 0} for i in members], model.config.pad_token_id, length)
            logits = pooled_logits(model, {name: tensor.to(device) for name, tensor in batch.items()}, pool)
            predicted[members] = logits.argmax(dim=-1).cpu().numpy()
    return predicted


def figures(correct: np.ndarray, confidence: float) -> dict[str, Value]:
    """Accuracy in percent with Wilson's interval.

    Args:
        correct: bool (reviews,).
    """
    share, low, high = wilson_interval(int(correct.sum()), len(correct), confidence)
    return {"accuracy": Value(100 * share, "%", 100 * low, 100 * high, len(correct), "Wilson score interval")}


def measure(
    model: nn.Module,
    tokenizer: Any,
    train: Mapping[str, list[Any]],
    test: Mapping[str, list[Any]],
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
    frozen_zeros: Sequence[str] = (),
    resume: Path | None = None,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """Fine-tune on the training reviews and score the test reviews.

    Args:
        model: sequence classification model with a fresh head; trained in place.
        train, test: columns id, text, label.
        settings: max_length, eval_batch_size, training, and the artefacts pool, max_items and max_training_items.
        frozen_zeros: parameters whose zeros stay zero.
        resume: folder for the state of an unfinished training.

    Returns:
        The figures, and one row for each test review: id, label, predicted, correct.

    Raises:
        RuntimeError: a zero was not held (a bug).
    """
    from ffnfold.training import check_zeros, fit, hold_zeros

    train = {name: list(column)[: settings["max_training_items"]] for name, column in train.items()}
    test = {name: list(column)[: settings["max_items"]] for name, column in test.items()}
    rows = encode_reviews(tokenizer, train["text"], settings["max_length"])
    examples = [{"input_ids": row, "labels": int(y)} for row, y in zip(rows, train["label"], strict=True)]
    held = hold_zeros(model, frozen_zeros)
    pool, pad = settings["pool"], model.config.pad_token_id
    length = settings["max_length"] if pool == "last_position" else None

    def loss_at_last_position(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return functional.cross_entropy(pooled_logits(model, batch, pool), batch["labels"])

    fit(
        model,
        examples,
        settings["training"],
        generator,
        device,
        collate=lambda batch: pad_batch(batch, pad, length),
        loss=loss_at_last_position if pool == "last_position" else None,
        resume=resume,
        identity={"pool": pool},
    )
    check_zeros(model, held)
    encoded = encode_reviews(tokenizer, test["text"], settings["max_length"])
    predicted = predict(model, encoded, settings["eval_batch_size"], device, pool, length)
    labels = np.asarray(test["label"], dtype=np.int64)
    items = pd.DataFrame({"id": test["id"], "label": labels, "predicted": predicted, "correct": predicted == labels})
    return figures(items["correct"].to_numpy(), statistics["confidence"]), items
