"""Rules between the keys of a study, and between a study and its base, that a schema cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ffnfold.architecture import family_of, layer_count, positions_of
from ffnfold.errors import InputError
from ffnfold.protocols import check_budget, check_gates, check_protocols, lengths
from ffnfold.questions import check_questions


def check_relations(study: Mapping[str, Any], source: str) -> None:
    """Rules between keys that a schema cannot say."""
    shape = study["base"]["architecture"]
    if study["base"]["source"] is None and shape["hidden_size"] % shape["heads"]:
        raise InputError(
            "the heads do not divide the hidden size",
            where=f"{source}: base.architecture",
            got=f"hidden_size {shape['hidden_size']}, heads {shape['heads']}",
            remedy="choose a hidden size that is a multiple of the heads",
        )
    check_budget(study["base"]["training"], f"{source}: base.training")
    if study["recovery"]["teacher"] is not None:
        check_weights(study["recovery"]["distillation"], f"{source}: recovery.distillation")
    for name, options in study["variants"].items():
        if "training" in options:
            where = f"{source}: variants.{name}.training"
            check_budget(options["training"], where)
            if not options["training"]["pack"]:
                raise InputError(
                    "a student is matched to its teacher at every position, so it reads text without padding",
                    where=f"{where}.pack",
                    got=False,
                    remedy="take pack out of the student's training; recovery may have it",
                )
        _check_surgery(options, f"{source}: variants.{name}")
    check_protocols(study, source)
    check_gates(study["gates"]["known"], f"{source}: gates.known")
    check_questions(study, source)
    baselines = [name for name, options in study["variants"].items() if options["method"] == "baseline"]
    if len(baselines) != 1:
        raise InputError(
            "a study needs exactly one baseline",
            where=f"{source}: variants",
            got=", ".join(baselines) or "none",
            expected="one variant with `method: baseline`",
            remedy="add e.g. `gpt2: {method: baseline}`; speedups are measured against it",
        )


def check_weights(options: Mapping[str, Any], where: str) -> None:
    """Check that a distillation's loss is not 0 whatever the student says.

    Raises:
        InputError: all its weights are 0.
    """
    names = ("weight_soft", "weight_hidden", "weight_lm")
    if not any(options[name] for name in names):
        raise InputError(
            "all weights of a distillation are 0, so nothing would be learnt",
            where=where,
            got=", ".join(f"{name} 0" for name in names),
            remedy="raise one of them",
        )


def _check_surgery(options: Mapping[str, Any], where: str) -> None:
    """Options of a variant that exclude each other."""
    if options.get("score") == "wanda" and options["scope"] != "blocks":
        raise InputError(
            "Wanda weighs a weight by its input, which the token embedding has none of",
            where=f"{where}.scope",
            got=options["scope"],
            expected="blocks",
            remedy="add `scope: blocks`, or take `score: magnitude`",
        )
    if options.get("train") == "deltas" and (not options["rank"] or options["n"] == 1):
        raise InputError(
            "there are no low-rank matrices to train",
            where=where,
            got=f"rank {options['rank']}, n {options['n']}",
            expected="a rank of 1 or more and an n of 2 or more, with `train: deltas`",
            remedy="give both, or take `train: all`",
        )
    if options.get("write") == "anchor" and options["fit"]["steps"]:
        raise InputError(
            "an FFN is fitted to all blocks of its group, and this variant writes it to one",
            where=f"{where}.fit.steps",
            got=options["fit"]["steps"],
            expected="0, with `write: anchor`",
            remedy="take `write: all`, or leave the fit out",
        )
    if options["method"] == "distill":
        check_weights(options, where)
    by_likeness = options.get("groups") == "similarity" or options.get("reference") == "medoid"
    if by_likeness and options["align"] == "none":
        raise InputError(
            "FFNs are likened by their matched neurons, and this variant matches none",
            where=f"{where}.align",
            got="none, with groups: similarity or reference: medoid",
            expected="activations or weights",
            remedy="choose one of them, or `groups: runs` and `reference: first`",
        )


def check_against_base(study: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Check the settings that depend on the base's shape.

    Args:
        study: a validated study.
        config: the base's configuration: `model_type`, block count, and positions where known.
        source: what messages call the study.

    Raises:
        InputError: an n, a block index or a length does not fit the base.
    """
    layers = layer_count(config)
    for name, options in study["variants"].items():
        if options.get("n", 1) > layers:
            raise InputError(
                "n is more than the blocks of the base",
                where=f"{source}: variants.{name}.n",
                got=options["n"],
                expected=f"1 to {layers}",
                remedy="choose a smaller n",
            )
        width = config.get(family_of(config).hidden_size_key)
        if width is not None and options.get("rank", 0) > width:
            raise InputError(
                "the rank is more than the base's FFN matrices can have",
                where=f"{source}: variants.{name}.rank",
                got=options["rank"],
                expected=f"0 to {width}, the hidden size",
                remedy="choose a smaller rank; at the largest one nothing is saved",
            )
        outside = [layer for layer in options.get("layers", []) if layer >= layers]
        if outside:
            raise InputError(
                "a block index is outside the base",
                where=f"{source}: variants.{name}.layers",
                got=outside,
                expected=f"0 to {layers - 1}",
                remedy="name blocks that the base has; the first is 0",
            )
    positions = positions_of(config)
    for where, length in lengths(study):
        if positions is not None and length > positions:
            raise InputError(
                "a length is more than the base's positions",
                where=f"{source}: {where}",
                got=f"{length} tokens",
                expected=f"at most {positions}",
                remedy="shorten it, or choose a base with more positions",
            )
