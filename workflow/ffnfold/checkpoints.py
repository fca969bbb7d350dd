"""Checkpoints on disk: safetensors only, written atomically, with a manifest; pickled weights are never read."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnfold import hub
from ffnfold.architecture import FAMILIES, SHARED_SUFFIX, Family, family_of
from ffnfold.errors import InputError
from ffnfold.files import (
    CONFIG,
    MANIFEST,
    SUPPORTED,
    TOKENIZER_FILES,
    WEIGHTS,
    atomic_path,
    check_config,
    check_vocabulary,
    inspect_local,
    load_config,
    not_safetensors,
    read_header,
    read_json,
    sha256_file,
    tokenizer_length,
    weight_files,
    write_atomic,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "checkpoint_sha256",
    "fetch_checkpoint",
    "inspect_local",
    "load_config",
    "load_model",
    "load_state",
    "load_tokenizer",
    "read_json",
    "save_checkpoint",
    "save_model",
    "sha256_file",
    "tokenizer_length",
    "verify_checkpoint",
    "write_atomic",
    "write_json",
]

COPIED_FILES = (*TOKENIZER_FILES, "generation_config.json")
_LEGACY_BUFFER = re.compile(r"(^|\.)(attn|attention)\.((masked_)?bias|rotary_emb\.inv_freq)$")
_STORED_NAMES = {
    family.model_type: {family.head: family.stored_head} for family in FAMILIES.values() if family.stored_head
}
_LOADED_NAMES = {stored: name for names in _STORED_NAMES.values() for name, stored in names.items()}


# --------------------------------------------------------------------------------------------------- writing


def save_checkpoint(
    directory: str | Path,
    state: dict[str, Tensor],
    config: dict[str, Any],
    tokenizer_directory: str | Path | None,
) -> None:
    """Write a checkpoint folder, each file atomically and the manifest last; the same input gives the same bytes.

    Args:
        directory: folder to write, made if absent.
        state: tensors by name; those that share memory are stored as copies, so pass each tied tensor once. The
            head of a stock family takes the name that all of its loaders know (`Family.stored_head`).
        config: content of config.json.
        tokenizer_directory: folder whose tokenizer files are copied; None for a checkpoint without them.
    """
    from safetensors.torch import save_file

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    stored = _STORED_NAMES.get(config.get("model_type"), {})
    (directory / MANIFEST).unlink(missing_ok=True)  # an interrupted rewrite must not look complete
    with atomic_path(directory / WEIGHTS) as temporary:
        save_file(_separate(_renamed(state, stored)), temporary, metadata={"format": "pt"})
    write_json(directory / CONFIG, config)
    written = [WEIGHTS, CONFIG]
    for name in COPIED_FILES:
        original = None if tokenizer_directory is None else Path(tokenizer_directory) / name
        if original is not None and original.is_file():
            write_atomic(directory / name, original.read_bytes())
            written.append(name)
        else:
            (directory / name).unlink(missing_ok=True)  # left by an earlier checkpoint in this folder
    files = {
        name: {"sha256": sha256_file(directory / name), "size_bytes": (directory / name).stat().st_size}
        for name in written
    }
    write_json(directory / MANIFEST, {"files": files})


def _renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    return {names.get(name, name): tensor for name, tensor in state.items()}


def _separate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, no two of which share memory."""
    seen: set[int] = set()
    separate = {}
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        if pointer in seen or tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()
            pointer = tensor.untyped_storage().data_ptr()
        seen.add(pointer)
        separate[name] = tensor
    return separate


def save_model(directory: str | Path, model: Any, tokenizer_directory: str | Path | None) -> None:
    """Write a transformers model by `save_checkpoint`, each tied tensor once (GPT-2's head under its embedding's name).

    Args:
        directory: folder to write.
        model: a transformers model; not changed.
        tokenizer_directory: folder whose tokenizer files are copied, or None.
    """
    config = json.loads(model.config.to_json_string(use_diff=True))
    config.pop("_name_or_path", None)
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    save_checkpoint(directory, _untied_state(model), config, tokenizer_directory)


def _untied_state(model: Any) -> dict[str, Tensor]:
    """The model's state without the names that are tied to another name of it."""
    state = dict(model.state_dict())
    for target, origin in model.all_tied_weights_keys.items():
        same = target in state and origin in state and state[target].data_ptr() == state[origin].data_ptr()
        if same and target != origin:
            del state[target]
    return state


# --------------------------------------------------------------------------------------------------- reading


