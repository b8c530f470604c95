#!/usr/bin/env bash
# Creates and deletes a Cloud TPU slice, and runs a command on it that survives pre-emption.
#
# NOT RUN ON GOOGLE CLOUD: no project was available. tests/launch/test_tpu_vm.py checks every command
# line with gcloud's own parser (SDK 528), and the order of calls with a fake gcloud.
#
# Flags: docs.cloud.google.com/sdk/gcloud/reference/compute/tpus (tpu-vm, queued-resources)
# States: docs.cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes, .queuedResources
# Works with the bash 3.2 of macOS.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tpu.sh SUBCOMMAND [OPTIONS] [-- COMMAND ...]

  create      create a slice (with --queued by a queued request), and wait until it is ready
  copy        copy the source tree to every worker: tracked files, and new files git does not ignore
  install     install Python, the package and jax[tpu] on every worker; mount the --bucket
  run         run COMMAND on every worker, or attach if it runs already; ends with its exit code
  stop        end COMMAND on every worker
  status      show the state of the slice and of its request, and the last lines of the log
  fetch       copy results to this machine: --from gs://... or a folder on worker 0, --to FOLDER
  delete      delete the slice and its request, and check that they are gone
  list        list every slice and request of the zone: what costs money now
  until_done  create, copy, install, run; after a pre-emption delete and start again; at the end
              fetch (with --from) and delete (without --keep)

Options, each also as an environment variable MCJAX_TPU_NAME, MCJAX_TPU_ZONE, ...
  --name NAME              name of the slice and of its request (mcjax)
  --zone ZONE              the zone; us-central2-b has v4 (no default)
  --project PROJECT        the project (gcloud's own setting)
  --type TYPE              v4-8, v5litepod-8: one host; v4-16, ...: several (v4-8)
  --runtime VERSION        the image (the one in Google's table for the type)
  --spot                   cheap, but Google can take it away at any time
  --queued                 request it as a queued resource
  --valid_until DURATION   give up a queued request after this time, such as 6h (never)
  --service_account EMAIL  the account of the workers, with its rights on the bucket (the project's default)
  --network, --subnetwork  (default)
  --internal_ips           no public addresses; the workers then need Cloud NAT to install anything
  --labels KEY=VALUE,...   labels on the bill (app=mcjax)
  --source FOLDER          the source tree (this script's)
  --extras NAMES           extras of the package (gcs); gcs,tfds if TFDS prepares the data
  --bucket NAME            mount it at /mnt/mcjax on every worker (no bucket)
  --attempts N             how often until_done starts, at most (20)
  --poll_seconds N         seconds between two queries of a state (30)
  --keep                   until_done leaves the slice running
  --dry_run                print the gcloud commands, run none

Exit codes: that of COMMAND; 2 a mistake in the options; 75 no capacity now; 1 any other error.
TEXT
}

say() { printf 'tpu.sh: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 2; }

NO_CAPACITY=75  # EX_TEMPFAIL: until_done asks again
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# --- options ---------------------------------------------------------------------------------------

name=${MCJAX_TPU_NAME:-mcjax}
zone=${MCJAX_TPU_ZONE:-}
project=${MCJAX_TPU_PROJECT:-}
type=${MCJAX_TPU_TYPE:-v4-8}
runtime=${MCJAX_TPU_RUNTIME:-}
valid_until=${MCJAX_TPU_VALID_UNTIL:-}
service_account=${MCJAX_TPU_SERVICE_ACCOUNT:-}
network=${MCJAX_TPU_NETWORK:-}
subnetwork=${MCJAX_TPU_SUBNETWORK:-}
labels=${MCJAX_TPU_LABELS:-app=mcjax}
source=${MCJAX_TPU_SOURCE:-$(cd "$here/../.." && pwd)}
extras=${MCJAX_TPU_EXTRAS:-gcs}
bucket=${MCJAX_TPU_BUCKET:-}
from=${MCJAX_TPU_FROM:-}
to=${MCJAX_TPU_TO:-results}
attempts=${MCJAX_TPU_ATTEMPTS:-20}
poll_seconds=${MCJAX_TPU_POLL_SECONDS:-30}
spot=${MCJAX_TPU_SPOT:-false}
queued=${MCJAX_TPU_QUEUED:-false}
internal_ips=${MCJAX_TPU_INTERNAL_IPS:-false}
keep=${MCJAX_TPU_KEEP:-false}
dry_run=${MCJAX_TPU_DRY_RUN:-false}
VALUES="name zone project type runtime valid_until service_account network subnetwork labels source \
extras bucket from to attempts poll_seconds"
SWITCHES="spot queued internal_ips keep dry_run"

one_of() { case " $2 " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

parse() {
    command=()
    while [ $# -gt 0 ]; do
        local option=${1#--}
        case $1 in
            --) shift; command=("$@"); return ;;
            -h | --help) usage; exit 0 ;;
            --*=*)
                option=${option%%=*}
                one_of "$option" "$VALUES" || fail "unknown option --$option; see tpu.sh --help"
                printf -v "$option" '%s' "${1#*=}"
                shift ;;
            --*)
                if one_of "$option" "$SWITCHES"; then
                    printf -v "$option" true
                    shift
                elif one_of "$option" "$VALUES"; then
                    [ $# -ge 2 ] || fail "--$option needs a value"
                    printf -v "$option" '%s' "$2"
                    shift 2
                else
                    fail "unknown option $1; see tpu.sh --help"
                fi ;;
            *) fail "unexpected argument '$1'; a command for the workers comes after --" ;;
        esac
    done
}

check_options() {
    [ -n "$zone" ] || fail "no zone; give --zone, us-central2-b say (tpu.sh list shows what runs in one)"
    [[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
        fail "--name is '$name'; give small letters, digits and hyphens, a letter first"
    [[ $attempts =~ ^[1-9][0-9]*$ ]] || fail "--attempts is '$attempts'; give a number from 1 on"
    [[ $poll_seconds =~ ^[0-9]+$ ]] || fail "--poll_seconds is '$poll_seconds'; give a number"
    [ -z "$valid_until" ] || [ "$queued" = true ] || fail "--valid_until needs --queued"
    [ "$dry_run" = true ] || type_of gcloud ||
        fail "there is no gcloud; see docs.cloud.google.com/sdk/docs/install"
    [ -n "$runtime" ] || runtime=$(default_runtime)
}

type_of() { command -v "$1" >/dev/null; }

# docs.cloud.google.com/tpu/docs/runtimes, "PyTorch and JAX"
default_runtime() {
    case $type in
        v6e-*) echo v2-alpha-tpuv6e ;;
        v5p-*) echo v2-alpha-tpuv5 ;;
        v5litepod-* | v5e-*) echo v2-alpha-tpuv5-lite ;;
        v[234]-*) echo tpu-ubuntu2204-base ;;
        *) fail "--type is '$type', which has no known --runtime; give one" ;;
    esac
}

