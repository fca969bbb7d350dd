"""Building a variant: from the base's folder to the variant's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffnfold.architecture import FAMILIES
from ffnfold.checkpoints import (
    fetch_checkpoint,
    load_config,
    load_state,
    save_checkpoint,
    verify_checkpoint,
    write_json,
)
from ffnfold.files import BUILD_NOTES, WEIGHTS, training_folder
from ffnfold.methods import REGISTRY, Inputs, needs_of


def build_variant(
    *,
    base: Path,
    options: Mapping[str, Any],
    directory: Path,
    training: Mapping[str, Any],
    threads: int,
    alignment: str | None = None,
    moments: str | None = None,
    validation: str | None = None,
    data: str | Sequence[str] | None = None,
) -> None:
    """Build one variant and write its checkpoint, with a record of the build (build.json) beside it.

    Args:
        base: the base's checkpoint folder.
        options: the variant's line in the study.
        directory: the folder to write.
        training: prompt, seed and device for builds that run models; empty for others.
        alignment, moments: files of the alignment stage, for builds that need them.
        validation: the language-modelling task's dataset_info.json, for builds that score candidates.
        data: dataset_info.json files of the training tasks, for builds that train.

    Raises:
        InputError: the base was changed since it was written, or the options do not fit it.
    """
    import torch

    torch.set_num_threads(threads)
    verify_checkpoint(base)
    method, needs = REGISTRY[options["method"]], needs_of(options)
    with tempfile.TemporaryDirectory(prefix="ffnfold-fetch-") as fetched:
        source = base
        if "fetch" in needs:
            # The base's tokenizer goes with every variant; `build` checks that the vocabularies agree.
            fetch_checkpoint(options["source"], options["revision"], Path(fetched), supported=set(FAMILIES))
            source = Path(fetched)
            options = {**options, "vocabulary_size": load_config(base)["vocab_size"]}
        inputs: dict[str, Any] = {}
        if alignment is not None:
            from ffnfold.calibration import load_alignment

            inputs["permutations"], inputs["similarity"] = load_alignment(alignment)
        if moments is not None:
            from ffnfold.moments import Moments

            inputs["moments"] = Moments(moments)
        if validation is not None:
            from ffnfold.device import resolve_device
            from ffnfold.validation import validation_scorer

            device = resolve_device(training["device"])
            tokens = options["validation_tokens"]
            inputs["validation_nats"] = validation_scorer(base, Path(validation).parent, tokens, device)
        if data is not None:
            inputs |= _trainers(base, data, training, directory)
        built = method.build(Inputs(load_state(source), load_config(source), **inputs), options)
        directory.mkdir(parents=True, exist_ok=True)
        kept = {"options": dict(options), "frozen_zeros": built.frozen_zeros, "trained": built.trained}
        write_json(directory / BUILD_NOTES, {**kept, **built.notes})
        save_checkpoint(directory, built.state, built.config, base)


def _trainers(
    base: Path, data: str | Sequence[str], training: Mapping[str, Any], directory: Path
) -> dict[str, Callable]:
    """What a method that trains gets: `trainer` and `fitter`."""
    from ffnfold.device import resolve_device
    from ffnfold.distillation import student_trainer
    from ffnfold.fitting import ffn_fitter
    from ffnfold.training_data import read_training_rows

    common = (base, read_training_rows(data), training["prompt"], training["seed"], resolve_device(training["device"]))
    resume = training_folder(directory / WEIGHTS)
    return {"trainer": student_trainer(*common, resume), "fitter": ffn_fitter(*common, resume)}
