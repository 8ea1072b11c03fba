"""What a run folder remembers of its W&B run, and whether this machine has a W&B key. Needs neither torch nor Lightning."""

from __future__ import annotations

import json
import netrc
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

_FILE = Path("wandb") / "record.json"
_USUAL_HOST = "api.wandb.ai"


@dataclass(frozen=True, kw_only=True)
class WandbRecord:
    """The W&B run of a run folder.

    Attributes:
        id: W&B's name of the run; a resumed training goes on under it.
        project, entity, group: where it is found; ``entity`` is None where the server's default is meant.
        uploaded: whether W&B has said that everything arrived; else ``wandb sync`` has something to send.
        url: its page, where the run was online.
    """

    id: str
    project: str
    entity: str | None = None
    group: str | None = None
    uploaded: bool = False
    url: str | None = None


def write_record(folder: Path, record: WandbRecord) -> None:
    """Write ``wandb/record.json`` in a run folder."""
    path = folder / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_record(folder: Path) -> WandbRecord | None:
    """Return the record of a run folder, or None where there is none that can be read."""
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return WandbRecord(**{item.name: found[item.name] for item in fields(WandbRecord) if item.name in found})
    except (OSError, ValueError, TypeError):
        return None


def unsent_folders(folder: Path) -> list[Path]:
    """Return W&B's own folders below a run folder that ``wandb sync`` has yet to send."""
    record = read_record(folder)
    kinds = ("offline-run-*",) if record is not None and record.uploaded else ("offline-run-*", "run-*")
    found = [path for kind in kinds for path in folder.glob(f"wandb/{kind}") if path.is_dir()]
    return sorted(path for path in found if not any(path.glob("*.wandb.synced")))


def chosen_mode(mode: str) -> str:
    """Return what ``auto`` means here: what WANDB_MODE says, else online with a key and offline without; other modes stay."""
    if mode != "auto":
        return mode
    asked = os.environ.get("WANDB_MODE", "")
    return asked if asked in ("online", "offline", "disabled") else "online" if has_key() else "offline"


def has_key() -> bool:
    """Tell whether a W&B key is there, in the environment or by a login."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        known = netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any(host in known for host in {_host(), _USUAL_HOST})


def _host() -> str:
    """Return the host that W&B will talk to: the environment's, else that of its own settings files and defaults."""
    url = os.environ.get("WANDB_BASE_URL")
    if not url:
        import wandb

        url = wandb.setup().settings.base_url
    return urlsplit(url).netloc
