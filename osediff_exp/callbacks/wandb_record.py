"""What a run folder remembers of its W&B run, and whether this machine has a W&B key. Needs neither torch nor Lightning."""

from __future__ import annotations

import json
import netrc
import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

_FILE = Path("wandb") / "record.json"
_USUAL_HOST = "api.wandb.ai"


@dataclass(frozen=True, kw_only=True)
class WandbRecord:
    """The W&B run of a run folder.

    Attributes:
        id: W&B's name of the run; whatever runs later in the folder goes on under it.
        project, entity, group: where it is found; ``entity`` is None where the server's default is meant.
        uploaded: whether W&B has said that everything arrived; else ``wandb sync`` has something to send.
        url: its page, where the run was online.
        files: name of W&B's own folder of the last start, which holds the whole history; empty where it is not known.
        pictures: names of the pictures under ``val/pictures``, in order.
    """

    id: str
    project: str
    entity: str | None = None
    group: str | None = None
    uploaded: bool = False
    url: str | None = None
    files: str = ""
    pictures: tuple[str, ...] = ()


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
        known = {item.name: found[item.name] for item in fields(WandbRecord) if item.name in found}
        return WandbRecord(**known | {"pictures": tuple(known.get("pictures", ()))})
    except (OSError, ValueError, TypeError):
        return None


def unsent_folders(folder: Path) -> list[Path]:
    """Return W&B's own folders below a run folder that ``wandb sync`` has yet to send: the last one of each run id.

    The last one holds the whole history. An earlier one must not be sent: it would replace what is on the server.
    """
    record = read_record(folder)
    if record is not None and record.uploaded:
        return []
    found = [path for kind in ("offline-run-*", "run-*") for path in folder.glob(f"wandb/{kind}") if path.is_dir()]
    if record is not None and record.files:
        last = {path for path in found if path.name == record.files}
    else:
        last = set({_id(path): path for path in sorted(found, key=_start)}.values())
    return sorted(path.absolute() for path in last if not any(path.glob("*.wandb.synced")))


def sync_command(folders: Iterable[Path]) -> str:
    """Return the command that sends W&B's own ``folders``; it works in any folder and without an activated environment."""
    return shlex.join([sys.executable, "-m", "wandb", "sync", "--include-online", *(str(path.absolute()) for path in folders)])


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
    return any(host in known for host in {urlsplit(server_url()).netloc, _USUAL_HOST})


def server_url() -> str:
    """Return the address that W&B will talk to: the environment's, else that of its own settings files and defaults."""
    url = os.environ.get("WANDB_BASE_URL")
    if not url:
        import wandb

        url = str(wandb.setup().settings.base_url)
    return url


def _start(path: Path) -> str:
    return path.name.removeprefix("offline-")


def _id(path: Path) -> str:
    return path.name.rpartition("-")[2]