# --- gcloud ----------------------------------------------------------------------------------------

quoted() { local word; for word in "$@"; do printf '%q ' "$word"; done; }

gcloud_does() {
    if [ "$dry_run" = true ]; then
        printf '+ gcloud %s\n' "$(quoted "$@")"
    else
        printf '+ gcloud %s\n' "$(quoted "$@")" >&2
        gcloud "$@"
    fi
}

tpus() { gcloud_does compute tpus "$@" "--zone=$zone" ${project:+"--project=$project"}; }

on_workers() { tpus tpu-vm ssh "$name" --worker=all "--command=$1"; }

# Prints the state of the slice (tpu-vm) or of its request (queued-resources), ABSENT if there is none.
state_of() {
    local field=state answer error=$scratch/error
    [ "$1" = tpu-vm ] || field=state.state
    if [ "$dry_run" = true ]; then
        echo ABSENT
    elif answer=$(gcloud compute tpus "$1" describe "$name" "--zone=$zone" \
        ${project:+"--project=$project"} "--format=value($field)" 2>"$error"); then
        echo "${answer:-UNKNOWN}"
    elif grep -q NOT_FOUND "$error"; then
        echo ABSENT
    else
        cat "$error" >&2
        say "error: the state of $name is not known"
        return 1
    fi
}

# --- subcommands -----------------------------------------------------------------------------------

