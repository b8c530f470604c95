"""launch/tpu_vm: the order of gcloud calls with a fake gcloud, and each call with gcloud's own parser.

No Google Cloud is used: the tests check which commands are sent, and the reaction to the answers.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from slow import SLOW, all_but

ROOT = Path(__file__).parents[2]
TPU = ROOT / "launch" / "tpu_vm" / "tpu.sh"
ON_WORKER = ROOT / "launch" / "tpu_vm" / "on_worker.sh"
INSTALL = ROOT / "launch" / "tpu_vm" / "install.sh"
TRAIN = ["python", "-m", "mcjax.train", "--config", "configs/digits.py", "--workdir=gs://b/a b"]
NO_CAPACITY = 'There is no more capacity in the zone "us-central2-b"'


class Cloud:
    """A fake gcloud on PATH, the calls that it got, and tpu.sh."""

    def __init__(self, folder):
        self.folder = folder
        self.world = {
            "node": None,
            "request": None,
            "requests": [],
            "creates": [],
            "runs": [],
            "later": [],
            "undeletable": False,
        }
        (folder / "bin").mkdir()
        (folder / "small").mkdir()
        (folder / "small" / "pyproject.toml").touch()
        gcloud = folder / "bin" / "gcloud"
        fake = Path(__file__).with_name("fake_gcloud.py")
        gcloud.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{fake}" "$@"\n')
        gcloud.chmod(0o755)

    def __call__(self, *arguments, **variables):
        process = self.start(*arguments, **variables)
        output, error = process.communicate(timeout=120)
        self.world = json.loads((self.folder / "world.json").read_text())
        return subprocess.CompletedProcess(arguments, process.returncode, output, error)

    def start(self, *arguments, **variables):
        (self.folder / "world.json").write_text(json.dumps(self.world))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MCJAX_TPU_")}
        return subprocess.Popen(
            ["bash", str(TPU), *arguments],
            env={
                **clean,
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "FAKE_GCLOUD": str(self.folder),
                "MCJAX_TPU_POLL_SECONDS": "0",
                "MCJAX_TPU_SOURCE": str(self.folder / "small"),
                **variables,
            },
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def calls(self):
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def story(self):
        """The calls that change something, one word per call."""
        words = []
        for call in self.calls:
            line = " ".join(call)
            names = {
                "tpu-vm create": "create",
                "queued-resources create": "request",
                "tpu-vm scp mcjax:": "fetch",
                "tpu-vm scp": "copy",
                "tar -xzf": "unpack",
                "install.sh": "install",
                "mount_bucket.sh": "mount",
                "on_worker.sh run": "run",
                "on_worker.sh stop": "stop",
                "storage rsync": "fetch",
                "queued-resources delete": "delete request",
                "tpu-vm delete": "delete",
            }
            words += [word for part, word in names.items() if part in line][:1]
        return words


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


WHERE = ("--zone", "us-central2-b", "--project", "p")
ONE = ["create", "copy", "unpack", "install", "run"]


def test_step_by_step(cloud):
    for step in ("create", "copy", "install", "run", "delete"):
        done = cloud(step, *WHERE, *(["--", *TRAIN] if step == "run" else []))
        assert done.returncode == 0, done.stderr
    assert cloud.story == [*ONE, "delete"]
    create, copy, unpack, install, run = (
        c for c in cloud.calls if c[3] in ("create", "scp", "ssh")
    )
    tail = ["--zone=us-central2-b", "--project=p"]
    assert create == [
        *("compute", "tpus", "tpu-vm", "create", "mcjax", "--version=tpu-ubuntu2204-base"),
        *("--accelerator-type=v4-8", "--labels=app=mcjax"),
        "--scopes=https://www.googleapis.com/auth/cloud-platform",
        *tail,
    ]
    assert copy[5:] == ["mcjax:mcjax_source.tar.gz", "--worker=all", *tail]
    assert all(c[3:6] == ["ssh", "mcjax", "--worker=all"] for c in (unpack, install, run))
    assert cloud.world["node"] is None


def test_the_command_arrives_word_by_word(cloud):
    words = [*TRAIN, "", "it's", '"$HOME"', "a\nb", "*"]
    cloud.world["node"] = "READY"
    assert cloud("run", *WHERE, "--", *words).returncode == 0
    sent = next(word for word in cloud.calls[-1] if word.startswith("--command="))
    # gcloud splits at single spaces, and ssh joins again; then two shells read it.
    line = " ".join(sent.removeprefix("--command=").split(" ")).split("on_worker.sh run ")[1]
    script = f'inner={line}; eval "words=($inner)"; printf \'%s\\0\' "${{words[@]}}"'
    read = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert read.stdout.split("\0")[:-1] == words


def test_the_copy_has_what_git_has_and_nothing_else(cloud, tmp_path):
    cloud.world["node"] = "READY"
    assert cloud("copy", *WHERE, f"--source={ROOT}").returncode == 0
    with tarfile.open(tmp_path / "copied.tar.gz") as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"pyproject.toml", "launch/tpu_vm/on_worker.sh", "mcjax/cli/train.py"} <= names
    assert not [name for name in names if name.startswith((".git/", ".venv", "runs"))]


def test_a_source_without_git(cloud, tmp_path):
    source = tmp_path / "source"
    (source / "runs").mkdir(parents=True)
    (source / "runs" / "large.npz").write_text("")
    (source / "pyproject.toml").write_text("")
    cloud.world["node"] = "READY"
    git = {"GIT_CEILING_DIRECTORIES": str(tmp_path)}
    assert cloud("copy", *WHERE, f"--source={source}", **git).returncode == 0
    with tarfile.open(tmp_path / "copied.tar.gz") as archive:
        assert set(archive.getnames()) == {".", "./pyproject.toml"}


@pytest.mark.parametrize(
    ("accelerator", "runtime"),
    [
        ("v4-16", "tpu-ubuntu2204-base"),
        ("v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
    ],
)
def test_the_image_follows_the_type(cloud, accelerator, runtime):
    assert cloud("create", *WHERE, f"--type={accelerator}").returncode == 0
    call = next(c for c in cloud.calls if "create" in c)
    assert f"--accelerator-type={accelerator}" in call
    assert f"--version={runtime}" in call


def test_spot_and_the_other_flags_of_create(cloud):
    flags = ("--spot", "--internal_ips", "--network=n", "--subnetwork=s", "--labels=a=b,c=d")
    done = cloud("create", *WHERE, *flags, "--service_account=me@p", "--name=other")
    assert done.returncode == 0, done.stderr
    call = next(c for c in cloud.calls if "create" in c)
    wanted = {"other", "--spot", "--internal-ips", "--network=n", "--subnetwork=s"}
    assert wanted | {"--labels=a=b,c=d", "--service-account=me@p"} <= set(call)


def test_a_queued_request_waits_its_turn(cloud):
    cloud.world["requests"] = ["WAITING_FOR_RESOURCES"] * 2 + ["PROVISIONING", "ACTIVE"]
    flags = ("--queued", "--spot", "--valid_until=6h", "--type=v4-16")
    done = cloud("create", *WHERE, *flags)
    assert done.returncode == 0, done.stderr
    assert cloud.story == ["request"]
    assert cloud.world["requests"] == []
    call = next(c for c in cloud.calls if "create" in c)
    assert call[2] == "queued-resources"
    wanted = {"--node-id=mcjax", "--runtime-version=tpu-ubuntu2204-base", "--spot"}
    assert wanted | {"--valid-until-duration=6h", "--accelerator-type=v4-16"} <= set(call)
    said = [line.split()[-1] for line in done.stderr.splitlines() if line[0] != "+"]
    assert said == ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "READY"]


def test_a_request_that_waits_already_keeps_its_place(cloud):
    cloud.world |= {"request": "WAITING_FOR_RESOURCES", "requests": ["PROVISIONING", "ACTIVE"]}
    assert cloud("create", *WHERE, "--queued").returncode == 0
    assert cloud.story == []


def test_a_request_that_fails(cloud):
    cloud.world["requests"] = ["WAITING_FOR_RESOURCES", "FAILED"]
    done = cloud("create", *WHERE, "--queued")
    assert done.returncode == 75
    assert "mcjax came to nothing (queued-resources is FAILED)" in done.stderr


def test_no_capacity_is_told_from_other_failures(cloud):
    cloud.world["creates"] = [NO_CAPACITY, "PERMISSION_DENIED: tpu.nodes.create"]
    done = cloud("create", *WHERE)
    assert done.returncode == 75
    assert "no capacity for v4-8 in us-central2-b now" in done.stderr
    done = cloud("create", *WHERE)
    assert done.returncode == 1
    assert "PERMISSION_DENIED" in done.stderr


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED", "STOPPED"])
def test_create_leaves_a_dead_slice_to_delete(cloud, state):
    cloud.world["node"] = state
    done = cloud("create", *WHERE)
    assert done.returncode == 2
    assert f"mcjax is {state}; tpu.sh delete --name mcjax" in done.stderr
    assert cloud.story == []


def test_until_done_without_trouble(cloud):
    done = cloud("until_done", *WHERE, "--spot", "--from=gs://b/r", "--to=here", "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert cloud.story == [*ONE, "fetch", "delete"]
    assert (cloud.folder / "here").is_dir()


@pytest.mark.parametrize("state", all_but(["PREEMPTED"], ["PREEMPTED", "TERMINATED", None]))
def test_a_preempted_slice_is_made_again_and_the_same_command_runs(cloud, state):
    cloud.world["runs"] = [[1, state], [255, state], [0, "READY"]]
    done = cloud("until_done", *WHERE, "--spot", "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    gone = ["delete"] if state else []
    assert cloud.story == [*ONE, *gone, *ONE, *gone, *ONE, "delete"]
    commands = [c for c in cloud.calls if any("on_worker.sh run" in word for word in c)]
    assert commands[0] == commands[1] == commands[2]
    creations = [c for c in cloud.calls if "create" in c]
    assert creations[0] == creations[1] == creations[2]
    assert "--spot" in creations[0]
    assert "was taken away; the run goes on from its workdir" in done.stderr


@SLOW
def test_a_preempted_queued_slice_is_asked_for_again(cloud):
    cloud.world["requests"] = ["ACTIVE", "SUSPENDED", "PROVISIONING", "ACTIVE"]
    cloud.world["runs"] = [[255, "PREEMPTED"]]
    done = cloud("until_done", *WHERE, "--queued", "--spot", "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    made = ["request", *ONE[1:], "delete request"]
    assert cloud.story == [*made, *made]


def test_a_command_that_fails_is_not_run_again(cloud):
    cloud.world["runs"] = [[3, "READY"]]
    done = cloud("until_done", *WHERE, "--spot", "--from=logs", "--", *TRAIN)
    assert done.returncode == 3
    assert "mcjax is ready, so this was no pre-emption" in done.stderr
    assert cloud.story == [*ONE, "fetch", "delete"]


def test_a_users_mistake_on_the_workers_does_not_leave_the_slice_running(cloud):
    cloud.world["runs"] = [[2, "READY"]]  # mcjax's exit code for a wrong option
    assert cloud("until_done", *WHERE, "--", *TRAIN).returncode == 2
    assert cloud.world["node"] is None


def test_a_broken_connection_attaches_again(cloud):
    cloud.world["runs"] = [[255, "READY"], [0, "READY"]]
    done = cloud("until_done", *WHERE, "--", *TRAIN)
    assert done.returncode == 0
    assert cloud.story == [*ONE, "run", "delete"]


@SLOW
def test_a_slice_that_says_ready_a_little_longer(cloud):
    cloud.world["runs"] = [[1, "READY", "READY", "PREEMPTED"], [0, "READY"]]
    done = cloud("until_done", *WHERE, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert cloud.story == [*ONE, "delete", *ONE, "delete"]


@pytest.mark.parametrize("code", [137, 143])
def test_a_killed_command_goes_on(cloud, code):
    cloud.world["runs"] = [[code, "READY"], [0, "READY"]]
    assert cloud("until_done", *WHERE, "--", *TRAIN).returncode == 0
    assert cloud.story == [*ONE, "run", "delete"]


def test_a_command_that_was_stopped_does_not(cloud):
    cloud.world["runs"] = [[130, "READY"]]
    assert cloud("until_done", *WHERE, "--", *TRAIN).returncode == 130
    assert cloud.story == [*ONE, "delete"]


def test_no_answer_is_no_preemption(cloud):
    cloud.world["runs"] = [[255, "UNREACHABLE"], [0, "READY"]]
    done = cloud("until_done", *WHERE, "--", *TRAIN)
    assert done.returncode == 0
    assert "no answer about mcjax; it may run on" in done.stderr
    assert cloud.story == [*ONE, "run", "delete"]


@SLOW
def test_until_done_asks_again_where_there_is_no_capacity(cloud):
    cloud.world["creates"] = [NO_CAPACITY, NO_CAPACITY, ""]
    assert cloud("until_done", *WHERE, "--spot", "--", *TRAIN).returncode == 0
    assert cloud.story == ["create", "create", *ONE, "delete"]


@pytest.mark.slow(compiles=True)
def test_until_done_gives_up(cloud):
    cloud.world["runs"] = [[255, "PREEMPTED"]] * 9
    done = cloud("until_done", *WHERE, "--attempts=2", "--", *TRAIN)
    assert done.returncode == 75
    assert cloud.story == [*ONE, "delete", *ONE, "delete"]
    assert cloud.world["node"] is None


def test_until_done_stops_at_a_mistake(cloud):
    cloud.world["creates"] = ["PERMISSION_DENIED"] * 9
    assert cloud("until_done", *WHERE, "--", *TRAIN).returncode == 1
    assert cloud.story == ["create"]


def test_what_was_left_preempted_is_taken_away_first(cloud):
    cloud.world["node"] = "PREEMPTED"
    assert cloud("until_done", *WHERE, "--", *TRAIN).returncode == 0
    assert cloud.story == ["delete", *ONE, "delete"]


def test_a_bucket_is_mounted_on_every_worker(cloud):
    done = cloud("until_done", *WHERE, "--bucket=gs://b", "--", *TRAIN)
    assert done.returncode == 0
    assert cloud.story == ["create", "copy", "unpack", "install", "mount", "run", "delete"]


def test_ctrl_c_ends_the_looking_and_says_what_runs_on(cloud):
    cloud.world["runs"] = [["hangs", "READY"]]
    process = cloud.start("until_done", *WHERE, "--", *TRAIN)
    deadline = time.monotonic() + 60
    while "run" not in cloud.story and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "mcjax runs on and costs money until it is deleted" in error
    assert cloud.story == ONE


def test_keep_says_what_it_costs(cloud):
    done = cloud("until_done", *WHERE, "--keep", "--", *TRAIN)
    assert done.returncode == 0
    assert cloud.story == ONE
    assert "costs money until tpu.sh delete --name mcjax --zone us-central2-b" in done.stderr


def test_a_slice_that_does_not_go_is_an_error(cloud):
    cloud.world |= {"node": "READY", "request": "ACTIVE", "undeletable": True}
    done = cloud("delete", *WHERE)
    assert done.returncode == 1
    assert "may cost money: slice READY, request ACTIVE" in done.stderr


def test_status_list_stop(cloud):
    cloud.world |= {"node": "READY", "request": "ACTIVE"}
    done = cloud("status", *WHERE)
    assert "slice mcjax (v4-8, us-central2-b): READY" in done.stdout
    assert "request mcjax: ACTIVE" in done.stdout
    assert "--worker=0" in cloud.calls[-1]
    assert cloud("list", *WHERE).returncode == 0
    assert [c[2:4] for c in cloud.calls[-2:]] == [["tpu-vm", "list"], ["queued-resources", "list"]]
    assert cloud("stop", *WHERE).returncode == 0
    assert cloud.story == ["stop"]


def test_options_from_the_environment(cloud):
    variables = {"MCJAX_TPU_ZONE": "z", "MCJAX_TPU_SPOT": "true", "MCJAX_TPU_NAME": "n"}
    assert cloud("create", **variables).returncode == 0
    call = next(c for c in cloud.calls if "create" in c)
    assert {"n", "--zone=z", "--spot"} <= set(call)
    assert not [word for word in call if word.startswith("--project")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("create", "no zone; give --zone"),
        ("make --zone z", "unknown subcommand 'make'"),
        ("create --zone z --bogus", "unknown option --bogus"),
        ("create --zone z --bogus=1", "unknown option --bogus"),
        ("create --zone", "--zone needs a value"),
        ("create --zone z now", "unexpected argument 'now'"),
        ("create --zone z --name Upper", "--name is 'Upper'"),
        ("create --zone z --type h100", "no known --runtime"),
        ("create --zone z --attempts 0", "--attempts is '0'"),
        ("create --zone z --poll_seconds soon", "--poll_seconds is 'soon'"),
        ("create --zone z --valid_until 6h", "--valid_until needs --queued"),
        ("run --zone z", "no command; give one after --"),
        ("until_done --zone z", "no command; give one after --"),
        ("fetch --zone z", "nothing to fetch; give --from"),
        ("copy --zone z --source /nowhere", "has no pyproject.toml"),
    ],
)
def test_mistakes_end_in_one_line(cloud, arguments, message):
    done = cloud(*arguments.split())
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("tpu.sh: error: ")
    assert done.stderr.count("\n") == 1
    assert cloud.story == []


def test_without_gcloud(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "tr"):
        (tools / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        ["bash", str(TPU), "create", "--zone=z"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "there is no gcloud; see" in done.stderr


def test_dry_run_prints_everything_and_calls_nothing(cloud):
    flags = (*WHERE, "--spot", "--dry_run", "--from=gs://b/r")
    done = cloud("until_done", *flags, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"^\+ gcloud (?:compute tpus )?(\S+ \S+)", done.stdout, re.M)
    assert printed == [
        *("tpu-vm create", "tpu-vm scp", *["tpu-vm ssh"] * 3, "storage rsync"),
        *("queued-resources delete", "tpu-vm delete"),
    ]
    assert cloud.calls == []
    assert not (cloud.folder / "results").exists()
    assert "mcjax is gone" not in done.stderr


@pytest.mark.slow(compiles=True)
def test_gclouds_own_parser_takes_every_call(cloud, tmp_path):
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("gcloud is not installed")
    flags = ("--spot", "--internal_ips", "--network=n", "--subnetwork=s", "--service_account=a@b")
    cloud.world["requests"] = ["ACTIVE", "ACTIVE"]
    for arguments in (
        ("until_done", *WHERE, *flags, "--queued", "--valid_until=6h", "--from=gs://b", "--", "x"),
        ("until_done", *WHERE, *flags, "--from=runs", "--", "x"),
        ("until_done", *WHERE, "--keep", "--", "x"),
        ("status", *WHERE),
        ("list", *WHERE),
    ):
        done = cloud(*arguments)
        assert done.returncode == 0, done.stderr
    assert {c[3] for c in cloud.calls} >= {"create", "delete", "describe", "list", "scp", "ssh"}
    assert_gcloud_parses(gcloud, [["gcloud", *call] for call in cloud.calls], tmp_path)


@pytest.mark.slow(compiles=True)
def test_gclouds_own_parser_takes_the_readmes_commands(tmp_path):
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("gcloud is not installed")
    text = (ROOT / "launch" / "README.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^    (gcloud .*)$", text, re.M)
    values = {"$PROJECT": "p", "$ZONE": "z", "$BUCKET": "b", "$REGION": "r", "$ACCOUNT": "a@b"}
    for variable, value in values.items():
        lines = [line.replace(variable, value) for line in lines]
    commands = [line.split("#")[0].split() for line in lines]
    assert len(commands) > 8
    assert_gcloud_parses(gcloud, commands, tmp_path)


def assert_gcloud_parses(gcloud, commands, folder):
    """`gcloud meta lint-gcloud-commands`: no network, no account, an empty configuration."""
    unique = {tuple(word.replace("\n", " ") for word in command) for command in commands}
    # The parser reads the command line only, not what the worker's shell gets.
    lines = [
        " ".join("--command=x" if word.startswith("--command=") else word for word in command)
        for command in sorted(unique)
    ]
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": line} for line in lines]))
    done = subprocess.run(
        [gcloud, "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        env={**os.environ, "CLOUDSDK_CONFIG": str(folder / "gcloud")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    verdicts = json.loads(done.stdout)
    assert len(verdicts) == len(set(lines))
    wrong = {v["command_string"]: v["error_message"] for v in verdicts if not v["success"]}
    assert wrong == {}


def test_shellcheck():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    scripts = sorted((ROOT / "launch").rglob("*.sh"))
    assert {TPU, ON_WORKER, INSTALL} <= set(scripts)
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def worker(tmp_path):
    if shutil.which("setsid") is None or shutil.which("flock") is None:
        pytest.skip("the workers are Linux machines; here is no setsid or flock")
    env = {**os.environ, "MCJAX_RUN_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)}

    def start(*arguments):
        return subprocess.Popen(
            ["bash", str(ON_WORKER), *arguments],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def finish(process):
    output, error = process.communicate(timeout=60)
    return process.returncode, output, error


def test_a_worker_passes_output_and_exit_code_on(worker):
    code, output, error = finish(worker("run", "echo 'a  b'; pwd; exit 7"))
    assert (code, output, error) == (7, f"a  b\n{ROOT}\n", "")
    assert "ended with exit code 7" in finish(worker("status"))[1]


def test_a_command_outlives_its_connection(worker, tmp_path):
    command = (
        f"echo begun; until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo once >> {tmp_path}/n"
    )
    first = worker("run", command)
    assert first.stdout.readline() == "begun\n"
    os.killpg(first.pid, 9)  # the connection
    first.communicate()
    assert "running: echo begun" in finish(worker("status"))[1]
    code, _, error = finish(worker("run", "another"))
    assert code == 1
    assert "another command runs: echo begun" in error
    second = worker("run", command)
    assert second.stdout.readline() == "begun\n"  # the log from its beginning
    (tmp_path / "go").touch()
    assert finish(second)[0] == 0
    assert (tmp_path / "n").read_text() == "once\n"
    assert finish(worker("run", command))[0] == 0  # it has ended, so it is run again
    assert (tmp_path / "n").read_text() == "once\nonce\n"


def test_stop_interrupts_the_command(worker, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import time\nprint('begun', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('resumable')\n"
        "    raise SystemExit(130)\n"
    )
    run = worker("run", f"{sys.executable} {program}")
    assert run.stdout.readline() == "begun\n"
    began = time.monotonic()
    assert finish(worker("stop"))[1] == "stopped\n"
    assert time.monotonic() - began < 20
    assert finish(run)[:2] == (130, "resumable\n")
    assert finish(worker("stop"))[1] == "nothing runs\n"


def test_a_killed_command_is_no_success(worker, tmp_path):
    run = worker("run", "echo begun; sleep 60")
    assert run.stdout.readline() == "begun\n"
    pid = int((tmp_path / "state" / "pid").read_text())
    os.killpg(pid, 9)
    code, _, error = finish(run)
    assert code == 137
    assert "the command was killed" in error


def mount(tmp_path, *arguments, **variables):
    """mount_bucket.sh with fakes that record their calls."""
    tools = tmp_path / "mount_tools"
    if not tools.exists():
        tools.mkdir()
        for name in ("sudo", "curl", "gcsfuse"):
            script = f'#!/bin/bash\necho "{name} $*" >> "{tmp_path}/asked"\n'
            (tools / name).write_text(script)
            (tools / name).chmod(0o755)
    return subprocess.run(
        ["bash", str(INSTALL.with_name("mount_bucket.sh")), *arguments],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_mount(tmp_path):
    if shutil.which("mountpoint") is None:
        pytest.skip("the workers are Linux machines; here is no mountpoint")
    folder = tmp_path / "folder"
    done = mount(tmp_path, "gs://b", str(folder))
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == f"sudo mkdir -p {folder}"
    assert asked[-1] == f"gcsfuse --implicit-dirs --rename-dir-limit 10000 b {folder}"
    done = mount(tmp_path, "b", "/")  # / is a mount point
    assert done.stdout == "/ is mounted\n"
    assert (tmp_path / "asked").read_text().splitlines() == asked
    assert mount(tmp_path).returncode == 2


def test_worker_mistakes(worker):
    assert finish(worker())[0] == 2
    assert finish(worker("run"))[0] == 2


@pytest.fixture
def python_folder(tmp_path):
    """Fakes of python and pip that record their calls."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("bash", "dirname", "cat", "sha256sum", "mkdir", "chmod", "cp"):
        (folder / name).symlink_to(shutil.which(name))

    def add(name, *, new):
        script = folder / name
        script.write_text(
            f'#!/bin/bash\necho "{name} $*" >> "{tmp_path}/asked"\n'
            f'case "$*" in\n  -c*) exit {0 if new else 1} ;;\n'
            f'  *venv*) venv="${{@: -1}}"; mkdir -p "$venv/bin"\n'
            f'    printf "#!/bin/bash\\necho pip \\$* >> {tmp_path}/asked\\n" > "$venv/bin/pip"\n'
            f'    printf "#!/bin/bash\\n" > "$venv/bin/python"\n'
            f'    chmod +x "$venv/bin/pip" "$venv/bin/python" ;;\nesac\n'
        )
        script.chmod(0o755)

    return folder, add


