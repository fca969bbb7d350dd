"""Zero-shot summaries by prompt: the continuation alone is scored, unless a protocol adds the prompt (an artefact)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ffnfold.architecture import positions_of
from ffnfold.errors import InputError
from ffnfold.records import Value
from ffnfold.statistics import interval_words, mean_interval

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")


def split_sentences(text: str) -> list[str]:
    """Sentences of a text, cut after . ! ? and at line ends."""
    return [s.strip() for s in SENTENCE_END.split(text) if s.strip()]


def lead(article: str, sentences: int = 3) -> str:
    """The article's first sentences, one a line: the summary that needs no model."""
    return "\n".join(split_sentences(article)[:sentences])


def rouge_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """ROUGE F1 of each pair (0 to 1) through the local `evaluate` module; sentences are put on lines for rougeLsum."""
    import evaluate

    with tempfile.TemporaryDirectory(prefix="ffnfold-rouge-") as cache:
        # Cache and experiment are this call's own, so concurrent jobs cannot meet in them.
        metric = evaluate.load(str(Path(__file__).with_name("rouge.py")), cache_dir=cache, keep_in_memory=True)
        return metric.compute(
            predictions=["\n".join(split_sentences(p)) for p in predictions],
            references=["\n".join(split_sentences(r)) for r in references],
        )


def build_prompts(
    tokenizer: Any, articles: Sequence[str], settings: Mapping[str, Any], positions: int
) -> list[list[int]]:
    """Token ids of each article's first `article_tokens` tokens and the prompt.

    Raises:
        InputError: article, prompt and summary do not fit the model's positions.
    """
    prompt = tokenizer(settings["prompt"], add_special_tokens=False)["input_ids"]
    longest = settings["article_tokens"] + len(prompt) + settings["generated_tokens"]
    if longest > positions:
        raise InputError(
            "article, prompt and summary are longer than the model's positions",
            where="metrics.summarization",
            got=f"{settings['article_tokens']} + {len(prompt)} + {settings['generated_tokens']} = {longest} tokens",
            expected=f"at most {positions}",
            remedy="shorten article_tokens, generated_tokens or the prompt",
        )
    rows = tokenizer(list(articles), add_special_tokens=False, truncation=True, max_length=settings["article_tokens"])[
        "input_ids"
    ]
    return [row + prompt for row in rows]


def summarize(
    model: nn.Module, tokenizer: Any, prompts: list[list[int]], settings: Mapping[str, Any], device: str
) -> list[str]:
    """The continuation of each prompt, up to the first blank line or end of text.

    With `include_prompt` (an artefact) the text is the prompt and all of the continuation, as in the published figures.
    Prompts are padded on the left, their pads masked; prompts of similar length share a batch.
    """
    model.to(device).eval()
    pad = tokenizer.eos_token_id
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    texts = [""] * len(prompts)
    with torch.inference_mode():
        for first in range(0, len(order), settings["batch_size"]):
            members = order[first : first + settings["batch_size"]]
            length = max(len(prompts[i]) for i in members)
            ids = torch.full((len(members), length), pad)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(members):
                ids[row, length - len(prompts[i]) :] = torch.tensor(prompts[i])
                mask[row, length - len(prompts[i]) :] = 1
            output = model.generate(
                ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=settings["generated_tokens"],
                do_sample=False,
                num_beams=settings["beams"],
                no_repeat_ngram_size=settings["no_repeat_ngram_size"],
                use_cache=True,
                pad_token_id=pad,
            )
            for row, i in enumerate(members):
                if settings["include_prompt"]:
                    texts[i] = tokenizer.decode(output[row], skip_special_tokens=True).strip()
                else:
                    text = tokenizer.decode(output[row, length:], skip_special_tokens=True)
                    texts[i] = text.strip().split("\n\n")[0].strip()
    return texts


def score_texts(
    texts: Sequence[str],
    references: Sequence[str],
    ids: Sequence[str],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """ROUGE of texts against their references, whoever wrote them.

    Args:
        texts, references, ids: one for each article.
        statistics: confidence, resamples.

    Returns:
        The figures (F1, 0 to 1), and one row for each article: id, generated, and every score.
    """
    scores = rouge_scores(texts, references)
    method = interval_words(len(texts), "articles", statistics["resamples"])
    values: dict[str, Value] = {}
    for name in ROUGE:
        middle, low, high = mean_interval(
            np.asarray(scores[name]), statistics["confidence"], statistics["resamples"], generator
        )
        values[name] = Value(middle, "F1", max(low, 0.0), min(high, 1.0), len(scores[name]), method)
    return values, pd.DataFrame({"id": ids, "generated": texts, **{name: scores[name] for name in ROUGE}})


def measure(
    model: nn.Module,
    tokenizer: Any,
    test: Mapping[str, list[Any]],
    settings: Mapping[str, Any],
    statistics: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
) -> tuple[dict[str, Value], pd.DataFrame]:
    """Summarise the test articles and score the summaries.

    Args:
        test: columns id, article, highlights.
        settings: prompt, article_tokens, generated_tokens, beams, no_repeat_ngram_size, batch_size, and the artefacts
            include_prompt and max_items.

    Returns:
        The figures (F1, 0 to 1), and one row for each article with the generated text and every score.
    """
    test = {name: list(column)[: settings["max_items"]] for name, column in test.items()}
    prompts = build_prompts(tokenizer, test["article"], settings, positions_of(model.config.to_dict()))
    generated = summarize(model, tokenizer, prompts, settings, device)
    return score_texts(generated, test["highlights"], test["id"], statistics, generator)
