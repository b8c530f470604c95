"""Runs two nodes of a Ray cluster on one machine, in their own network, for test_ray_engine.py.

    unshare --net --pid --fork --mount-proc --kill-child python ray_nodes.py SWEEP_FILE SWEEP_DIR

All processes are in this process namespace and end with it. The second node has its own namespace inside, so
that all its processes can end at once, like those of a lost machine. Prints the outcome as JSON.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import ray
from tiny_sweep import NODE_APART, has_begun, launcher, until

HEAD, SECOND, PORT = "127.0.0.2", "127.0.0.3", 6390


def start_node(*args, apart=()):
    return subprocess.Popen(
        [
            *(*apart, str(Path(sys.executable).with_name("ray")), "start", *args, "--block"),
            *("--num-cpus=2", "--object-store-memory=100000000"),
        ],
        stdout=sys.stderr,
    )


def below():
    """The command lines of all processes in this namespace and the one inside."""
    found = {True: [], False: []}
    own = os.readlink("/proc/self/ns/pid")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            here = os.readlink(f"/proc/{pid}/ns/pid") == own
            found[here].append(Path(f"/proc/{pid}/cmdline").read_text())
        except OSError:
            continue
    return found[True], found[False]


def in_the_middle(sweep_dir):
    """An attempt on the second node that has saved an unfinished stage."""
    _, there = below()
    for folder in (sweep_dir / "jobs").glob("*/attempts/*"):
        if any(f"--workdir={folder}" in line for line in there) and has_begun(folder):
            return folder
    return None


def training(sweep_dir):
    here, there = below()
    return [line for line in here + there if f"{sweep_dir}/jobs" in line]


def nodes():
    try:
        ray.init(f"{HEAD}:{PORT}", logging_level="error", log_to_driver=False)
        return sum(node["Alive"] for node in ray.nodes())
    except (ConnectionError, RuntimeError):
        return 0
    finally:
        ray.shutdown()


def main(sweep_file, sweep_dir):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    start_node("--head", f"--node-ip-address={HEAD}", f"--port={PORT}", "--include-dashboard=false")
    until(lambda: nodes() == 1)
    second = start_node(f"--address={HEAD}:{PORT}", f"--node-ip-address={SECOND}", apart=NODE_APART)
    until(lambda: nodes() == 2)

    sweep = (f"--sweep={sweep_file}", f"--workdir={sweep_dir}")
    sweep = (*sweep, "--engine=ray", f"--address={HEAD}:{PORT}")
    first = launcher(*sweep)
    until(lambda: in_the_middle(sweep_dir))
    first.send_signal(signal.SIGINT)
    interrupted = first.wait(60)
    until(lambda: not training(sweep_dir), 30)  # no orphan runs on either node

    second_call = launcher(*sweep)
    lost = until(lambda: in_the_middle(sweep_dir))
    second.kill()
    resumed = second_call.wait(400)
    again = launcher(*sweep, stderr=subprocess.PIPE)
    _, told = again.communicate(timeout=60)
    answer = {"lost": str(lost), "codes": [interrupted, resumed, again.returncode], "again": told}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
