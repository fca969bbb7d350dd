"""Where every figure of a study comes from: checkpoints, data, software, device, seed and time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

_TRACED = ("variant", "replicate", "metric", "checkpoint", "data", "device", "software", "started_at", "duration_s")


def collect_provenance(
    study: Mapping, records: Sequence[Mapping], dataset_infos: Sequence[Mapping], files: Mapping[str, bytes]
) -> dict:
    """Everything needed to trace a figure back, as plain JSON values.

    Args:
        study: name, description, seed and what else describes the study.
        records: every metric record.
        dataset_infos: the dataset_info of each task.
        files: name → content of the files the report was made from (tables, figures, published figures).

    Returns:
        study, started_at and finished_at (ISO 8601, UTC), compute_s (sum over the measurements), software, devices,
        datasets, checkpoints (variant, replicate, path, sha256), measurements, files (name → sha256).
    """
    starts = [_time(record["started_at"]) for record in records]
    ends = [start + timedelta(seconds=record["duration_s"]) for start, record in zip(starts, records, strict=True)]
    return {
        "schema_version": 1,
        "study": dict(study),
        "started_at": _iso(min(starts)) if starts else None,
        "finished_at": _iso(max(ends)) if ends else None,
        "compute_s": sum(record["duration_s"] for record in records),
        "compute_s_by_metric": _sum_by_metric(records),
        "software": _versions(record["software"] for record in records),
        "devices": _unique(dict(record["device"]) for record in records),
        "datasets": [dict(info) for info in dataset_infos],
        "checkpoints": _unique(
            {"variant": record["variant"], "replicate": record["replicate"], **record["checkpoint"]}
            for record in records
            if record["checkpoint"]
        ),
        "measurements": [{key: record[key] for key in _TRACED} for record in records],
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }


def _sum_by_metric(records: Sequence[Mapping]) -> dict[str, float]:
    total: dict[str, float] = {}
    for record in records:
        total[record["metric"]] = total.get(record["metric"], 0.0) + record["duration_s"]
    return total


def _versions(software: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Package → every version that was seen, in order of appearance; more than one is worth a reader's attention."""
    seen: dict[str, list[str]] = {}
    for versions in software:
        for package, version in versions.items():
            if str(version) not in seen.setdefault(package, []):
                seen[package].append(str(version))
    return dict(sorted(seen.items()))


def _unique(items: Iterable[dict]) -> list[dict]:
    kept: list[dict] = []
    for item in items:
        if item not in kept:
            kept.append(item)
    return kept


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
