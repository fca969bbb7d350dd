"""Training each group's FFN, alone, to give what its members give: the fitter that the averaging methods ask for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffnfold.architecture import Family, family_of, ffn_names, require_positions
from ffnfold.checkpoints import checkpoint_sha256, load_config, load_model, load_tokenizer
from ffnfold.grouping import Group
from ffnfold.seeding import seeded_generator
from ffnfold.training import Loss, fit, language_modeling_examples

FIXED = {
    "accumulation": 1,
    "warmup_share": 0.1,
    "weight_decay": 0.0,
    "adam_beta2": 0.999,
    "max_gradient_norm": 1.0,
    "schedule": "cosine",
    "precision": "fp32",
    "pack": True,
    "labels_on_padding": False,
}
SMALLEST_SQUARE = 1e-12  # of a block whose FFN gives nothing


class GroupFFNs(nn.Module):
    """The FFNs of some groups and nothing else, so that nothing else is trained."""

    def __init__(self, ffns: Sequence[nn.Module]) -> None:
        super().__init__()
        self.ffns = nn.ModuleList(ffns)

    def forward(self, inputs: Tensor, group: int) -> Tensor:
        """A group's FFN: (…, hidden size) to (…, hidden size)."""
        return self.ffns[group](inputs)


def ffn_fitter(
    base: Path,
    data: Mapping[str, tuple[dict[str, list[Any]], str]],
    prompt: str,
    seed: int,
    device: str,
    resume: Path | None = None,
) -> Callable:
    """A function (ffns, groups, options) -> fitted ffns, with the base's own FFNs as what they are fitted to.

    Args:
        base: the base's checkpoint folder; its blocks are run, and not trained.
        data: task -> training rows and join.
        prompt: the summarisation prompt, put between article and summary.
        seed: the study's.
        device: `cpu` or `cuda`.
        resume: folder for the state of an unfinished training.

    Source: Romero et al. 2015 (FitNets, arXiv 1412.6550), section 2, for matching a teacher inside the model; here each
    FFN alone, on the base's own activations.
    """

    def fit_ffns(
        ffns: Sequence[Mapping[str, Tensor]], groups: Sequence[Group], options: Mapping[str, Any]
    ) -> list[dict[str, Tensor]]:
        """Fit each group's FFN to its members' outputs on their own inputs.

        Args:
            ffns: for each group in_weight, in_bias, out_weight, out_bias in the family's orientation; not changed.
            groups: blocks of the base.
            options: steps, batch_size, sequence_length (tokens), learning_rate.

        Returns:
            The FFNs in the same order, float32; those of groups of one as they are.

        Raises:
            InputError: the sequences are longer than the base's positions.
            FloatingPointError: the training diverged.
        """
        fitted = [dict(ffn) for ffn in ffns]
        real = [index for index, group in enumerate(groups) if len(group.members) > 1]
        if not real or options["steps"] == 0:
            return fitted
        config, budget = load_config(base), {**FIXED, **options}
        require_positions(config, budget["sequence_length"], "variants: fit.sequence_length")
        family, generator = family_of(config), seeded_generator(seed, "ffn_fit")
        teacher = load_model(base)
        trained = GroupFFNs([_stock_ffn(teacher, family, groups[i].anchor, ffns[i]) for i in real])
        examples = language_modeling_examples(load_tokenizer(base), data, prompt, budget, generator)
        members = [list(groups[i].members) for i in real]
        identity = {"base": checkpoint_sha256(base), "members": members, "anchors": [groups[i].anchor for i in real]}
        with _captured(teacher.to(device), family, [layer for group in members for layer in group]) as captured:
            loss = _member_loss(teacher, captured, members)
            fit(trained, examples, budget, generator, device, loss=loss, resume=resume, identity=identity)
        for index, ffn in zip(real, trained.ffns, strict=True):
            state = ffn.state_dict()
            fitted[index] = {part: state[name].clone() for part, name in _own_names(family).items()}
        return fitted

    return fit_ffns


def _member_loss(teacher: nn.Module, captured: Mapping[int, tuple[Tensor, Tensor]], members: list[list[int]]) -> Loss:
    """The sum over groups and members of the mean squared error divided by the member's mean square.

    So all blocks count alike, whatever the size of their outputs.
    """

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            teacher.base_model(input_ids=batch["input_ids"], use_cache=False)
        errors = []
        for group, layers in enumerate(members):
            for layer in layers:
                given, wanted = captured[layer]
                square = wanted.square().mean().clamp_min(SMALLEST_SQUARE)
                errors.append(functional.mse_loss(model(given, group), wanted) / square)
        return torch.stack(errors).sum()

    return loss


@contextmanager
def _captured(model: nn.Module, family: Family, layers: Sequence[int]) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """A mapping block -> its FFN's input and output in the last forward pass, each (batch, length, hidden size)."""
    captured: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(layer: int) -> Callable:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            captured[layer] = (inputs[0].detach(), output.detach())

        return hook

    handles = [model.get_submodule(_path(family, i)).register_forward_hook(keep(i)) for i in layers]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _stock_ffn(model: nn.Module, family: Family, anchor: int, ffn: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the anchor's FFN module with an FFN's tensors in it, without dropout: what it is fitted to has none."""
    module = copy.deepcopy(model.get_submodule(_path(family, anchor)))
    module.load_state_dict({name: ffn[part] for part, name in _own_names(family).items()})
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return module


def _path(family: Family, layer: int) -> str:
    """Name of a block's FFN module."""
    return f"{family.blocks.format(layer=layer)}{family.ffn_in}".rpartition(".")[0]


def _own_names(family: Family) -> dict[str, str]:
    """Names of the four FFN tensors within the FFN module."""
    return {part: name.removeprefix(f"{_path(family, 0)}.") for part, name in ffn_names(family, 0).items()}
