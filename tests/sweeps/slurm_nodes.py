"""Runs two nodes of a Slurm cluster on one machine, in their own network, for test_slurm_cluster.py.

    unshare --net --pid --fork --mount-proc --kill-child python slurm_nodes.py SWEEP_FILE SWEEP_DIR FOLDER

As root, which slurmctld wants to be. All that it starts is in this process namespace and ends with it; the second
node has one more of its own, so that it can be lost as a machine is. Prints what came of it as JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny_sweep import NODE_APART, has_begun, launcher, until

from mcjax.sweeps import attempts

ADDRESS = "10.77.0.1"  # on this network's lo only: Slurm does not resolve loopback addresses
CONFIG = """
ClusterName=test
SlurmctldHost=localhost({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort=7817
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=2
KillWait=2
MpiDefault=none
NodeName=n1 NodeHostname=localhost NodeAddr={address} Port=7818 CPUs=1
NodeName=n2 NodeHostname=localhost NodeAddr={address} Port=7819 CPUs=1
PartitionName=all Nodes=n[1-2] Default=YES State=UP
"""


def ask(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


def start(*command):
    return subprocess.Popen(command, stdout=sys.stderr)


def in_the_middle(sweep_dir):
    """The array index and folder of an attempt on the second node that has saved an unfinished stage."""
    ids = (sweep_dir / "slurm" / "0001.jobs").read_text().splitlines()
    running = ask("squeue", "--noheader", "--states=RUNNING", "--format=%K %N").splitlines()
    for index in (line.split()[0] for line in running if line.endswith(" n2")):
        folders = attempts.folders(sweep_dir / "jobs" / ids[int(index)])
        if folders and has_begun(folders[-1]):
            return index, folders[-1]
    return None


def call(*arguments):
    """A launcher's exit code and output."""
    process = launcher(*arguments, stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def main(sweep_file, sweep_dir, folder):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    (folder / "state").mkdir(parents=True)
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, address=ADDRESS))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    start("slurmctld", "-D")
    until(lambda: "n1" in ask("sinfo", "--noheader", "--Node"))
    start("slurmd", "-D", "-N", "n1")
    second = start(*NODE_APART, "slurmd", "-D", "-N", "n2")
    until(lambda: ask("sinfo", "--noheader", "--Node", "--format=%N %T").count("idle") == 2)

    sweep = ("--engine=slurm", f"--sweep={sweep_file}", f"--workdir={sweep_dir}")
    calls = [call(*sweep)]
    index, lost = until(lambda: in_the_middle(sweep_dir))
    calls.append(call(*sweep))  # queued and running jobs are not submitted again
    second.kill()
    subprocess.run(["scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=lost"], check=True)
    # A job that lost its node waits for two minutes unless an administrator resumes it.
    array = (sweep_dir / "slurm" / "0001.submitted").read_text().strip()
    subprocess.run(["scontrol", "update", f"JobId={array}_{index}", "StartTime=now"], check=True)
    until(lambda: not ask("squeue", "--noheader"), 300)
    calls.append(call(*sweep))
    print(json.dumps({"lost": str(lost), "calls": calls}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