def install(folder, tmp_path, *arguments):
    return subprocess.run(
        ["bash", str(INSTALL), *arguments],
        env={"PATH": str(folder), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_install_uses_a_python_that_is_new_enough_and_does_it_once(python_folder, tmp_path):
    folder, add = python_folder
    add("python3", new=False)
    add("python3.11", new=True)
    for _ in range(2):
        done = install(folder, tmp_path, "tpu", "gcs")
        assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    venv = tmp_path / "mcjax_venv"
    assert f"python3.11 -m venv {venv}" in asked
    pips = [line for line in asked if line.startswith("pip")]
    assert pips == [f"pip install --quiet -c {ROOT}/constraints.txt -e {ROOT}[gcs] jax[tpu]"]
    assert "is up to date" in done.stdout
    assert install(folder, tmp_path, "cuda12").returncode == 0  # another backend is installed again
    assert "jax[cuda12]" in (tmp_path / "asked").read_text()


def test_install_fetches_a_python_where_there_is_none(python_folder, tmp_path):
    folder, add = python_folder
    add("python3", new=False)
    done = install(folder, tmp_path, "tpu")
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text()
    assert "python3 -m pip install --quiet --user uv" in asked
    assert "python3 -m uv venv --quiet --seed --clear --python 3.12" in asked


def test_install_knows_three_backends(tmp_path):
    done = install(Path("/usr/bin:/bin"), tmp_path, "rocm")
    assert done.returncode == 2
    assert "'rocm' is no backend; use tpu, cuda12 or cpu" in done.stderr
