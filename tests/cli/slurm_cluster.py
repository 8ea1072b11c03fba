"""A real Slurm on this machine, for tests: one or several nodes, started as root without systemd, gone when the block ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "squeue")

# submitit asks sacct for a job's state, and sacct needs an accounting database. This answers its one question from the controller's memory.
_SACCT = r"""#!/bin/sh
echo "JobID|State|NodeList"
scontrol -o show job | sed -n 's/^JobId=\([0-9]*\) .*JobState=\([A-Z_]*\).* NodeList=\([^ ]*\).*/\1|\2|\3/p'
job='s/^JobId=[0-9]* ArrayJobId=\([0-9]*\) ArrayTaskId=\([0-9]*\)'
scontrol -o show job | sed -n "$job"' .*JobState=\([A-Z_]*\).* NodeList=\([^ ]*\).*/\1_\2|\3|\4/p'
"""

_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=3600
KillWait=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

_NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=1000 State=UNKNOWN"


def why_not() -> str | None:
    """Return why no cluster can be started here, or None."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"Slurm is not installed here: no {missing[0]} (Debian: apt install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "a Slurm cluster of one's own needs root"


@contextmanager
def cluster(folder: Path, num_nodes: int = 1) -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and a slurmd per node, all their files in ``folder``; yield the environment variables that lead there.

    The nodes are called n1, n2, ...: names that nobody resolves, so the variables also say where rank 0 is found.
    """
    names = [f"n{i + 1}" for i in range(num_nodes)]
    for name in ("state", "bin", *(f"spool.{name}" for name in names)):
        (folder / name).mkdir(parents=True)
    conf = folder / "slurm.conf"
    nodes = "\n".join(_NODE.format(name=name, host=socket.gethostname(), port=_free_port()) for name in names)
    conf.write_text(_CONF.format(host=socket.gethostname(), folder=folder, port=_free_port(), nodes=nodes))
    sacct = folder / "bin" / "sacct"
    sacct.write_text(_SACCT)
    sacct.chmod(0o755)
    variables = {"SLURM_CONF": str(conf), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "MASTER_ADDR": "127.0.0.1"}
    environment = os.environ | variables
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_start(_munged(folder), environment, folder / "munged.out"))
        _wait(lambda: (folder / "munge.socket").exists(), "munged")
        processes.append(_start(["slurmctld", "-D", "-c", "-i"], environment, folder / "slurmctld.out"))
        processes += [_start(["slurmd", "-D", "-N", name], environment, folder / f"slurmd.{name}.out") for name in names]
        _wait(lambda: _output(["sinfo", "-h", "-N", "-o", "%t"], environment).split() == [b"idle"] * num_nodes, "nodes that are idle")
        yield variables
    finally:
        subprocess.run(["scancel", "-f", "-u", "root"], env=environment, capture_output=True, check=False)
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            _end(process)


def _munged(folder: Path) -> list[str]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid", "seed-file": folder / "munge.seed"}
    options = [f"--{name}={path}" for name, path in {**files, "log-file": folder / "munged.log"}.items()]
    return ["munged", "--foreground", "--force", *options]


def _start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was told to end; a slurmd that still waits for a killed job is not waited for."""
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(ready: object, what: str) -> None:
    assert callable(ready)
    for _ in range(200):
        if ready():
            return
        time.sleep(0.1)
    raise TimeoutError(f"Slurm: waited 20 s for {what}")


def _output(command: list[str], environment: dict[str, str]) -> bytes:
    return subprocess.run(command, env=environment, capture_output=True, check=False).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
