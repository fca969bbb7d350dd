"""The smallest study file, changes to it, and the check that one is refused with a message that helps."""

import pytest
import yaml
from ffnfold.errors import InputError
from ffnfold.study import load_study, merge_settings

SMALLEST = {
    "description": "The least that a study must say.",
    "data": {
        "language_modeling": {"source": "embedded"},
        "sentiment": {"source": "embedded"},
        "summarization": {"source": "embedded"},
    },
    "variants": {"gpt2": {"method": "baseline"}},
}


def load_changed(folder, changes=None, text=None, **settings):
    """Write a study file, given as changes to the smallest one or as text, and load it."""
    content = merge_settings(SMALLEST, changes or {})
    text = yaml.safe_dump(content, sort_keys=False) if text is None else text
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return load_study({"study": "mine", **settings}, folder)


def refused(load, *parts, **arguments):
    """Assert that a study is refused with a message that holds every part and a remedy."""
    with pytest.raises(InputError) as error:
        load(**arguments)
    message = str(error.value)
    for part in (*parts, "remedy:"):
        assert part in message, message
    assert "\n" not in error.value.what and error.value.where
    return message


def nested(path, value):
    """{"a": {"b": value}} of the path "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value
