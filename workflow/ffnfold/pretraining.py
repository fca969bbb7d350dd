"""Pretraining a base from nothing on a study's own text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ffnfold.checkpoints import load_tokenizer
from ffnfold.device import resolve_device
from ffnfold.seeding import seeded_generator, torch_seed
from ffnfold.text import training_texts
from ffnfold.tokenization import fetch_tokenizer, train_tokenizer
from ffnfold.training import fit, language_modeling_examples


def pretrain(
    data: Mapping[str, tuple[dict[str, list[Any]], str]],
    *,
    config: Mapping[str, Any],
    architecture: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    budget: Mapping[str, Any],
    prompt: str,
    seed: int,
    device: str,
    threads: int,
    directory: Path,
    resume: Path | None = None,
) -> PreTrainedModel:
    """Train a model of the given shape from random weights; leaves the tokenizer's files in `directory`.

    Args:
        data: task -> (training rows, join).
        config: the model's configuration without its vocabulary size.
        architecture: the study's settings of the same; its ranges of initial weights are used here.
        tokenizer: source, revision and vocabulary_size; without a source a BPE is trained on `data`.
        budget: training settings.
        prompt: the summarisation prompt, put between article and summary.
        directory: receives the tokenizer.
        resume: folder for the state of an unfinished training.
    """
    torch.set_num_threads(threads)
    if tokenizer["source"] is None:
        texts = (text for task, (rows, _) in data.items() for text in training_texts(task, rows, prompt))
        train_tokenizer(texts, tokenizer["vocabulary_size"], config["n_positions"], directory)
    else:
        fetch_tokenizer(tokenizer["source"], tokenizer["revision"], directory)
    loaded = load_tokenizer(directory)
    end = loaded.eos_token_id
    settings = {**config, "vocab_size": len(loaded), "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    shape = AutoConfig.for_model(**settings)
    generator = seeded_generator(seed, "pretraining")
    with torch_seed(generator):
        model = AutoModelForCausalLM.from_config(shape)
    rescale_initial_weights(model, architecture)
    examples = language_modeling_examples(loaded, data, prompt, budget, generator)
    return fit(model, examples, budget, generator, resolve_device(device), resume=resume)


def rescale_initial_weights(model: PreTrainedModel, architecture: Mapping[str, Any]) -> None:
    """Bring freshly drawn position embeddings and residual matrices to the standard deviations of the study.

    transformers draws both from `initializer_range` and divides the residual matrices by sqrt(2 x layers), which leaves
    a narrow deep model almost without a signal from its blocks.

    Source: Radford et al. 2019, section 2.3; its released code draws positions with half the tokens' deviation.
    """
    drawn = architecture["initializer_range"]
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(architecture["position_initializer_range"] / drawn)
        if architecture["residual_initializer_range"] is not None:
            factor = architecture["residual_initializer_range"] / drawn * math.sqrt(2 * architecture["layers"])
            for name, parameter in model.named_parameters():
                if name.endswith("c_proj.weight"):
                    parameter.mul_(factor)
