"""Finding photos: order, subsets, lists, and what the user hears when there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import write_photo
from PIL import Image

from osediff_exp.data.sample_photos import FOLDER, SampleSource, sample_photos
from osediff_exp.data.sources import ImageSource, Picture, with_unique_names
from osediff_exp.errors import UserError


def names(source: ImageSource) -> list[str]:
    return [picture.name for picture in source.pictures()]


def test_folder_is_searched_recursively_in_sorted_order(photos: Path) -> None:
    (photos / "notes.md").write_text("no image")
    (photos / "._0.png").write_bytes(b"what macOS leaves behind")
    assert names(ImageSource(root=str(photos))) == ["0", "1", "2", "3", "4", "5"]


def test_first_takes_the_sorted_head(photos: Path) -> None:
    assert names(ImageSource(root=str(photos), first=2)) == ["0", "1"]


def test_linked_folders_are_followed_once(photos: Path, tmp_path: Path) -> None:
    (photos / "more" / "loop").symlink_to(photos)
    write_photo(tmp_path / "elsewhere" / "6.png")
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    assert sorted(names(ImageSource(root=str(photos)))) == ["0", "1", "2", "3", "4", "5", "6"]


def test_text_file_lists_paths_beside_it_with_comments(photos: Path) -> None:
    (photos / "list.txt").write_text("# best ones\nmore/5.png\n\n1.png  # sharp\n")
    pictures = ImageSource(root=str(photos / "list.txt")).pictures()
    assert [picture.path for picture in pictures] == [photos / "more/5.png", photos / "1.png"]


def test_several_roots_make_one_list(photos: Path) -> None:
    assert names(ImageSource(root=[str(photos / "more"), str(photos / "3.png")])) == ["5", "3"]


def test_root_not_set_names_the_key() -> None:
    with pytest.raises(UserError, match=r"^data\.lsdir_root is not set.*data\.lsdir_root=/data/photos$"):
        ImageSource(root=None, key="data.lsdir_root").pictures()
    assert ImageSource(root=None, optional=True).pictures() == []


def test_missing_folder_names_the_nearest_sibling(photos: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.root=.*'phtos' is not in .*Did you mean 'photos'\?$"):
        ImageSource(root=str(photos.parent / "phtos" / "train")).pictures()


def test_empty_folder_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.val_root=.* holds no image"):
        ImageSource(root=str(tmp_path), key="data.val_root").pictures()


def test_binary_file_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match="one path per line"):
        ImageSource(root=str(tmp_path / "weights.bin")).pictures()


def test_names_are_made_unique() -> None:
    pictures = [Picture(Path(path), Path(path).stem) for path in ("a/1.png", "b/1.png", "b/1.jpg", "b/2.png")]
    assert [picture.name for picture in with_unique_names(pictures)] == ["1", "b-1", "1-2", "2"]


def test_sample_photos_are_colour_pictures_of_disjoint_photos() -> None:
    sizes = {"train": (384, 384), "val": (256, 256)}
    pictures = {split: SampleSource(split=split).pictures() for split in sizes}  # type: ignore[arg-type]
    assert {split: len(own) for split, own in pictures.items()} == {"train": 60, "val": 24}
    assert {picture.name for picture in pictures["train"]}.isdisjoint(picture.name for picture in pictures["val"])
    for split, own in pictures.items():
        for picture in own:
            with Image.open(picture.path) as image:
                assert (image.mode, image.size) == ("RGB", sizes[split])


def test_every_sample_photo_is_its_own_with_package_and_licence() -> None:
    photos = sample_photos()
    assert len({photo.photo for photo in photos}) == len(photos) == 84
    assert all(photo.package and photo.licence for photo in photos)
    shipped = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.webp")}
    assert shipped == {photo.file for photo in photos}
    assert sum((FOLDER / file).stat().st_size for file in shipped) < 6e6
