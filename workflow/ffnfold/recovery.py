"""Recovering a variant: from a built checkpoint's folder to a trained one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffnfold.architecture import require_positions
from ffnfold.checkpoints import load_config, load_model, load_tokenizer, read_json, save_model, verify_checkpoint
from ffnfold.device import resolve_device
from ffnfold.files import BUILD_NOTES, WEIGHTS, training_folder
from ffnfold.seeding import seeded_generator
from ffnfold.training_data import read_training_rows


def recover_variant(
    *,
    built: Path,
    data: str | Sequence[str],
    budget: Mapping[str, Any],
    prompt: str,
    seed: int,
    replicate: str,
    device: str,
    threads: int,
    directory: Path,
) -> None:
    """Train a built variant for the study's recovery budget and write the result.

    All variants of a replicate read the same text in the same order.

    Raises:
        InputError: the checkpoint was changed since it was written, or the sequences do not fit it.
        FloatingPointError: the training diverged.
    """
    import torch

    from ffnfold.training import fit, hold_zeros, language_modeling_examples

    torch.set_num_threads(threads)
    verify_checkpoint(built)
    require_positions(load_config(built), budget["sequence_length"], "recovery.training.sequence_length")
    generator = seeded_generator(seed, "recovery", replicate)
    model = load_model(built)
    hold_zeros(model, frozen_zeros(built))
    examples = language_modeling_examples(load_tokenizer(built), read_training_rows(data), prompt, budget, generator)
    fit(model, examples, budget, generator, resolve_device(device), resume=training_folder(directory / WEIGHTS))
    save_model(directory, model, built)


def frozen_zeros(built: Path) -> list[str]:
    """Names of the parameters of a built variant whose zeros stay zero in training."""
    return list(read_json(built / BUILD_NOTES)["frozen_zeros"])
