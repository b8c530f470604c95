#!/usr/bin/env bash
# Mounts a bucket as a folder on a worker or a GPU node, for sweeps, which share and rename files.
#
#   mount_bucket.sh BUCKET [FOLDER]      FOLDER is /mnt/mcjax unless given
#
# Create the bucket with a hierarchical namespace: a folder is then renamed in one step, as publishing a
# checkpoint needs (docs.cloud.google.com/storage/docs/rename-hns-folders). In other buckets gcsfuse
# renames file by file. Does nothing if the bucket is mounted already.
#
# Not tested with a bucket: none was available.
set -euo pipefail

[ $# -ge 1 ] || { echo "mount_bucket.sh: error: give the bucket's name" >&2; exit 2; }
bucket=${1#gs://}
folder=${2:-/mnt/mcjax}
version=${GCSFUSE_VERSION:-2.7.0}

if mountpoint -q "$folder"; then
    echo "$folder is mounted"
    exit 0
fi
if ! command -v gcsfuse >/dev/null; then
    package=$(mktemp --suffix=.deb)
    curl -fsSL -o "$package" "https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$version/gcsfuse_${version}_amd64.deb"
    sudo apt-get install -y -qq fuse "$package"
    rm "$package"
fi
sudo mkdir -p "$folder"
sudo chown "$(id -u):$(id -g)" "$folder"
gcsfuse --implicit-dirs --rename-dir-limit 10000 "$bucket" "$folder"
echo "gs://$bucket is $folder"
