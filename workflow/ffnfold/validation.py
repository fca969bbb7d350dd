"""Scoring candidates of a surgery on the validation split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from ffnfold.architecture import SHARED_SUFFIX, positions_of
from ffnfold.checkpoints import load_config, load_tokenizer
from ffnfold.metrics.perplexity import plan, score_windows
from ffnfold.splits import load_info, read_split

WINDOW = 512


def validation_scorer(
    base: Path, data: Path, tokens: int, device: str
) -> Callable[[Mapping[str, Tensor], Mapping], float]:
    """A function (state, config) -> mean nats a token of that model on the validation split's first tokens.

    Args:
        base: the base's folder, for its tokenizer.
        data: folder of the language-modelling task.
        tokens: of the split's start, rounded up to whole windows of at most 512 tokens.
        device: `cpu` or `cuda`.
    """
    window = min(WINDOW, positions_of(load_config(base)) or WINDOW)
    settings = {"window": window, "stride": window, "truncate_tokens": None, "score_padding": False}
    settings |= {"max_items": -(-tokens // window), "batch_size": 1}
    rows = list(read_split(data, "validation")["text"])
    planned = plan(load_tokenizer(base), rows, load_info(data)["join"], settings)
    scored = sum(window[2] for window in planned.windows)
    made: dict[str, nn.Module] = {}

    def nats(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> float:
        key = repr(sorted(config.items(), key=lambda item: item[0]))
        if key not in made:
            made.clear()  # one model at a time in memory
            made[key] = _blank_model(config)
        model = made[key]
        found = model.load_state_dict(state, strict=False)
        assert not found.unexpected_keys and set(found.missing_keys) <= set(model.all_tied_weights_keys), found
        return float(score_windows(model, planned.ids, planned.windows, settings["batch_size"], device).sum() / scored)

    return nats


def _blank_model(config: Mapping[str, Any]) -> nn.Module:
    if config["model_type"].endswith(SHARED_SUFFIX):
        import ffnfold.sharing  # noqa: F401  registers the class
    with torch.random.fork_rng(devices=[]):  # its random weights are overwritten
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
