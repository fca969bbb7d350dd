"""A student made of some of the base's blocks and trained on the base's outputs.

Source: Sanh et al. 2019 (arXiv 1910.01108), section 3: soft targets at a temperature, cosine of the last hidden
states, language-modelling loss; the student starts from the teacher's blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ffnfold.architecture import keep_blocks
from ffnfold.methods import Built, Inputs


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    lm_loss: Tensor,
    options: Mapping[str, Any],
) -> Tensor:
    """The weighted sum of the three losses, in nats (the cosine term has no unit).

    Args:
        student_logits, teacher_logits: (batch, length, vocabulary).
        student_hidden, teacher_hidden: (batch, length, hidden size), the last block's normalised output.
        lm_loss: scalar, mean next-token loss of the student.
        options: temperature, weight_soft, weight_hidden, weight_lm. With weight_hidden 0 the hidden states are not
            compared, and their sizes may differ.
    """
    temperature = options["temperature"]
    # The temperature's square keeps the gradient's size (Hinton et al. 2015, arXiv 1503.02531, section 2).
    soft = functional.kl_div(
        functional.log_softmax(student_logits.flatten(0, 1) / temperature, dim=-1),
        functional.log_softmax(teacher_logits.flatten(0, 1) / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    loss = options["weight_soft"] * temperature**2 * soft
    if options["weight_hidden"]:
        hidden = 1 - functional.cosine_similarity(student_hidden, teacher_hidden, dim=-1).mean()
        loss = loss + options["weight_hidden"] * hidden
    return loss + options["weight_lm"] * lm_loss


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Take the base's blocks `options["layers"]` and train them against the base through `inputs.trainer`.

    `inputs.trainer(student_state, student_config, options)` returns the trained state dict.

    Raises:
        InputError: a block index is outside the base.
    """
    state, config = keep_blocks(inputs.state, inputs.config, list(options["layers"]))
    trained = inputs.trainer({name: torch.clone(tensor) for name, tensor in state.items()}, config, options)
    return Built(dict(trained), config, notes={"layers": list(options["layers"])})
