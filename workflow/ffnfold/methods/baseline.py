"""The base itself: the reference that every other variant is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ffnfold.methods import Built, Inputs


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Return the base unchanged."""
    return Built(dict(inputs.state), dict(inputs.config))
