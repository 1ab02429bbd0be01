#!/usr/bin/env bash
# Build the images where no image can be pulled: the base image from Debian's packages, with the name that the Dockerfile
# uses and Python in the same places, and the rest from the unmodified Dockerfile. Then: make test-image ENGINE=DIR/podman
#
#     apt-get install --no-install-recommends buildah podman runc debootstrap netavark aardvark-dns catatonit iptables
#     tests/image/without_registry.sh DIR [TARGET...]      # as root; 8 GB in DIR, some minutes
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 DIR [TARGET...]" >&2; exit 2; }
mkdir -p "$1"
dir=$(realpath "$1"); shift
repository=$(realpath "$(dirname "$0")/../..")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repository/pyproject.toml")
base=$(sed -n 's/^ARG BASE=\(\S*\)$/\1/p' "$repository/Dockerfile")
store=(--root "$dir/storage" --runroot "$dir/run" --storage-driver overlay)

if ! buildah "${store[@]}" inspect --type image "$base" >/dev/null 2>&1; then
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip bookworm "$dir/rootfs"
    rm -rf "$dir"/rootfs/var/cache/apt/archives/*.deb "$dir"/rootfs/var/lib/apt/lists/*
    chroot "$dir/rootfs" python3 -m venv /usr/local # the official image has /usr/local/bin/python
    container=$(buildah "${store[@]}" from scratch)
    buildah "${store[@]}" add -q "$container" "$dir/rootfs" /
    buildah "${store[@]}" config --env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah "${store[@]}" commit -q --rm "$container" "$base"
    rm -rf "$dir/rootfs"
fi

# The certificate authorities that this machine trusts. A proxy's own authority may be among them.
authorities=/etc/ssl/certs/ca-certificates.crt
printf '[global]\ncert = %s\n' $authorities >"$dir/pip.conf"
[ $# -ge 1 ] || set -- trainer client
for target in "$@"; do
    buildah "${store[@]}" bud --isolation chroot --pull-never --network host --layers \
        -v $authorities:$authorities:ro -v "$dir/pip.conf:/etc/pip.conf:ro" \
        --target "$target" -t "localhost/digits-$target:$version" "$repository"
done

# The lower of a wanted limit and the highest that this machine allows: a sandbox may not raise its own.
limit() { ulimit -H "-$1" | awk -v wanted="$2" '{ print ($1 == "unlimited" || $1 > wanted) ? wanted : $1 }'; }
nofile=$(limit n 4096)
nproc=$(limit u 4096)

# runc, because crun does not start on machines with both kinds of cgroups.
cat >"$dir/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$nofile:$nofile", "nproc=$nproc:$nproc"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
CONF
printf '#!/bin/sh\nCONTAINERS_CONF=%s exec %s %s "$@"\n' "$dir/containers.conf" "$(command -v podman)" "${store[*]}" >"$dir/podman"
chmod +x "$dir/podman"
"$dir/podman" images
