"""Training a student against the base: the trainer that `methods.distill` asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from ffnfold.architecture import require_positions
from ffnfold.checkpoints import checkpoint_sha256, load_model, load_tokenizer
from ffnfold.methods.distill import distillation_loss
from ffnfold.seeding import seeded_generator
from ffnfold.training import fit, language_modeling_examples


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
        teacher = load_model(base).to(device)

        def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            with torch.no_grad():
                target = teacher(input_ids=batch["input_ids"], output_hidden_states=True)
            output = model(**batch, output_hidden_states=True)
            return distillation_loss(
                output.logits, target.logits, output.hidden_states[-1], target.hidden_states[-1], output.loss, options
            )

        examples = language_modeling_examples(load_tokenizer(base), data, prompt, budget, generator)
        identity = {"options": dict(options), "teacher": checkpoint_sha256(base)}
        fit(student, examples, budget, generator, device, loss=loss, resume=resume, identity=identity)
        trained = student.state_dict()
        return {name: trained[name] for name in state}

    return train
