"""Write a sweep's figures into its page of the notebook: python tools/notebook_page.py SWEEP experiments/NAME

SWEEP is a finished sweep's folder (a report of several: task=report's). Replaced in experiments/NAME/README.md is all from
`## Figures` on: tables, legend, differences, published values, picture, costs. Above it stands what a person writes: question,
command, setting, verdict. results.csv and grid.jpg beside it are replaced too. Figures are copied, never rounded or chosen.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from PIL import Image

MAX_WIDTH = 1800
SHRINK = 0.75


def sections(page: str) -> dict[str, str]:
    """Return comparison.md by its headings of level 2; what stands before the first is ''."""
    title, *rest = re.split(r"^## ", page, flags=re.MULTILINE)
    return {"": title} | {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in rest}


def first_table(text: str) -> str:
    return "\n".join(line for line in text.partition("\n\n")[0].splitlines() if line.startswith("|"))


def figures(page: str, picture: str) -> str:
    """Return the part of a notebook page that comparison.md gives."""
    parts = sections(page)
    if "Not finished" in parts:
        sys.exit("the sweep has arms that are not finished: run its command again first")
    table = parts[""][parts[""].index("\n| Arm |") :].strip()
    body = ["## Figures", table]
    for heading, text in parts.items():
        if heading.startswith("Differences from") or heading == "Published values":
            kept = re.split(r"^(?:!\[|- note)", text, flags=re.MULTILINE)[0].strip()
            body.append(f"### {heading}\n\n{kept}")
    cost = first_table(parts["Cost"])
    if found := re.search(r"^### Measured.*?(?=^### |\Z)", parts["Cost"], flags=re.MULTILINE | re.DOTALL):  # beside the paper's Table 2
        cost += f"\n\n{found[0].strip()}"
    body += [picture, f"## Cost\n\n{cost}"]
    return "\n\n".join(body) + "\n"


def main(sweep: Path, folder: Path) -> None:
    page = (sweep / "comparison.md").read_text(encoding="utf-8")
    readme = folder / "README.md"
    head, heading, _ = readme.read_text(encoding="utf-8").partition("\n## Figures\n")
    if not heading:
        sys.exit(f"{readme} has no heading '## Figures': write the page's head first")
    with Image.open(sweep / "comparison_grid.png") as grid:
        scale = min(SHRINK, MAX_WIDTH / grid.width)
        size = (round(grid.width * scale), round(grid.height * scale))
        grid.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(folder / "grid.jpg", quality=82)
    shutil.copy(sweep / "comparison.csv", folder / "results.csv")
    alt = "The same pictures by every arm, seed 1"
    readme.write_text(f"{head}\n{figures(page, f'![{alt}](grid.jpg)')}", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
