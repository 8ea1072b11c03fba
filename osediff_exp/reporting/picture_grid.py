"""The validation pictures of all arms as one PNG with headings."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from osediff_exp.picture_header import open_picture
from osediff_exp.reporting.pictures import load_picture

if TYPE_CHECKING:
    from pathlib import Path

    from osediff_exp.reporting.pictures import Pictures

_MAX_CELL = 256
_MIN_CELL = 128
_GAP = 6
_LINE = 18
_MAX_LINES = 3
_PAPER, _INK, _HOLE = (255, 255, 255), (25, 28, 33), (232, 234, 237)


def render_grid(pictures: Pictures, max_rows: int = 6) -> bytes | None:
    """Return the PNG of ``max_rows`` pictures, spread evenly over all, or None where there is none.

    All cells have one size: that of the largest picture, within 128 and 256 pixels. Smaller pictures are enlarged without smoothing.
    """
    names = _spread(pictures.names, max_rows)
    if not names:
        return None
    cell = _cell_size([column.files[name] for column in pictures.columns for name in names if name in column.files])
    font = ImageFont.load_default(size=13)
    headings = [_wrap(column.title, cell, font) for column in pictures.columns]
    top = max(len(lines) for lines in headings) * _LINE + _GAP
    sheet = Image.new("RGB", (_place(len(headings), cell), top + _place(len(names), cell)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(headings):
        draw.multiline_text((_place(column, cell), _GAP), "\n".join(lines), fill=_INK, font=font, spacing=3)
        for row, name in enumerate(names):
            sheet.paste(_tile(pictures.columns[column].files.get(name), cell), (_place(column, cell), top + _place(row, cell)))
    data = io.BytesIO()
    sheet.save(data, format="PNG", compress_level=1)  # a tenth larger than the default and several times faster
    return data.getvalue()


def _spread(names: list[str], count: int) -> list[str]:
    """Return ``count`` names, first and last among them: neighbours are often crops of one photo."""
    if len(names) <= count:
        return names
    return [names[round(k * (len(names) - 1) / (count - 1))] for k in range(count)]


def _place(index: int, cell: int) -> int:
    return _GAP + index * (cell + _GAP)


def _cell_size(files: list[Path]) -> int:
    return min(_MAX_CELL, max([_MIN_CELL, *map(_longest_side, files)]))


def _longest_side(path: Path) -> int:
    try:
        with open_picture(path) as image:  # reads the header only
            return max(image.size)
    except (OSError, SyntaxError, ValueError):
        return 0


def _tile(path: Path | None, cell: int) -> Image.Image:
    tile = Image.new("RGB", (cell, cell), _HOLE)
    image = load_picture(path) if path else None
    if image is not None:
        ratio = cell / max(image.size)
        size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        scaled = image.resize(size, Image.Resampling.NEAREST if ratio >= 1 else Image.Resampling.LANCZOS)
        tile.paste(scaled, ((cell - size[0]) // 2, (cell - size[1]) // 2))
    return tile


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break ``text`` after spaces, commas, slashes and equals signs, else anywhere; cut after three lines."""
    lines = [""]
    for word in re.split(r"(?<=[ ,/=])", " ".join(text.split())):
        pieces = [word] if font.getlength(word.strip()) <= width else list(word)
        for piece in pieces:
            if font.getlength((lines[-1] + piece).strip()) > width:
                lines.append("")
            lines[-1] += piece
    lines = [line.strip() for line in lines]
    return lines if len(lines) <= _MAX_LINES else [*lines[: _MAX_LINES - 1], lines[_MAX_LINES - 1][:-3] + "..."]
