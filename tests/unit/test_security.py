"""What must not happen whatever a study, a checkpoint or a data file says."""

import json
import re
from pathlib import Path

import pytest
from ffnfold import checkpoints

ROOT = Path(__file__).resolve().parents[2]
RULES = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
CODE = sorted((ROOT / "workflow").rglob("*.py"))
FORBIDDEN = {
    "pickle": r"\bpickle\b(?!d)",
    "torch.load": r"torch\.load\(",
    "torch.save": r"torch\.save\(",
    "remote code": r"trust_remote_code\s*=\s*(?!False)",
    "eval": r"(?<![.\w])eval\(",
    "exec": r"(?<![.\w])exec\(",
    "a shell": r"shell\s*=\s*True|os\.system\(|os\.popen\(",
    "unsafe YAML": r"yaml\.(unsafe_load|full_load|load)\((?!stream, Loader=_UniqueKeyLoader)",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_library_never_uses(what):
    code = {path.name: re.sub(r'""".*?"""', "", path.read_text(), flags=re.S) for path in CODE}
    assert code and [name for name, text in code.items() if re.search(FORBIDDEN[what], text)] == []


def test_no_rule_has_a_shell_or_inline_code():
    """Names from a study reach scripts as arguments; no rule hands them to a shell."""
    for path in RULES:
        assert not re.search(r"^\s+(shell|run|notebook|wrapper):", path.read_text(), flags=re.M), path.name


EVIL = """
from pathlib import Path
Path({trace!r}).write_text("ran")
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
class EvilConfig(GPT2Config): pass
class EvilModel(GPT2LMHeadModel): pass
class EvilTokenizer(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def evil(tmp_path, make_gpt2, tokenizer_directory):
    """A checkpoint folder that asks for its own code to be run, and the file that this code would write."""
    folder, trace = tmp_path / "evil", tmp_path / "trace"
    checkpoints.save_model(folder, make_gpt2(), tokenizer_directory)
    (folder / "manifest.json").unlink()
    (folder / "evil.py").write_text(EVIL.format(trace=str(trace)))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "evil.EvilConfig",
        "AutoModelForCausalLM": "evil.EvilModel",
        "AutoModelForSequenceClassification": "evil.EvilModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    names = json.loads((folder / "tokenizer_config.json").read_text())
    names["auto_map"] = {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder, trace


def test_a_checkpoint_cannot_have_its_code_run(evil, tmp_path):
    folder, trace = evil
    checkpoints.load_model(folder)
    checkpoints.load_tokenizer(folder)
    checkpoints.fetch_checkpoint(str(folder), None, tmp_path / "out")
    checkpoints.load_model(tmp_path / "out")
    assert not trace.exists()
    assert "auto_map" not in (tmp_path / "out/config.json").read_text()
    assert not (tmp_path / "out/evil.py").exists()
