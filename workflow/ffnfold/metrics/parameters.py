"""Counting what a checkpoint stores: parameters, non-zero parameters, bytes, and FLOPs a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ffnfold.architecture import flops_per_token
from ffnfold.records import Value, exact


def count_parameters(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Stored and non-zero parameters.

    A canonical checkpoint stores each parameter once (a tied output head is not written a second time), so the
    tensors of the file are the deduplicated parameters of the model; the parity tests hold this against
    `model.parameters()`.
    """
    stored = sum(tensor.numel() for tensor in state.values())
    nonzero = sum(int(torch.count_nonzero(tensor)) for tensor in state.values())
    return stored, nonzero


def measure(
    state: Mapping[str, Tensor], config: Mapping[str, Any], size_bytes: int, settings: Mapping[str, Any]
) -> dict[str, Value]:
    """The figures of one checkpoint.

    Args:
        state: the stored tensors.
        config: the model configuration.
        size_bytes: size of the weights file.
        settings: `context_length`, at which FLOPs are counted.
    """
    stored, nonzero = count_parameters(state)
    tensors = len(state)
    return {
        "stored_parameters": exact(stored, "parameters", tensors),
        "nonzero_parameters": exact(nonzero, "parameters", tensors),
        "size_bytes": exact(size_bytes, "bytes", tensors),
        "flops_per_token": exact(flops_per_token(state, config, settings["context_length"]), "FLOP", tensors),
    }
