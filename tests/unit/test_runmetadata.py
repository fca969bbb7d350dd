import os

from ffnfold.runmetadata import COPY, NOTES, keep, restore


def note(directory, name, content):
    path = directory / NOTES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_notes_are_kept_and_come_back(tmp_path):
    note(tmp_path, "a", "1")
    note(tmp_path, "@long/b", "2")
    keep(tmp_path)
    for path in (tmp_path / NOTES / "a", tmp_path / NOTES / "@long/b"):
        path.unlink()
    (tmp_path / NOTES / "@long").rmdir()
    assert restore(tmp_path)
    assert (tmp_path / NOTES / "a").read_text() == "1" and (tmp_path / NOTES / "@long/b").read_text() == "2"


def test_notes_that_are_there_are_not_overwritten(tmp_path):
    note(tmp_path, "a", "1")
    keep(tmp_path)
    note(tmp_path, "a", "new")
    assert not restore(tmp_path)
    assert (tmp_path / NOTES / "a").read_text() == "new"


def test_a_changed_note_replaces_its_copy(tmp_path):
    path = note(tmp_path, "a", "1")
    keep(tmp_path)
    path.write_text("2")
    os.utime(path, ns=(1, 1))
    keep(tmp_path)
    assert (tmp_path / COPY / "a").read_text() == "2"


def test_without_notes_or_results_nothing_happens(tmp_path):
    keep(tmp_path)
    assert not restore(tmp_path) and list(tmp_path.iterdir()) == []
