"""What all metric scripts share: device, generator, checked checkpoint, and the record around the figures."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ffnfold.checkpoints import checkpoint_sha256, verify_checkpoint
from ffnfold.device import describe_device, resolve_device, software_versions
from ffnfold.records import Value, write_record
from ffnfold.seeding import seeded_generator
from ffnfold.splits import load_info

if TYPE_CHECKING:
    import pandas as pd


class Measurement:
    """One metric of one variant and replicate, from its job to its record.

    Args:
        job: a metric rule's job: `input.checkpoint` (manifest; absent where no model is measured), `input.data`
            (dataset_info.json, or absent), `params.settings`, `params.statistics`, `params.seed`, `params.device`;
            `output.record`; wildcards study, variant and replicate, or floor; scenario in an audit.
        metric: the metric's name.

    Raises:
        InputError: a checkpoint file is not the one that was written, or CUDA is asked for and absent.
    """

    def __init__(self, job: SimpleNamespace, metric: str) -> None:
        import torch

        self._started, self._clock = datetime.now(UTC), time.perf_counter()
        self._job, self._metric = job, metric
        self.settings, self.statistics = job.params.settings, job.params.statistics
        self.checkpoint = Path(job.input.checkpoint).parent if hasattr(job.input, "checkpoint") else None
        if self.checkpoint is not None:
            verify_checkpoint(self.checkpoint)
        self.device = resolve_device(job.params.device)
        self.threads = self.settings.get("threads", job.threads)
        torch.set_num_threads(self.threads)
        self._names = {"variant": "", "replicate": "0", "scenario": "", "floor": "", **vars(job.wildcards)}
        purpose = ("floor", self._names["floor"]) if self._names["floor"] else (metric, self._names["replicate"])
        self.generator = seeded_generator(job.params.seed, *purpose)
        self.data = Path(job.input.data).parent if hasattr(job.input, "data") else None

    def write(self, values: dict[str, Value], items: pd.DataFrame | None, **facts: Any) -> None:
        """Write the record and the per-item scores; `facts` join the settings in the protocol."""
        names, checkpoint = self._names, self.checkpoint
        info = load_info(self.data) if self.data else None
        record = {
            "study": "/".join(filter(None, (names["study"], names["scenario"]))),
            "variant": names["variant"] or names["floor"],
            "replicate": int(names["replicate"]),
            "metric": self._metric,
            "values": values,
            "protocol": {
                **self.settings,
                "statistics": self.statistics,
                "seed": self._job.params.seed,
                **facts,
            },
            "checkpoint": checkpoint and {"path": checkpoint.as_posix(), "sha256": checkpoint_sha256(checkpoint)},
            "data": info and {"task": info["task"], "fingerprint": info["fingerprint"]},
            "software": dict(software_versions()),
            "device": describe_device(self.device, self.threads),
            "started_at": self._started.isoformat(timespec="seconds"),
            "duration_s": round(time.perf_counter() - self._clock, 3),
        }
        write_record(Path(self._job.output.record), record, items)
