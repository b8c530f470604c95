"""A stand-in for gcloud on PATH: a small world of TPU slices in a JSON file, and a list of calls.

The world (`$FAKE_GCLOUD/world.json`) says what is to happen:

    node, request   the state of the slice and of its request; null: there is none
    requests        states that a queued request goes through, one a look
    creates         "" or an error message, one an attempt to create
    runs            [exit code, the slice's state after it], one a run of the command; a run of
                    exit code "hangs" goes on for a minute
    later           states of the slice at the next looks
    undeletable     deletions do nothing
"""

# It starts many times in each test, so it imports little: neither pathlib nor, in most calls, shutil.
import json
import os
import sys

HERE = os.environ.get("FAKE_GCLOUD", ".")
WORLD = f"{HERE}/world.json"


def main(arguments):
    with open(f"{HERE}/calls.jsonl", "a") as file:
        file.write(json.dumps(arguments) + "\n")
    with open(WORLD) as file:
        world = json.load(file)
    try:
        return answer(world, arguments)
    finally:
        with open(WORLD, "w") as file:
            json.dump(world, file)


def answer(world, arguments):
    what, verb = arguments[2], arguments[3]
    if arguments[0] != "compute":
        return 0
    key = "node" if what == "tpu-vm" else "request"
    if verb == "describe":
        if what == "queued-resources" and world["requests"] and world["request"]:
            world["request"] = world["requests"].pop(0)
            if world["request"] == "ACTIVE":
                world["node"] = "READY"
        if what == "tpu-vm" and world["later"]:
            world["node"] = world["later"].pop(0)
        if world[key] is None:
            return error(f"NOT_FOUND: Resource '{arguments[4]}' was not found")
        if world[key] == "UNREACHABLE":
            return error("UNAVAILABLE: the network is down")
        print(world[key])
    elif verb == "create":
        message = world["creates"].pop(0) if world["creates"] else ""
        if message:
            return error(message)
        world[key] = "READY" if what == "tpu-vm" else "WAITING_FOR_RESOURCES"
    elif verb == "delete" and not world["undeletable"]:
        world[key] = None
        world["node"] = None
    elif verb == "scp" and arguments[4].endswith(".tar.gz"):
        import shutil

        shutil.copy(arguments[4], f"{HERE}/copied.tar.gz")
    elif verb == "ssh" and "on_worker.sh run" in " ".join(arguments):
        run = world["runs"].pop(0) if world["runs"] else (0, "READY")
        code, world["node"], *later = run
        world["later"] = later
        if code == "hangs":
            import time

            time.sleep(60)
        return code
    return 0


def error(message):
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
