"""Sentiment accuracy: a classification head on the last real token, fine-tuned with one protocol for all variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ffnfold.records import Value
from ffnfold.statistics import wilson_interval


def encode_reviews(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each review, cut to `max_length`; an empty review becomes one end-of-text token."""
    rows = tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=max_length)["input_ids"]
    return [row or [tokenizer.eos_token_id] for row in rows]


def pad_batch(examples: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """A batch padded on the right to its longest review.

    Args:
        examples: mappings with `input_ids` (list of int) and `labels` (int).

    Returns:
        input_ids and attention_mask int64 (batch, length), labels int64 (batch,).
    """
    length = max(len(e["input_ids"]) for e in examples)
    ids = torch.full((len(examples), length), pad_token_id)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        ids[row, : len(example["input_ids"])] = torch.tensor(example["input_ids"])
        mask[row, : len(example["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([e["labels"] for e in examples])}


def predict(model: nn.Module, rows: Sequence[list[int]], batch_size: int, device: str) -> np.ndarray:
    """Predicted labels, int64 (reviews,). Reviews of similar length share a batch, to pad little."""
    model.to(device).eval()
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    predicted = np.zeros(len(rows), dtype=np.int64)
    with torch.inference_mode():
        for first in range(0, len(order), batch_size):
            members = order[first : first + batch_size]
            batch = pad_batch([{"input_ids": rows[i], "labels": 0} for i in members], model.config.pad_token_id)
            logits = model(
                input_ids=batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)
            ).logits
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
        model: sequence classification model with a fresh head; trained in place. It pools at the last real token.
        train, test: columns id, text, label.
        settings: max_length, eval_batch_size, training.
        frozen_zeros: parameters whose zeros stay zero.
        resume: folder for the state of an unfinished training.

    Returns:
        The figures, and one row for each test review: id, label, predicted, correct.
    """
    from ffnfold.training import fit, hold_zeros

    rows = encode_reviews(tokenizer, train["text"], settings["max_length"])
    examples = [{"input_ids": row, "labels": int(y)} for row, y in zip(rows, train["label"], strict=True)]
    hold_zeros(model, frozen_zeros)
    pad = model.config.pad_token_id
    budget = settings["training"]
    fit(model, examples, budget, generator, device, collate=lambda batch: pad_batch(batch, pad), resume=resume)
    predicted = predict(
        model, encode_reviews(tokenizer, test["text"], settings["max_length"]), settings["eval_batch_size"], device
    )
    labels = np.asarray(test["label"], dtype=np.int64)
    items = pd.DataFrame({"id": test["id"], "label": labels, "predicted": predicted, "correct": predicted == labels})
    return figures(items["correct"].to_numpy(), statistics["confidence"]), items