create() {
    local flags=("--accelerator-type=$type" "--labels=$labels")
    [ "$spot" = false ] || flags+=(--spot)
    [ "$internal_ips" = false ] || flags+=(--internal-ips)
    [ -z "$network" ] || flags+=("--network=$network")
    [ -z "$subnetwork" ] || flags+=("--subnetwork=$subnetwork")
    # The account's roles decide what the workers may do; the scope must not restrict them.
    flags+=(--scopes=https://www.googleapis.com/auth/cloud-platform)
    [ -z "$service_account" ] || flags+=("--service-account=$service_account")
    local state
    state=$(state_of tpu-vm)
    case $state in
        READY) say "$name is ready already"; return ;;
        ABSENT) ;;
        CREATING | STARTING | RESTARTING | REPAIRING | REIMAGING) wait_for tpu-vm READY; return ;;
        *) fail "$name is $state; tpu.sh delete --name $name --zone $zone takes it away" ;;
    esac
    if [ "$queued" = true ]; then
        [ -z "$valid_until" ] || flags+=("--valid-until-duration=$valid_until")
        if [ "$(state_of queued-resources)" = ABSENT ]; then
            tpus queued-resources create "$name" "--node-id=$name" \
                "--runtime-version=$runtime" "${flags[@]}"
        fi
        wait_for queued-resources ACTIVE
    else
        create_now "--version=$runtime" "${flags[@]}"
    fi
    wait_for tpu-vm READY
}

create_now() {
    local code=0
    tpus tpu-vm create "$name" "$@" 2>"$scratch/error" || code=$?
    cat "$scratch/error" >&2
    [ $code = 0 ] && return
    if grep -qiE 'no more capacity|insufficient .*capacity' "$scratch/error"; then
        say "no capacity for $type in $zone now; ask later, in another zone, or with --queued"
        exit $NO_CAPACITY
    fi
    exit 1
}

wait_for() {
    [ "$dry_run" = false ] || return 0
    local before="" state silent=0
    while :; do
        state=$(state_of "$1") || state=""
        [ "$state" = "$before" ] || say "$1 $name: $state"
        before=$state
        silent=$((silent + 1))
        [ -z "$state" ] || silent=0
        [ $silent -lt 20 ] || exit 1 # a short failure of the network loses no place in the queue
        case $state in
            "$2") return ;;
            FAILED | SUSPENDED | SUSPENDING | PREEMPTED | TERMINATED)
                say "$name came to nothing ($1 is $state); tpu.sh delete, and ask again"
                exit $NO_CAPACITY ;;
            ABSENT) say "error: $1 $name is not there"; exit 1 ;;
        esac
        sleep "$poll_seconds"
    done
}

copy() {
    local archive=$scratch/mcjax_source.tar.gz
    export COPYFILE_DISABLE=1 # macOS: no ._ files
    [ -f "$source/pyproject.toml" ] || fail "--source $source has no pyproject.toml"
    if git -C "$source" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        # Skip files that are deleted but still in the index.
        (cd "$source" && git ls-files -z --cached --others --exclude-standard |
            while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
            tar --null -czf "$archive" -T -)
    else
        tar -czf "$archive" -C "$source" --exclude=.venv --exclude=runs --exclude=__pycache__ .
    fi
    tpus tpu-vm scp "$archive" "$name:mcjax_source.tar.gz" --worker=all
    # Existing files are overwritten; results in the tree stay.
    on_workers "mkdir -p mcjax && tar -xzf mcjax_source.tar.gz -C mcjax"
}

install() {
    on_workers "bash mcjax/launch/tpu_vm/install.sh tpu $(quoted "$extras")"
    [ -z "$bucket" ] || on_workers "bash mcjax/launch/tpu_vm/mount_bucket.sh $(quoted "$bucket")"
}

