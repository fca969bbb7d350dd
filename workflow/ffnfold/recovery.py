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
    teacher: Path | None = None,
    distillation: Mapping[str, Any] | None = None,
) -> None:
    """Train a built variant for the study's recovery budget and write the result.

    All variants of a replicate read the same text in the same order. The build's record says which zeros are held and
    which parameters are trained.

    Args:
        built: the built variant's folder, with its record (build.json).
        data: dataset_info.json files of the training tasks.
        budget: the study's recovery.training, with the variant's own laid over it.
        prompt: the summarisation prompt.
        device: the study's device.
        directory: the folder to write.
        teacher: the base's folder, where its outputs count in the loss; None for the text alone.
        distillation: temperature and weights of the losses, with a teacher.

    Raises:
        InputError: a checkpoint was changed since it was written, the sequences do not fit it, or the hidden sizes of
            variant and teacher differ.
        FloatingPointError: the training diverged.
        RuntimeError: a zero was not held, or the record names parameters that the variant lacks (both are bugs).
    """
    import torch

    from ffnfold.training import check_zeros, fit, hold_zeros, language_modeling_examples, train_only

    torch.set_num_threads(threads)
    verify_checkpoint(built)
    require_positions(load_config(built), budget["sequence_length"], "recovery.training.sequence_length")
    generator = seeded_generator(seed, "recovery", replicate)
    model = load_model(built)
    notes = read_json(built / BUILD_NOTES)
    train_only(model, notes.get("trained"))
    held = hold_zeros(model, notes["frozen_zeros"])
    where, loss, identity = resolve_device(device), None, None
    if teacher is not None:
        from ffnfold.distillation import recovery_loss

        loss, identity = recovery_loss(built, teacher, distillation, budget["sequence_length"], where)
    examples = language_modeling_examples(load_tokenizer(built), read_training_rows(data), prompt, budget, generator)
    resume = training_folder(directory / WEIGHTS)
    fit(model, examples, budget, generator, where, loss=loss, resume=resume, identity=identity)
    check_zeros(model, held)
    save_model(directory, model, built)
