"""Word and byte perplexity beside lm-evaluation-harness's: `python -m ffnfold.agreement CHECKPOINT ... --data FOLDER`.

The harness runs its own task `wikitext` and its own model class over a local copy of the same documents, without a
network. It is an optional extra: `pip install .[parity]`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffnfold.architecture import family_of, positions_of
from ffnfold.errors import InputError
from ffnfold.expand import expand_checkpoint
from ffnfold.files import SUPPORTED, load_config

FIGURES = ("word_perplexity", "byte_perplexity", "bits_per_byte")
TOLERANCE = 0.001
_TASK = "wikitext_local"


def harness_figures(
    checkpoint: str | Path, documents: Sequence[str], device: str, batch_size: int = 8
) -> dict[str, float]:
    """What lm-evaluation-harness's task `wikitext` says of a checkpoint on other documents than its own.

    Everything but the data is the harness's: detokeniser, windows, counts, metrics, and the model class `hf`.

    Args:
        checkpoint: folder with a model and its tokenizer; where FFNs are tied, its expanded export is judged.
        documents: as of `metrics.documents.documents`.
        device: "cpu" or "cuda".
        batch_size: windows in a batch.

    Returns:
        word_perplexity, byte_perplexity, bits_per_byte.

    Raises:
        InputError: the harness is not installed, or the checkpoint is of an unknown architecture.
    """
    require_harness()
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with (
        stock_folder(checkpoint) as stock,
        tempfile.TemporaryDirectory(prefix="ffnfold-agreement-") as name,
        contextlib.redirect_stderr(io.StringIO()),  # the harness draws a bar for every batch, whatever it is told
    ):
        folder = Path(name)
        _write_task(folder, documents)
        tasks = TaskManager(include_path=str(folder), include_defaults=False).load(_TASK)
        # float32 as `checkpoints.load_model` has it; the harness would take the stored type.
        model = HFLM(pretrained=str(stock), device=device, batch_size=batch_size, dtype="float32")
        found = evaluate(model, tasks, bootstrap_iters=0, log_samples=False)
    return {figure: float(found["results"][_TASK][f"{figure},none"]) for figure in FIGURES}


def _write_task(folder: Path, documents: Sequence[str]) -> None:
    """The harness's own `wikitext.yaml` with the data replaced: a task file that includes it."""
    import pyarrow.parquet

    package = Path(importlib.util.find_spec("lm_eval").submodule_search_locations[0])
    data = folder / "test.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"page": list(documents)}), data)
    task = {
        "include": str(package / "tasks" / "wikitext" / "wikitext.yaml"),
        "task": _TASK,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
    }
    (folder / f"{_TASK}.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML


def require_harness() -> None:
    """Check that lm-evaluation-harness can be imported.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "lm-evaluation-harness is not installed",
            where=sys.executable,
            got="no package lm_eval",
            expected="lm_eval beside ffnfold",
            remedy="pip install --constraint constraints.txt '.[parity]'",
        )


@contextlib.contextmanager
def stock_folder(checkpoint: str | Path) -> Iterator[Path]:
    """The checkpoint itself, or the expanded export of one with tied FFNs, in a folder that is removed afterwards.

    Raises:
        InputError: the checkpoint is of an unknown architecture.
    """
    config = load_config(checkpoint)
    family_of(config)
    if config["model_type"] in SUPPORTED:
        yield Path(checkpoint)
        return
    with tempfile.TemporaryDirectory(prefix="ffnfold-expanded-") as folder:
        expand_checkpoint(checkpoint, folder)
        yield Path(folder)


def own_figures(
    checkpoint: str | Path, rows: Sequence[str], join: str, device: str, batch_size: int = 8
) -> dict[str, float]:
    """The same by `metrics.documents`, in windows of all the positions of the model, as the harness has them.

    Args:
        checkpoint: folder with a model and its tokenizer.
        rows, join: the split's rows, and what stands between them.
        device, batch_size: as of `harness_figures`.

    Returns:
        word_perplexity, byte_perplexity, bits_per_byte.
    """
    import numpy as np

    from ffnfold.checkpoints import load_model, load_tokenizer
    from ffnfold.metrics import documents

    model = load_model(checkpoint)
    settings = {"window": positions_of(model.config.to_dict()), "batch_size": batch_size}
    statistics = {"confidence": 0.95, "resamples": 1}  # intervals are not compared
    generator = np.random.default_rng(0)
    values, _ = documents.measure(
        model, load_tokenizer(checkpoint), rows, join, settings, statistics, generator, device
    )
    return {figure: values[figure].value for figure in FIGURES}


def agree(ours: Mapping[str, float], theirs: Mapping[str, float], tolerance: float = TOLERANCE) -> list[dict[str, Any]]:
    """Two sets of figures side by side.

    Args:
        ours, theirs: figure -> value, in one unit.
        tolerance: largest relative difference that counts as agreement, a share.

    Returns:
        A mapping for each figure: figure, ours, theirs, difference (a share of theirs), agrees.
    """
    rows = []
    for figure, value in theirs.items():
        difference = ours[figure] / value - 1
        agrees = bool(abs(difference) <= tolerance)
        rows.append(
            {"figure": figure, "ours": ours[figure], "theirs": value, "difference": difference, "agrees": agrees}
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]], tolerance: float = TOLERANCE) -> list[str]:
    """The rows of `agree` as lines of text, with a head."""
    bound = f"within {100 * tolerance:g}%"
    lines = [f"{'figure':<16}{'ffnfold':>16}{'lm-eval':>16}{'difference':>14}  {bound}"]
    for row in rows:
        difference = f"{100 * row['difference']:+.2g}%"
        verdict = "yes" if row["agrees"] else "NO"
        lines.append(f"{row['figure']:<16}{row['ours']:>16.6g}{row['theirs']:>16.6g}{difference:>14}  {verdict}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of every checkpoint; 1 where a figure differs by more than 0.1%, 2 for a mistake in the call."""
    parser = argparse.ArgumentParser(prog="python -m ffnfold.agreement", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="folder such as .../recovered/0")
    parser.add_argument("--data", required=True, help="folder such as results/mini/data/language_modeling")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="windows scored together")
    options = parser.parse_args(arguments)
    if options.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    try:
        return _compare(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def _compare(options: argparse.Namespace) -> int:
    require_harness()
    for checkpoint in options.checkpoints:
        family_of(load_config(checkpoint))  # all of them, before the first is measured
    from ffnfold.device import resolve_device
    from ffnfold.metrics.documents import documents
    from ffnfold.splits import load_info, read_split

    device = resolve_device(options.device)
    join = load_info(options.data)["join"]
    rows = list(read_split(options.data, options.split)["text"])
    texts = documents(rows, join)
    print(f"{options.data}, split {options.split}: {len(texts)} documents")
    disagreed = 0
    for checkpoint in options.checkpoints:
        ours = own_figures(checkpoint, rows, join, device, options.batch_size)
        compared = agree(ours, harness_figures(checkpoint, texts, device, options.batch_size))
        print(f"\n{checkpoint}", *table(compared), sep="\n")
        disagreed += sum(not row["agrees"] for row in compared)
    told = "1 figure differs" if disagreed == 1 else f"{disagreed} figures differ"
    print(f"\n{told} by more than 0.1%" if disagreed else "\nall figures agree within 0.1%")
    return 1 if disagreed else 0


if __name__ == "__main__":
    # Read by the libraries when they are imported: nothing may be asked of the hub.
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    sys.exit(main())