def verify_checkpoint(directory: str | Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        InputError: a file is missing or its bytes changed; names the file and both sha256.
    """
    for name, entry in read_json(Path(directory) / MANIFEST)["files"].items():
        path = Path(directory) / name
        found = sha256_file(path) if path.is_file() else "no file"
        if found != entry["sha256"]:
            raise InputError(
                "a checkpoint file is not the one that was written",
                where=str(path),
                got=f"sha256 {found}",
                expected=f"sha256 {entry['sha256']}",
                remedy=f"delete {directory} and run the workflow again",
            )


def checkpoint_sha256(directory: str | Path) -> str:
    """The sha256 of a checkpoint's weights, as its manifest has it."""
    return read_json(Path(directory) / MANIFEST)["files"][WEIGHTS]["sha256"]


def load_state(directory: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names in the model, in their stored type.

    Raises:
        InputError: no safetensors file, or one that is truncated.
    """
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for path in weight_files(directory):
        read_header(path)
        state.update(load_file(path))
    return _renamed(state, _LOADED_NAMES)


def load_model(directory: str | Path, auto_class: str = "causal_lm", **options: Any) -> Any:
    """Load a checkpoint as a transformers model in evaluation mode, every stored tensor used and none made up.

    Args:
        directory: checkpoint folder.
        auto_class: "causal_lm" or "sequence_classification"; the latter's fresh head is drawn from torch's global
            generator, so seed it first.
        options: passed to `from_pretrained`; `dtype` is float32 unless given.

    Raises:
        InputError: an unknown model type, or a tensor is missing, unexpected or of another shape.
    """
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    config = load_config(directory)
    family = family_of(config)
    if config["model_type"].endswith(SHARED_SUFFIX):
        import ffnfold.sharing  # noqa: F401  # registers the classes of tied FFNs

    names = {"causal_lm": "AutoModelForCausalLM", "sequence_classification": "AutoModelForSequenceClassification"}
    for path in weight_files(directory):
        read_header(path)
    arguments = {"dtype": torch.float32, **options}
    try:
        model, info = getattr(transformers, names[auto_class]).from_pretrained(
            str(directory),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **arguments,
        )
    except (OSError, ValueError, RuntimeError, StrictDataclassError) as error:
        what = "the checkpoint cannot be loaded"
        raise InputError(what, where=str(directory), got=error, remedy="check config.json and the weights") from error
    classifier = auto_class == "sequence_classification"
    fresh, unused = ({"score.weight"}, family.unused_in_classifier) if classifier else ((), ())
    missing = sorted(set(info["missing_keys"]).difference(fresh))
    surplus = sorted(set(info["unexpected_keys"]).difference(unused))
    if missing or surplus or info["mismatched_keys"]:
        raise InputError(
            "the weights do not fit the configuration",
            where=str(directory),
            got=f"missing: {missing[:3]}, unexpected: {surplus[:3]}, other shape: {list(info['mismatched_keys'])[:3]}",
            expected="every tensor of the model and no other",
            remedy=_shape_remedy(family),
        )
    return model.eval()


def _shape_remedy(family: Family) -> str:
    return f"check config.json ({family.layers_key}, {family.hidden_size_key}, vocab_size) against the weights"


def load_tokenizer(directory: str | Path) -> Any:
    """Load a checkpoint's tokenizer, its length checked against config.json where there is one.

    The padding token is the end-of-text token where none is set.

    Raises:
        InputError: no tokenizer, an empty one, one without an end-of-text token, or one of another vocabulary.
    """
    from transformers import AutoTokenizer

    directory = Path(directory)
    tokenizer_length(directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError("the tokenizer cannot be loaded", where=str(directory), got=error) from error
    if (directory / CONFIG).is_file():
        check_vocabulary(len(tokenizer), load_config(directory).get("vocab_size", 50257), str(directory))
    elif len(tokenizer) == 0:
        raise InputError("the tokenizer is empty", where=str(directory), expected="at least one entry")
    if tokenizer.eos_token is None:
        raise InputError(
            "the tokenizer has no end-of-text token",
            where=str(directory / "tokenizer_config.json"),
            expected='an `eos_token`, "<|endoftext|>" for GPT-2 and Pythia',
            remedy="name it in tokenizer_config.json",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


# --------------------------------------------------------------------------------------------------- taking in


def fetch_checkpoint(
    source: str | Path,
    revision: str | None,
    directory: str | Path,
    tokenizer_source: str | Path | None = None,
    tokenizer_revision: str | None = None,
    supported: Collection[str] = SUPPORTED,
) -> None:
    """Take in a checkpoint from the hub or a folder and write it in canonical form: float32, full names, one file.

    Args:
        source: hub id or checkpoint folder.
        revision: commit, branch or tag of a hub id; not used for a folder.
        directory: folder to write.
        tokenizer_source: hub id or folder of the tokenizer; None for the checkpoint's own.
        tokenizer_revision: revision of a hub `tokenizer_source`.
        supported: model types that can be read.

    Raises:
        InputError: not found, another architecture, not safetensors, truncated, weights that do not fit the
            configuration, or a tokenizer of another vocabulary.
    """
    folder = _resolve(source, revision, supported)
    if tokenizer_source is None:
        tokenizer_folder = folder
    elif hub.is_hub_id(tokenizer_source):
        tokenizer_folder = hub.download_checkpoint(str(tokenizer_source), tokenizer_revision, weights=False)
    else:
        tokenizer_folder = Path(tokenizer_source)
    config = inspect_local(folder, supported, tokenizer_folder)
    state = _canonical_state(load_state(folder), config, str(source))
    config = {key: value for key, value in config.items() if key not in ("torch_dtype", "_name_or_path", "auto_map")}
    with tempfile.TemporaryDirectory() as scratch:
        load_tokenizer(tokenizer_folder).save_pretrained(scratch)
        generation = folder / "generation_config.json"
        if generation.is_file():
            write_atomic(Path(scratch) / generation.name, generation.read_bytes())
        save_checkpoint(directory, state, {**config, "dtype": "float32"}, scratch)
    check_vocabulary(len(load_tokenizer(directory)), config.get("vocab_size", 50257), str(tokenizer_folder))


def _resolve(source: str | Path, revision: str | None, supported: Collection[str]) -> Path:
    """The local folder of a source; a hub repository's configuration is judged before its weights are fetched."""
    if not hub.is_hub_id(source):
        return Path(source)
    source = str(source)
    small = hub.download_checkpoint(source, revision, weights=False)
    check_config(load_config(small), supported, f"{source}/{CONFIG}")
    folder = hub.download_checkpoint(source, revision)
    if not any(folder.glob("*.safetensors")):
        raise not_safetensors(source, hub.list_weight_files(source, revision))
    return folder


def _canonical_state(state: dict[str, Tensor], config: dict[str, Any], where: str) -> dict[str, Tensor]:
    """Float32 tensors under the names of the whole language model, each tied tensor once.

    Args:
        state: tensors of `load_state`; older checkpoints lack the model's prefix (`transformer.`) and store attention
            masks and rotary frequencies.
        config: content of config.json.
        where: the source's name, for messages.

    Raises:
        InputError: a tensor is missing, unexpected, of another shape, or an untied head.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {key: value for key, value in config.items() if key not in ("model_type", "auto_map")}
    try:
        with torch.device("meta"):
            blank = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **options))
    except (ValueError, TypeError, RuntimeError, AttributeError, StrictDataclassError) as error:
        raise InputError("the configuration does not describe a model", where=f"{where}/{CONFIG}", got=error) from error
    tied = {target: origin for target, origin in blank.all_tied_weights_keys.items() if target != origin}
    shapes = {name: tuple(tensor.shape) for name, tensor in blank.state_dict().items() if name not in tied}
    prefix = f"{blank.base_model_prefix}."
    named = {}
    for name, tensor in state.items():
        if not _LEGACY_BUFFER.search(name):
            named[prefix + name if prefix + name in shapes else name] = tensor
    for target, origin in tied.items():
        head = named.pop(target, None)
        if head is not None and origin in named and not torch.equal(head, named[origin]):
            raise InputError("the output head is not tied to the embedding", where=f"{where}: {target}")
    problems = [f"{name} is missing" for name in shapes if name not in named]
    problems += [f"{name} is unexpected" for name in named if name not in shapes]
    problems += [
        f"{name} has shape {tuple(tensor.shape)}, not {shapes[name]}"
        for name, tensor in named.items()
        if name in shapes and tuple(tensor.shape) != shapes[name]
    ]
    if problems:
        raise InputError(
            "the weights do not fit the configuration",
            where=where,
            got="; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else ""),
            expected="every tensor of the model and no other",
            remedy=_shape_remedy(family_of(config)),
        )
    return {name: tensor.to(torch.float32) for name, tensor in named.items()}
