"""Choosing the device that models run on, and describing it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from ffnfold.errors import InputError

MEASURED_WITH = (
    "ffnfold",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "evaluate",
    "rouge-score",
)


def resolve_device(wanted: str) -> str:
    """The torch device for `auto`, `cpu` or `cuda`.

    Raises:
        InputError: CUDA is asked for and absent.
    """
    import torch

    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise InputError(
            "CUDA was asked for, and this machine has no usable GPU",
            where="device",
            got=f"torch {torch.__version__} sees no CUDA device",
            expected="a GPU with a working driver and a CUDA build of torch",
            remedy="set `device: auto` or `device: cpu`, e.g. --config 'overrides={device: cpu}'",
        )
    return "cpu"


def describe_device(device: str, threads: int) -> dict[str, Any]:
    """Type, name and CPU threads, as the metric record keeps them."""
    if device.startswith("cuda"):
        import torch

        return {"type": "cuda", "name": torch.cuda.get_device_name(0), "threads": threads}
    return {"type": "cpu", "name": f"{platform.system()} {platform.machine()}", "threads": threads}


def software_versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that shape a figure."""
    return {"python": platform.python_version(), **{name: version(name) for name in MEASURED_WITH}}
