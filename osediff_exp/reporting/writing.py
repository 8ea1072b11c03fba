"""Writing a comparison: the data below, each file by its renderer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.reporting.comparison import Comparison, compare
from osediff_exp.reporting.cost_planes import cost_planes
from osediff_exp.reporting.files import write_atomically
from osediff_exp.reporting.html import render_page
from osediff_exp.reporting.latex import render_latex
from osediff_exp.reporting.markdown import render_markdown
from osediff_exp.reporting.picture_grid import render_grid
from osediff_exp.reporting.pictures import choose_pictures
from osediff_exp.reporting.svg_file import as_file
from osediff_exp.reporting.table_csv import render_csv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osediff_exp.reporting.settings import ReportSettings


def write_comparison(folders: Path | Sequence[Path], settings: ReportSettings | None = None, out_dir: Path | None = None) -> Comparison:
    """Write the comparison of whatever lies in ``folders`` (see :func:`compare`), each file in one step, and return it.

    Raises:
        UserError: a folder holds nothing to compare.
    """
    comparison = compare(folders, settings, out_dir)
    pictures = choose_pictures(comparison.arms)
    grid = render_grid(pictures)
    write_atomically(comparison.csv, render_csv(comparison))
    if grid is None:
        comparison.grid.unlink(missing_ok=True)
    else:
        write_atomically(comparison.grid, grid)
    planes = cost_planes(comparison)
    if planes:
        write_atomically(comparison.cost_plane, as_file(str(planes[0].svg)))
    else:
        comparison.cost_plane.unlink(missing_ok=True)
    write_atomically(comparison.markdown, render_markdown(comparison, has_grid=grid is not None))
    write_atomically(comparison.latex, render_latex(comparison))
    write_atomically(comparison.page, render_page(comparison, pictures))
    return comparison
