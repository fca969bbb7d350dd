"""One training loop over `transformers.Trainer` for pretraining, distillation, recovery and fine-tuning."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import TrainerCallback, TrainingArguments

from ffnfold.resumption import ResumableTrainer, StateCallback, TrainingStates, interval_s, training_identity
from ffnfold.text import padded_rows, token_windows, training_order, training_texts

log = logging.getLogger(__name__)

Loss = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


class _Ordered(Dataset):
    """Training examples in a fixed order; the order is part of the seed, not of the loader."""

    def __init__(self, examples: Sequence[Mapping[str, Any]], order: np.ndarray) -> None:
        self.examples, self.order = examples, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.examples[int(self.order[index])]


class _OrderedTrainer(ResumableTrainer):
    """Reads the examples in their given order, and takes its loss from a function if one is given."""

    def __init__(self, *args: Any, loss: Loss | None = None, **kwargs: Any) -> None:
        self._own_loss = loss
        super().__init__(*args, **kwargs)
        # A loss is the mean of its micro-batch, and Trainer divides it by the accumulation steps. Models that take any
        # keyword are otherwise believed to divide by the whole batch's labels; GPT-2's classifier does not.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        if self._own_loss is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = self._own_loss(model, inputs)
        return (loss, None) if return_outputs else loss


class _Watch(TrainerCallback):
    """Writes the course of the training to the log and stops a training that diverged."""

    _rate = math.nan

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        logs = logs or {}
        loss = logs.get("loss", logs.get("train_loss"))  # the mean of all steps comes last: steps after the last entry
        if loss is None:
            return
        if "learning_rate" in logs:
            self._rate = logs["learning_rate"]
            message = "step %d of %d: loss %.4f, learning rate %.2e"
            log.info(message, state.global_step, state.max_steps, loss, self._rate)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"training diverged: loss {loss} at step {state.global_step} of {state.max_steps}, "
                f"learning rate {self._rate:.2e}. Lower training.learning_rate or raise training.warmup_share."
            )


def train_only(model: nn.Module, names: Sequence[str] | None) -> None:
    """Freeze every parameter that is not named: the optimiser does not get it, so it keeps its bytes.

    Args:
        model: the model to train.
        names: parameter names; None freezes nothing.

    Raises:
        RuntimeError: the model has no parameter of a name, or no name is given (both are bugs).
    """
    if names is None:
        return
    parameters, wanted = dict(model.named_parameters()), set(names)
    unknown = sorted(wanted - parameters.keys())
    if unknown or not wanted:
        what = f"the model has no parameter {', '.join(unknown[:3])}" if unknown else "none is named"
        raise RuntimeError(f"parameters to train alone: {what}")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in wanted)


def hold_zeros(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """Keep the present zeros of some parameters at zero: their gradients are masked before the optimiser sees them.

    Args:
        model: the model to train.
        names: parameter names; every entry that is 0 now stays 0.

    Returns:
        Name -> bool tensor of the parameter's shape, true where a zero is held; for `check_zeros`.
    """
    parameters = dict(model.named_parameters())

    def mask_gradient(free: Tensor) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            parameter.grad.mul_(free.to(parameter.grad.device))

        return hook

    held = {}
    for name in names:
        free = parameters[name].detach() != 0
        held[name] = ~free
        if parameters[name].requires_grad:  # a frozen one gets no gradient, and takes no hook
            parameters[name].register_post_accumulate_grad_hook(mask_gradient(free))
    return held


def check_zeros(model: nn.Module, held: Mapping[str, Tensor]) -> None:
    """Check after a training that every zero that was held is still one.

    Args:
        model: the trained model.
        held: what `hold_zeros` returned before it.

    Raises:
        RuntimeError: one is not (a bug); names the parameter and says how many.
    """
    parameters = dict(model.named_parameters())
    for name, mask in held.items():
        moved = int(torch.count_nonzero(parameters[name].detach()[mask.to(parameters[name].device)]))
        if moved:
            raise RuntimeError(f"{name}: {moved} of {int(mask.sum())} zeros that training had to hold are no longer 0")
    if held:
        count = sum(int(mask.sum()) for mask in held.values())
        log.info("%d zeros in %d tensors were held through the training", count, len(held))


def fit(
    model: nn.Module,
    examples: Sequence[Mapping[str, Any]],
    budget: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
    *,
    collate: Callable | None = None,
    loss: Loss | None = None,
    resume: Path | None = None,
    identity: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Train a model for the budget's steps with AdamW.

    Args:
        model: trained in place; parameters that require no gradient stay as they are.
        examples: training examples; passes over them are shuffled by `generator`.
        budget: the study's training settings (steps, batch_size, accumulation, learning_rate, ...).
        generator: fixes the order of the examples and Trainer's own seed.
        device: `cpu` or `cuda`.
        collate: from examples to a batch; Trainer's default stacks tensors.
        loss: from model and batch to a scalar loss; by default the model's own, in nats.
        resume: folder for the state of an unfinished training, from which a later call goes on; the caller removes it
            when what comes of the training is safe on disk. None keeps no state.
        identity: what shapes `loss`, as JSON can hold it; a state is used only where this is the same.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        FloatingPointError: the loss is not finite; names the step and the learning rate.
    """
    order = training_order(len(examples), budget["steps"] * budget["batch_size"], generator)
    seed = int(generator.integers(2**31))
    states = None
    if resume is not None:
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        facts = {"budget": dict(budget), "seed": seed, "device": device, "identity": dict(identity or {})}
        facts["frozen"] = frozen
        states = TrainingStates(resume, training_identity(model, examples, order, facts), interval_s())
    newest = states and states.newest()
    with tempfile.TemporaryDirectory(prefix="ffnfold-train-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=budget["steps"],
            per_device_train_batch_size=budget["batch_size"] // budget["accumulation"],
            gradient_accumulation_steps=budget["accumulation"],
            learning_rate=budget["learning_rate"],
            warmup_steps=round(budget["warmup_share"] * budget["steps"]),
            weight_decay=budget["weight_decay"],
            adam_beta2=budget["adam_beta2"],
            max_grad_norm=budget["max_gradient_norm"],
            lr_scheduler_type=budget["schedule"],
            bf16=budget["precision"] == "bf16",
            use_cpu=device == "cpu",
            seed=seed,
            data_seed=seed,
            logging_steps=max(1, budget["steps"] // 20),
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=device != "cpu",
            remove_unused_columns=False,
        )
        # One device whatever the machine has: Trainer would spread a batch over all GPUs and so enlarge it.
        arguments._n_gpu = min(1, arguments.n_gpu)
        trainer = _OrderedTrainer(
            model=model,
            args=arguments,
            train_dataset=_Ordered(examples, order),
            data_collator=collate,
            callbacks=[_Watch(), *([StateCallback(states.interval_s)] if states else [])],
            loss=loss,
        )
        trainer.states = states
        if newest is not None:
            log.info("going on from %s", newest)
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        # Takes autocast off the model again, so that it is measured in its own precision.
        model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return model.to("cpu").eval()


def language_modeling_examples(
    tokenizer: Any,
    data: Mapping[str, tuple[dict[str, list[Any]], str]],
    prompt: str,
    budget: Mapping[str, Any],
    generator: np.random.Generator,
) -> list[dict[str, Tensor]]:
    """Examples for language modelling from one or more tasks' training rows.

    Args:
        tokenizer: a fast tokenizer.
        data: task -> (training rows, join).
        prompt: the summarisation prompt, put between article and summary.
        budget: the training settings; no more examples are made than it can use.

    Returns:
        Examples with `input_ids` and `labels`, int64 (sequence length,). With `pack` every position is text, none is
        padding; without, each row is an example with an `attention_mask`, cut or padded. Tasks are mixed in proportion
        to their characters.
    """
    needed = budget["steps"] * budget["batch_size"]
    texts = {task: training_texts(task, rows, prompt) for task, (rows, _) in data.items()}
    characters = {task: sum(map(len, rows)) for task, rows in texts.items()}
    total = max(1, sum(characters.values()))
    examples: list[dict[str, Tensor]] = []
    for task, rows in texts.items():
        count = math.ceil(needed * characters[task] / total) or 1
        if budget["pack"]:
            windows = token_windows(tokenizer, rows, data[task][1], budget["sequence_length"], count, generator)
            examples += [{"input_ids": row, "labels": row} for row in torch.from_numpy(windows)]
        else:
            columns = padded_rows(
                tokenizer, rows, budget["sequence_length"], count, budget["labels_on_padding"], generator
            )
            names = ("input_ids", "attention_mask", "labels")
            examples += [
                dict(zip(names, row, strict=True)) for row in zip(*map(torch.from_numpy, columns), strict=True)
            ]
    return examples
