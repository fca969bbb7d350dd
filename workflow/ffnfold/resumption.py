"""Training that goes on where a killed job stopped; its state lies on disk as safetensors and JSON, never as a pickle.

    {folder}/step-{n}/training.safetensors   parameters, AdamW's moments, the random generators; schedule as metadata
    {folder}/step-{n}/trainer_state.json     Trainer's own record

A state is used only by the training that wrote it: same weights at the start, same examples in the same order, same
budget, same library. The resumed training then gives the bytes of an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

log = logging.getLogger(__name__)

INTERVAL_S = 120.0  # between two states on disk
INTERVAL_VARIABLE = "FFNFOLD_CHECKPOINT_SECONDS"
TENSORS = "training.safetensors"


def interval_s() -> float:
    """Seconds between two states: the environment variable FFNFOLD_CHECKPOINT_SECONDS, or 120."""
    return float(os.environ.get(INTERVAL_VARIABLE, INTERVAL_S))


def training_identity(model: nn.Module, examples: Sequence[Any], order: np.ndarray, facts: Mapping[str, Any]) -> str:
    """A sha256 over everything that shapes a training, this library's own source included.

    Args:
        model: before its first step.
        examples: mappings of tensors, lists and numbers.
        order: int64 (examples read,); which example is read when.
        facts: settings of the training, as JSON can hold them.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update(f"torch {torch.__version__}, {torch.get_num_threads()} threads".encode())
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(_bytes(parameter))
    digest.update(np.ascontiguousarray(order).tobytes())
    for example in examples:
        for key, value in example.items():
            digest.update(key.encode())
            digest.update(_bytes(value) if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8 if tensor.ndim else tensor.dtype).numpy().tobytes()


class TrainingStates:
    """The states of one training in a folder; at most one is kept.

    Args:
        folder: made when the first state is written.
        identity: of the training; states of another one are removed.
        interval_s: seconds between two states.
    """

    def __init__(self, folder: Path, identity: str, interval_s: float) -> None:
        self.folder, self.identity, self.interval_s = folder, identity, interval_s

    def newest(self) -> Path | None:
        """The newest sound state of this training, None where there is none."""
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                with safe_open(path / TENSORS, framework="pt") as stream:
                    if stream.metadata()["identity"] == self.identity and (path / TRAINER_STATE_NAME).is_file():
                        return path
                log.info("%s belongs to another training and is not used", path)
            except (OSError, SafetensorError, KeyError, TypeError) as error:
                log.warning("%s cannot be read and is not used: %s", path, error)
        return None

    def write(self, trainer: Trainer) -> None:
        """Write the trainer's present state in place of the earlier one; a full disk is logged and training goes on."""
        step = trainer.state.global_step
        if not all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters()):
            return  # this training is about to stop; going on from here would hide why
        target, temporary = self.folder / f"step-{step:08d}", self.folder / f".step-{step}.tmp"
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            tensors, metadata = _collect(trainer)
            save_file(tensors, temporary / TENSORS, metadata={**metadata, "identity": self.identity})
            trainer.state.save_to_json(str(temporary / TRAINER_STATE_NAME))
            for path in temporary.iterdir():
                with path.open("rb+") as stream:
                    os.fsync(stream.fileno())
            earlier = [path for path in self.folder.glob("step-*") if path != target]
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
            for path in earlier:
                shutil.rmtree(path, ignore_errors=True)
            log.info("step %d: training state written to %s", step, target)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            log.warning("step %d: the training state could not be written, going on without: %s", step, error)


def _collect(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and what is not a tensor as JSON texts."""
    optimizer = trainer.optimizer.state_dict()
    tensors = {f"model.{name}": parameter.detach() for name, parameter in trainer.model.named_parameters()}
    for index, moments in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if trainer.args.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    schedule = trainer.lr_scheduler.state_dict()
    metadata = {
        "learning_rates": json.dumps([group["lr"] for group in optimizer["param_groups"]]),
        "schedule": json.dumps({key: schedule[key] for key in ("last_epoch", "_step_count", "_last_lr")}),
    }
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata


def _read(path: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(Path(path) / TENSORS, framework="pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata()  # noqa: SIM118


class ResumableTrainer(Trainer):
    """A Trainer that writes and reads its state through `TrainingStates`, where Trainer itself would pickle it."""

    states: TrainingStates | None = None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        assert self.states is not None
        self.states.write(self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        tensors, _ = _read(resume_from_checkpoint)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"model.{name}"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        tensors, metadata = _read(checkpoint)
        optimizer, schedule = self.optimizer.state_dict(), self.lr_scheduler.state_dict()
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, moment = rest.partition(".")
                optimizer["state"].setdefault(int(index), {})[moment] = tensor
        for group, rate in zip(optimizer["param_groups"], json.loads(metadata["learning_rates"]), strict=True):
            group["lr"] = rate
        self.optimizer.load_state_dict(optimizer)
        self.lr_scheduler.load_state_dict({**schedule, **json.loads(metadata["schedule"])})

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        tensors, _ = _read(checkpoint)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and self.args.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"])


class StateCallback(TrainerCallback):
    """Asks for a state when the interval has passed since the last one."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s, self._last = interval_s, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if time.monotonic() - self._last >= self._interval_s:
            self._last, control.should_save = time.monotonic(), True
        return control
