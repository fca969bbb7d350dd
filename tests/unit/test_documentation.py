"""config/README.md: in step with the schema, complete, and its example a study that validates."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ffnfold import documentation
from ffnfold.study import load_schema, read_study, read_yaml, validate_study

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = load_schema("study")


def every_key():
    yield from documentation.walk(SCHEMA, SCHEMA)
    for name, node in SCHEMA["$defs"].items():
        yield from documentation.walk(node, SCHEMA, name)
    files = next(p for p in SCHEMA["$defs"]["task"]["properties"]["source"]["oneOf"] if "properties" in p)
    yield from documentation.walk(files, SCHEMA, "task.source")


def test_page_is_what_the_schema_generates():
    written = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert written == documentation.render(SCHEMA), "run `make docs`"


@pytest.mark.parametrize(("path", "node"), [pytest.param(path, node, id=path) for path, node in every_key()])
def test_every_key_is_described(path, node):
    assert node.get("description", "").endswith((".", "?")), path
    kinds = node.get("type", [])
    numeric = {"integer", "number"} & set(kinds if isinstance(kinds, list) else [kinds])
    assert not numeric or node.get("unit"), f"{path}: a number needs a `unit` (`none` for one without)"


@pytest.mark.parametrize(("path", "node"), [pytest.param(path, node, id=path) for path, node in every_key()])
def test_every_key_is_on_the_page(path, node):
    page = documentation.render(SCHEMA)
    key = path.rsplit(".", 1)[-1]
    assert f"| `{key}` | " in page and node["description"].replace("|", "\\|") in page


def test_links_lead_to_headings():
    page = documentation.render(SCHEMA)
    headings = {documentation.anchor(line.lstrip("# ")) for line in page.splitlines() if line.startswith("#")}
    targets = {part.split(")")[0] for part in page.split("](#")[1:]}
    assert targets <= headings


def test_the_example_validates(tmp_path):
    page = documentation.render(SCHEMA)
    blocks = [block.split("```")[0] for block in page.split("```yaml\n")[1:]]
    path = tmp_path / "example.yaml"
    path.write_text(next(b for b in blocks if b.startswith("description:")), encoding="utf-8")
    study = validate_study(read_yaml(path), "example")
    assert {"gpt2", "student", "pruned_half", "merged_2", "compressed_6"} <= set(study["variants"])


def test_types_and_defaults_in_words():
    node = {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.5}
    assert documentation.describe_type(node, SCHEMA) == "number, more than 0, at most 1"
    assert documentation.describe_default("x", node, required=False) == "`0.5`"
    assert documentation.describe_default("x", {"default": None}, required=False) == "`null`"
    assert documentation.describe_default("x", {"default": "\n"}, required=False) == '`"\\n"`'
    assert documentation.describe_default("x", {}, required=True) == "required"


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_study_validates(path):
    validate_study(read_study(path, path.parent), str(path))


def test_conda_environment_pins_the_tested_versions():
    environment = yaml.safe_load((ROOT / "envs" / "ffnfold.yaml").read_text(encoding="utf-8"))
    pins = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    tested = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert set(pins) <= set(tested)
    assert not any(pin.startswith(("ffnfold", "snakemake")) for pin in pins)
