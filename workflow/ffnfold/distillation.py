"""Training against the base: the loss of distillation and recovery, and the trainer that `methods.distill` asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from ffnfold.architecture import family_of, require_positions
from ffnfold.checkpoints import checkpoint_sha256, load_config, load_model, load_tokenizer, verify_checkpoint
from ffnfold.errors import InputError
from ffnfold.methods.distill import distillation_loss
from ffnfold.seeding import seeded_generator
from ffnfold.training import Loss, fit, language_modeling_examples


def teacher_loss(teacher: nn.Module, options: Mapping[str, Any]) -> Loss:
    """A loss for `training.fit`: the distillation loss of the trained model against a teacher.

    Batches hold `input_ids` and `labels`, int64 (batch, length), without padding.

    Args:
        teacher: a causal language model in evaluation mode, on the training's device; not trained.
        options: temperature, weight_soft, weight_hidden, weight_lm.
    """

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            target = teacher(input_ids=batch["input_ids"], output_hidden_states=True)
        output = model(**batch, output_hidden_states=True)
        return distillation_loss(
            output.logits, target.logits, output.hidden_states[-1], target.hidden_states[-1], output.loss, options
        )

    return loss


def teacher_identity(base: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes the loss against the base, for a resumed training to compare."""
    return {"options": dict(options), "teacher": checkpoint_sha256(base)}


def recovery_loss(
    built: Path, base: Path, distillation: Mapping[str, Any], length: int, device: str
) -> tuple[Loss, dict[str, Any]]:
    """The loss of a recovery with the base as the teacher, and its identity for `training.fit`.

    Args:
        built: the variant's checkpoint folder.
        base: the base's.
        distillation: temperature, weight_soft, weight_hidden, weight_lm.
        length: tokens of a training sequence.
        device: `cpu` or `cuda`.

    Raises:
        InputError: the base was changed since it was written or has too few positions, or the variant has another
            hidden size and hidden states are compared.
    """
    verify_checkpoint(base)
    own, config = load_config(built), load_config(base)
    require_positions(config, length, "recovery.training.sequence_length")
    size, expected = (int(c[family_of(c).hidden_size_key]) for c in (own, config))
    if distillation["weight_hidden"] and size != expected:
        raise InputError(
            "hidden states of two sizes cannot be compared",
            where=str(built),
            got=f"hidden size {size}",
            expected=f"{expected}, the base's",
            remedy="set recovery.distillation.weight_hidden: 0, or take the variant out of the study",
        )
    return teacher_loss(load_model(base).to(device), distillation), teacher_identity(base, distillation)


def student_trainer(
    base: Path,
    data: Mapping[str, tuple[dict[str, list[Any]], str]],
    prompt: str,
    seed: int,
    device: str,
    resume: Path | None = None,
) -> Callable:
    """A function (state, config, options) -> trained state, with the base as the teacher.

    `resume` is the folder for the state of an unfinished training.
    """

    def train(state: Mapping[str, Tensor], config: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Tensor]:
        budget = options["training"]
        require_positions(config, budget["sequence_length"], "variants: training.sequence_length")
        generator = seeded_generator(seed, "distillation")
        student = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
        missing = student.load_state_dict(state, strict=False)
        assert not missing.unexpected_keys and set(missing.missing_keys) <= set(student.all_tied_weights_keys), missing
        student.tie_weights()
        loss = teacher_loss(load_model(base).to(device), options)
        examples = language_modeling_examples(load_tokenizer(base), data, prompt, budget, generator)
        identity = teacher_identity(base, options)
        fit(student, examples, budget, generator, device, loss=loss, resume=resume, identity=identity)
        trained = student.state_dict()
        return {name: trained[name] for name in state}

    return train
