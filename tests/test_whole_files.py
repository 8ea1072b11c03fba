"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from osediff_exp.whole_files import whole_file


def test_a_file_takes_its_name_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    with whole_file(path) as temporary:
        temporary.write_text("a")
        assert not path.exists()
    assert [(found.name, found.read_text()) for found in path.parent.iterdir()] == [("table.csv", "a")]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_ends_the_writing_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("table.csv", "old")]
