"""A real SLURM on this machine: a controller and four nodes, in a folder of their own, as root.

    python tests/slurm/cluster.py FOLDER     starts it and tells how to use it; Ctrl-C ends it

It needs Debian's packages slurm-wlm and munge, and touches neither their configuration nor other instances of them:
the key, the sockets, the ports and all files are its own. Nothing accounts for anything and nothing is confined: a node
is a slurmd with a port of its own, and all nodes share the cores of this machine.

Jobs of the partition `high` take the place of those of `low`, the default, which are queued again.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
NODES = ("n1", "n2", "n3", "n4")
PATIENCE = 60  # seconds until a cluster that does not start, or does not end, fails its test

# cred_expire is also how many seconds a task waits that is queued again: 120 by default.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=1,sched_min_interval=100000
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=5
SlurmctldTimeout=6
KillWait=10
MessageTimeout=3
BatchStartTimeout=1
MinJobAge=600
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def reason_to_skip():
    """Why no cluster can be started here; "" where one can."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{missing[0]} is not installed (apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "SLURM is started as root, and this is another user"
    return ""


def find_free_ports(count):
    """So many ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Cluster:
    """A cluster that runs for as long as this is entered.

    Args:
        folder: for all its files; made where it is not there.
        cores: of each node, which are not kept from other nodes.

    Attributes:
        folder: the argument.
        daemons: the processes of the cluster by their names: "munged", "slurmctld" and the nodes.
    """

    def __init__(self, folder: Path, *, cores: int = 1):
        self.folder, self.cores = folder.absolute(), cores
        self.daemons: dict[str, subprocess.Popen] = {}

    @property
    def environment(self):
        """The variables by which SLURM's commands find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self):
        (self.folder / "state").mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        controller_port, *ports = find_free_ports(1 + len(NODES))
        nodes = [
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={self.cores} State=UNKNOWN"
            for name, port in zip(NODES, ports, strict=True)
        ]
        text = CONFIGURATION.format(folder=self.folder, controller_port=controller_port, nodes="\n".join(nodes))
        (self.folder / "slurm.conf").write_text(text)
        try:
            for name in ("munged", "slurmctld", *NODES):
                self.start(name)
            self.wait_for_nodes()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, name):
        """Starts one of the daemons; the controller goes on with the jobs that it has written down."""
        command = [name, "-D"]
        if name == "munged":
            files = {"key-file": "key", "socket": "socket", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
            command = [name, "--foreground", "--force"]  # it does not like folders that only root may enter
            command += [f"--{option}={self.folder}/munge.{ending}" for option, ending in files.items()]
        elif name in NODES:
            command = ["slurmd", "-D", "-N", name]
        with (self.folder / "daemons.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.environment}
            )
        if name == "munged":
            self.wait_until(lambda: (self.folder / "munge.socket").exists())

    def kill(self, name):
        """Kills a daemon as a power cut does; of a node the processes of its tasks, too."""
        if name in NODES:
            for pid in self.find_processes(SLURMD_NODENAME=name):
                kill_process(parent_of(pid))  # the slurmstepd that looks after the task
                kill_process(pid)
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def find_processes(self, **variables):
        """The processes that were started with the variables of this cluster, and with these."""
        wanted = {f"{name}={value}".encode() for name, value in {**self.environment, **variables}.items()}
        pids = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has ended
                if wanted <= set(path.read_bytes().split(b"\0")):
                    pids.append(int(path.parent.name))
        return pids

    def run(self, *words):
        """What a command of SLURM prints."""
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=PATIENCE, env={**os.environ, **self.environment}
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def answers(self, *words):
        """Whether a command of SLURM succeeds."""
        done = subprocess.run(
            words, capture_output=True, check=False, timeout=PATIENCE, env={**os.environ, **self.environment}
        )
        return done.returncode == 0

    def wait_for_nodes(self):
        """Waits until the controller answers and all nodes are idle."""

        def is_ready():
            done = subprocess.run(
                ["sinfo", "--noheader", "--Node", "--partition=low", "--format=%T"],
                capture_output=True, text=True, check=False, env={**os.environ, **self.environment},
            )  # fmt: skip
            return done.stdout.split() == ["idle"] * len(NODES)

        self.wait_until(is_ready)

    def wait_until(self, is_reached, patience=PATIENCE):
        """Waits until something is so."""
        deadline = time.monotonic() + patience
        while not is_reached():
            assert time.monotonic() < deadline, self.describe()
            time.sleep(0.1)

    def describe(self):
        """What went on, for the message of a test that failed."""
        texts = []
        for path in sorted(self.folder.glob("*.log")):
            texts.append(f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-30:]))
        return "\n".join(texts)

    def stop(self):
        """Ends all tasks and all daemons."""
        for name in reversed(list(self.daemons)):
            daemon = self.daemons.pop(name)
            daemon.terminate()
            try:
                daemon.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self.find_processes():  # of tasks, which outlive the daemons
            kill_process(pid)
        self.wait_until(lambda: not self.find_processes())


def kill_process(pid):
    """Kills a process; nothing happens where it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def parent_of(pid):
    """The process that started another one."""
    _, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")  # behind the name, which may hold blanks
    return int(fields.split()[1])


def main():
    """Starts a cluster for a person, until Ctrl-C."""
    reason = reason_to_skip()
    if reason:
        sys.exit(reason)
    with Cluster(Path(sys.argv[1])) as cluster:
        for name, value in cluster.environment.items():
            print(f"export {name}={value}")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