run() {
    [ ${#command[@]} -gt 0 ] || fail "no command; give one after --: run -- python -m mcjax.train ..."
    # gcloud sends this again when the connection breaks, so it must run or attach.
    on_workers "bash mcjax/launch/tpu_vm/on_worker.sh run $(printf '%q' "$(quoted "${command[@]}")")"
}

stop() { on_workers "bash mcjax/launch/tpu_vm/on_worker.sh stop"; }

status() {
    local state
    state=$(state_of tpu-vm)
    echo "slice $name ($type, $zone): $state"
    echo "request $name: $(state_of queued-resources)"
    if [ "$state" = READY ]; then
        tpus tpu-vm ssh "$name" --worker=0 "--command=bash mcjax/launch/tpu_vm/on_worker.sh status"
    fi
}

fetch() {
    [ -n "$from" ] || fail "nothing to fetch; give --from gs://BUCKET/FOLDER, or a folder on worker 0"
    [ "$dry_run" = true ] || mkdir -p "$to"
    case $from in
        gs://*) gcloud_does storage rsync "$from" "$to" --recursive ${project:+"--project=$project"} ;;
        *) tpus tpu-vm scp "$name:$from" "$to" --recurse --worker=0 ;;
    esac
}

delete() {
    if [ "$dry_run" = true ] || [ "$(state_of queued-resources)" != ABSENT ]; then
        tpus queued-resources delete "$name" --force --quiet || say "the request was not deleted"
    fi
    if [ "$dry_run" = true ] || [ "$(state_of tpu-vm)" != ABSENT ]; then
        tpus tpu-vm delete "$name" --quiet || say "the slice was not deleted"
    fi
    [ "$dry_run" = false ] || return 0
    local slice request
    slice=$(state_of tpu-vm)
    request=$(state_of queued-resources)
    if [ "$slice $request" != "ABSENT ABSENT" ]; then
        say "error: still there and may cost money: slice $slice, request $request"
        exit 1
    fi
    say "$name is gone"
}

list() {
    tpus tpu-vm list
    tpus queued-resources list
}

# Each step is its own process: in a function called after ||, set -e does nothing.
step() {
    local value variables
    variables=$(echo "$VALUES $SWITCHES" | tr '[:lower:]' '[:upper:]')
    for value in $VALUES $SWITCHES; do
        export "MCJAX_TPU_${variables%% *}=${!value}"
        variables=${variables#* }
    done
    bash "$here/tpu.sh" "$@"
}

until_done() {
    [ ${#command[@]} -gt 0 ] || fail "no command; give one after --"
    local attempt code=1 prepared=false
    trap 'say "stopped looking; $name runs on and costs money until it is deleted"; exit 130' INT TERM
    for ((attempt = 1; attempt <= attempts; attempt++)); do
        [ "$attempt" = 1 ] || { say "attempt $attempt of $attempts"; sleep "$poll_seconds"; }
        code=0
        if [ $prepared = false ]; then
            make || code=$?
            if [ $code = $NO_CAPACITY ]; then continue; fi
            if [ $code != 0 ] && [ "$attempt" = 1 ]; then break; fi # no pre-emption yet: a mistake
            if [ $code = 0 ]; then { step copy && step install && prepared=true; } || code=$?; fi
        fi
        if [ $prepared = true ]; then step run -- "${command[@]}" || code=$?; fi
        [ $code != 0 ] || break
        case $(settled_state $code) in
            READY)
                if [ $code -lt 128 ] || [ $code = 130 ]; then # 130: tpu.sh stop
                    say "$name is ready, so this was no pre-emption"
                    break
                fi
                say "the connection broke, or something killed the command; it goes on" ;;
            "") say "no answer about $name; it may run on" ;;
            *)
                say "$name was taken away; the run goes on from its workdir on another"
                prepared=false
                code=$NO_CAPACITY ;;
        esac
    done
    finish || code=$?
    return $code
}

# The state after a failure. A slice that is being taken away may report READY for a while.
settled_state() {
    local state look
    for look in 1 2 3; do
        state=$(state_of tpu-vm || true)
        if [ "$state" != READY ] || [ "$1" = 255 ] || [ $look = 3 ]; then break; fi
        sleep "$poll_seconds"
    done
    echo "$state"
}

# Gets a slice that is ready, after deleting the rest of one that was taken away.
make() {
    case $(state_of tpu-vm || true) in
        PREEMPTED | TERMINATED | STOPPED | STOPPING | DELETING | HIDDEN) step delete ;;
        ABSENT)
            case $(state_of queued-resources || true) in
                FAILED | SUSPENDING | SUSPENDED | DELETING) step delete ;;
            esac ;;
    esac
    step create
}

finish() {
    local code=0
    if [ -n "$from" ]; then step fetch || code=1; fi
    if [ "$keep" = true ]; then
        say "$name is kept, and costs money until tpu.sh delete --name $name --zone $zone"
    else
        step delete || code=1
    fi
    return $code
}

# --- main ------------------------------------------------------------------------------------------

subcommand=${1:-}
case $subcommand in
    "" | -h | --help) usage; exit 0 ;;
    create | copy | install | run | stop | status | fetch | delete | list | until_done) shift ;;
    *) fail "unknown subcommand '$subcommand'; see tpu.sh --help" ;;
esac
parse "$@"
check_options
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$subcommand"
