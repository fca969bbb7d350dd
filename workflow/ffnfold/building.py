"""Building a variant: from the base's folder to the variant's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
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
from ffnfold.methods import REGISTRY, Inputs


def build_variant(
    *,
    base: Path,
    options: Mapping[str, Any],
    directory: Path,
    alignment: str | None,
    data: str | Sequence[str] | None,
    training: Mapping[str, Any],
    threads: int,
) -> None:
    """Build one variant and write its checkpoint, with a record of the build (build.json) beside it.

    Args:
        base: the base's checkpoint folder.
        options: the variant's line in the study.
        directory: the folder to write.
        alignment: the permutations' file, for methods that need it.
        data: dataset_info.json files of the training tasks, for methods that train.
        training: prompt, seed and device for methods that train; empty for others.

    Raises:
        InputError: the base was changed since it was written, or the options do not fit it.
    """
    import torch

    torch.set_num_threads(threads)
    verify_checkpoint(base)
    method = REGISTRY[options["method"]]
    with tempfile.TemporaryDirectory(prefix="ffnfold-fetch-") as fetched:
        source = base
        if "fetch" in method.needs:
            # The base's tokenizer goes with every variant; `build` checks that the vocabularies agree.
            fetch_checkpoint(options["source"], options["revision"], Path(fetched), supported=set(FAMILIES))
            source = Path(fetched)
            options = {**options, "vocabulary_size": load_config(base)["vocab_size"]}
        permutations = None
        if alignment is not None:
            from ffnfold.calibration import load_alignment

            permutations = load_alignment(alignment)
        trainer = None
        if data is not None:
            from ffnfold.device import resolve_device
            from ffnfold.distillation import student_trainer
            from ffnfold.training_data import read_training_rows

            trainer = student_trainer(
                base,
                read_training_rows(data),
                training["prompt"],
                training["seed"],
                resolve_device(training["device"]),
                training_folder(directory / WEIGHTS),
            )
        built = method.build(Inputs(load_state(source), load_config(source), permutations, trainer), options)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(
            directory / BUILD_NOTES, {"options": dict(options), "frozen_zeros": built.frozen_zeros, **built.notes}
        )
        save_checkpoint(directory, built.state, built.config, base)
