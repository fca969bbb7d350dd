import ast
from pathlib import Path

import ffnfold
import pytest
from ffnfold.dependencies import library_files

PACKAGE = Path(ffnfold.__file__).parent
SCRIPTS = PACKAGE.parent / "scripts"


def names(*roots):
    return {path.relative_to(PACKAGE).as_posix() for path in library_files(*roots)}


def script(tmp_path, text):
    path = tmp_path / f"script{len(list(tmp_path.iterdir()))}.py"  # a file's imports are read once
    path.write_text(text)
    return path


def test_direct_lazy_and_transitive_imports_are_found(tmp_path):
    text = "import os\n\ndef main(job):\n    if job:\n        from ffnfold.study import load_study\n"
    found = names(script(tmp_path, text))
    assert {"__init__.py", "study.py", "settings.py", "protocols.py", "errors.py"} <= found
    assert "files.py" not in found and "training.py" not in found


def test_every_form_of_import(tmp_path):
    assert "seeding.py" in names(script(tmp_path, "import ffnfold.seeding"))
    assert "seeding.py" in names(script(tmp_path, "import numpy, ffnfold.seeding as s"))
    assert "seeding.py" in names(script(tmp_path, "from ffnfold import seeding as s"))
    assert {"metrics/__init__.py", "metrics/latency.py", "statistics.py"} <= names(
        script(tmp_path, "from ffnfold.metrics import latency")
    )
    assert names(script(tmp_path, "from ffnfold.seeding import seeded_generator")) == {"__init__.py", "seeding.py"}


def test_nothing_of_the_package_means_nothing(tmp_path):
    assert names(script(tmp_path, "import numpy\nfrom pathlib import Path\nimport ffnfoldx\n")) == set()


def test_how_a_job_is_started_is_not_tracked(tmp_path):
    found = names(script(tmp_path, "from ffnfold.jobs import run\nfrom ffnfold import preload\n"))
    assert found == {"__init__.py"}


def test_the_answer_is_sorted_and_has_no_root_in_it():
    root = PACKAGE / "records.py"
    files = library_files(root)
    assert files == sorted(files) and root not in files and all(path.is_file() for path in files)


@pytest.mark.parametrize("metric", ["parameters", "perplexity", "latency", "sentiment", "summarization"])
def test_a_metric_does_not_depend_on_another(metric):
    found = names(SCRIPTS / f"measure_{metric}.py")
    assert {name for name in found if name.startswith("metrics/")} == {"metrics/__init__.py", f"metrics/{metric}.py"}
    assert not any(name.startswith("methods/") and name != "methods/__init__.py" for name in found)
    assert {"records.py", "measurement.py", "errors.py"} <= found


def test_a_method_does_not_depend_on_another():
    found = names(SCRIPTS / "build_variant.py")
    built_in = {f"methods/{name}.py" for name in ("merge", "compress", "prune", "checkpoint", "baseline")}
    assert not built_in & found
    assert built_in & (names(PACKAGE / "methods" / "merge.py") | {"methods/merge.py"}) == {"methods/merge.py"}


def test_the_package_has_no_relative_imports():
    # They would not be followed.
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}, line {node.lineno}"


def test_a_module_left_out_takes_what_only_it_imports_with_it(tmp_path):
    root = script(tmp_path, "from ffnfold.building import build_variant\n")
    readers = ("distillation.py", "fitting.py", "training_data.py", "calibration.py", "moments.py", "validation.py")
    unused = [PACKAGE / name for name in readers]
    left = names(root) - {path.relative_to(PACKAGE).as_posix() for path in library_files(root, without=unused)}
    assert {*readers, "methods/distill.py", "training.py", "text.py", "metrics/perplexity.py"} <= left
    assert not {"checkpoints.py", "methods/__init__.py", "files.py"} & left


def test_the_rouge_module_is_an_input_though_it_is_loaded_by_path():
    rules = (PACKAGE.parents[1] / "rules/metrics.smk").read_text()
    assert 'variant_library("measure_summarization", "metrics/rouge.py")' in rules
