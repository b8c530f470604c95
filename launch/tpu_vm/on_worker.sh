#!/usr/bin/env bash
# Runs a command on a worker so that it outlives the SSH connection.
#
#   on_worker.sh run 'COMMAND'   starts it, or attaches if it runs already; ends with its exit code
#   on_worker.sh stop            ends it
#   on_worker.sh status          whether it runs, and the end of its log
#
# Not run on a TPU VM; tests/launch/test_tpu_vm.py runs it on this machine.
set -euo pipefail

state=${MCJAX_RUN_STATE:-$HOME/mcjax_run}  # pid, command, log, exit_code
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${MCJAX_VENV:-$HOME/mcjax_venv}
mkdir -p "$state"

running() { [ -s "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null; }

start() {
    rm -f "$state/exit_code"
    printf '%s\n' "$1" >"$state/command"
    printf '%s\n' "--- $(date -u +%Y-%m-%dT%H:%M:%SZ) $1" >>"$state/log"
    wc -c <"$state/log" >"$state/log_begins"
    # Its own session, without a terminal that could hang up. Background jobs of a shell ignore
    # SIGINT, but stop sends it to mcjax; the wrapper survives to write the exit code.
    cd "$tree"
    # shellcheck disable=SC2016  # expanded by the inner shell
    PATH="$venv/bin:$PATH" setsid env --default-signal=INT bash -c '
        trap : INT
        code=0; bash -c "$1" || code=$?
        echo "$code" >"$2/exit_code.new"; mv "$2/exit_code.new" "$2/exit_code"
        ' mcjax_run "$1" "$state" >>"$state/log" 2>&1 </dev/null 9>&- &
    echo $! >"$state/pid"
}

run() {
    exec 9>"$state/lock"
    flock 9 # of two connections at once, one starts it and the other attaches
    if running && [ "$(cat "$state/command")" != "$1" ]; then
        echo "on_worker.sh: error: another command runs: $(cat "$state/command")" >&2
        exit 1
    fi
    running || start "$1"
    exec 9>&-
    local pid
    pid=$(cat "$state/pid")
    tail "--pid=$pid" --sleep-interval=1 -c "+$(($(cat "$state/log_begins") + 1))" -f "$state/log"
    if [ ! -s "$state/exit_code" ]; then
        echo "on_worker.sh: error: the command was killed" >&2
        exit 137
    fi
    exit "$(cat "$state/exit_code")"
}

stop() {
    if ! running; then
        echo "nothing runs"
        return
    fi
    local pid
    pid=$(cat "$state/pid")
    kill -INT -- "-$pid" # the whole session: mcjax leaves resumable state
    for _ in $(seq 30); do
        running || break
        sleep 1
    done
    ! running || kill -KILL -- "-$pid"
    echo "stopped"
}

status() {
    if running; then echo "running: $(cat "$state/command")"
    elif [ -s "$state/exit_code" ]; then echo "ended with exit code $(cat "$state/exit_code")"
    else echo "nothing runs"; fi
    [ ! -s "$state/log" ] || tail -n 20 "$state/log"
}

case ${1:-} in
    run)
        [ -n "${2:-}" ] || { echo "on_worker.sh: error: run needs a command" >&2; exit 2; }
        run "$2" ;;
    stop | status) "$1" ;;
    *) echo "on_worker.sh: error: run, stop or status" >&2; exit 2 ;;
esac
