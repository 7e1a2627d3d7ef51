"""A Slurm cluster of one node in a folder: Debian's slurm-wlm and munge, started as processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 60
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=300
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing_programs() -> list[str]:
    """What a cluster needs and this machine lacks; all of it where it may not be started."""
    path = f"{os.environ.get('PATH', '')}:{SYSTEM}"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


@contextmanager
def slurm_cluster(folder: Path, cpus: int) -> Iterator[Mapping[str, str]]:
    """Runs a cluster while it is entered; gives the environment of its commands.

    Args:
      folder: for its files; its path must be short, since it holds a socket.
      cpus: that the node says it has.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    text = CONFIGURATION.format(
        folder=folder,
        host=socket.gethostname(),
        controller=free_port(),
        node=free_port(),
        cpus=cpus,
    )
    (folder / "slurm.conf").write_text(text)
    environment = os.environ | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{os.environ.get('PATH', '')}:{SYSTEM}",
    }
    processes = []
    try:
        munge = ["--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
        processes.append(start(["munged", *munge, *files], environment))
        wait_until(lambda: (folder / "munge.socket").exists())
        processes.append(start(["slurmctld", "-D"], environment))
        processes.append(start(["slurmd", "-D", "-N", socket.gethostname()], environment))
        wait_until(lambda: is_idle(environment))
        yield environment
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts one of the cluster's programs."""
    program = shutil.which(command[0], path=environment["PATH"])
    assert program is not None
    return subprocess.Popen(
        [program, *command[1:]],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def is_idle(environment: Mapping[str, str]) -> bool:
    """Whether the node accepts jobs."""
    command = ["sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.strip() == "idle"


def wait_until(condition) -> None:
    """Waits for something that comes soon."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the cluster did not start"
        time.sleep(0.1)


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
