"""Another checkpoint, such as DistilGPT-2, measured beside the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ffnfold.architecture import family_of, layer_count
from ffnfold.errors import InputError
from ffnfold.methods import Built, Inputs


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Return the fetched checkpoint unchanged; `inputs` holds that checkpoint, not the base.

    Raises:
        InputError: its vocabulary is not `options["vocabulary_size"]`, the base's.
    """
    family_of(inputs.config)
    expected = options.get("vocabulary_size")
    if expected is not None and inputs.config["vocab_size"] != expected:
        raise InputError(
            "the checkpoint's vocabulary is not the base's",
            where=f"source: {options.get('source')}",
            got=f"{inputs.config['vocab_size']} tokens",
            expected=f"{expected} tokens, since both are measured with the base's tokenizer",
            remedy="name a checkpoint that was trained with the base's tokenizer",
        )
    return Built(dict(inputs.state), dict(inputs.config), notes={"layers": layer_count(inputs.config)})
