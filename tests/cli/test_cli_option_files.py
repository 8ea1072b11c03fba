"""Option files are read once, and a caller's changes are its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from osediff_exp.cli.compose import open_composer
from osediff_exp.cli.option_files import FileConfigSource


def test_a_file_is_read_once_and_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    real = OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", staticmethod(lambda file: reads.append(1) or real(file)))
    (tmp_path / "config.yaml").write_text("a: 1\n")
    source = FileConfigSource("main", f"file://{tmp_path}")
    first = source.load_config("config")
    first.config.a = 2
    assert (source.load_config("config").config, len(reads)) == ({"a": 1}, 1)
    (tmp_path / "config.yaml").write_text("a: 33\n")
    assert (source.load_config("config").config, len(reads)) == ({"a": 33}, 2)


def test_what_one_command_overrides_is_not_in_the_next(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("defaults: [_self_, part: one]\na: {b: 1}\n")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "one.yaml").write_text("c: [1, 2]\n")
    for value in ("5", "6"):
        with open_composer(tmp_path, []) as composer:
            assert composer.whole([f"a.b={value}", f"part.c=[{value}]"]).part.c == [int(value)]
            assert composer.reference([f"a.b={value}"]).a.b == 1
            assert composer.whole([]).part.c == [1, 2]


def test_what_is_remembered_is_what_hydra_composes(tmp_path: Path) -> None:
    """Also where files are merged onto remembered ones, and after one of them has changed."""
    (tmp_path / "config.yaml").write_text("defaults: [_self_, part: one, optional other: two]\na: {b: 1, c: null}\n")
    for name, text in {"part/one": "x: [1, 2]\n", "part/two": "x: null\n", "more/m": "# @package _global_\na: {c: {d: 1}}\n"}.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    commands = [[], ["part=two"], ["+more=m"], ["part=two", "+more=m", "a.b=2"]]
    expected = [{"a": {"b": 1, "c": None}, "part": {"x": [1, 2]}}, {"a": {"b": 1, "c": None}, "part": {"x": None}}]
    expected += [{"a": {"b": 1, "c": {"d": 1}}, "part": {"x": [1, 2]}}, {"a": {"b": 2, "c": {"d": 1}}, "part": {"x": None}}]
    for _ in range(2):
        with open_composer(tmp_path, []) as composer:
            for command, content in zip(commands, expected, strict=True):
                whole = composer.whole(command)
                assert {key: whole[key] for key in whole if key != "hydra"} == content
    (tmp_path / "part" / "two.yaml").write_text("x: changed\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "two.yaml").write_text("new: 1\n")  # looked for before, and not found
    with open_composer(tmp_path, []) as composer:
        whole = composer.whole(["part=two"])
        assert (whole.part.x, whole.other.new) == ("changed", 1)
