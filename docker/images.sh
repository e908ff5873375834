#!/usr/bin/env bash
# Builds the four images with buildah and tries each as its user would run it.
#
#   docker/images.sh [ROLE ...]
#
# BASE names the image to start from. Without it, and where no registry answers, one is made with
# debootstrap. Needs root, buildah, and the kit (docker/kit.sh).
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"
roles=("${@:-}")
[ -n "${roles[0]}" ] || roles=(client server audit serve)
[ -f "$root/dist/kit/SHA256SUMS" ] || { echo "images.sh: run docker/kit.sh first" >&2; exit 2; }

base="${BASE:-}"
if [ -z "$base" ]; then
    base=localhost/privity-base
    if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
        echo "base: Debian 12 by debootstrap"
        folder="$(mktemp -d)"
        trap 'rm -rf "$folder"' EXIT
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder" \
            >/dev/null
        rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
        container="$(buildah from scratch)"
        buildah add --quiet "$container" "$folder" / >/dev/null
        buildah commit --quiet "$container" "$base" >/dev/null
        buildah rm "$container" >/dev/null
    fi
fi

for role in "${roles[@]}"; do
    echo "image: privity-$role"
    buildah build --quiet --layers --build-arg "BASE=$base" --target "$role" \
        --ignorefile "$root/docker/containerignore" --file "$root/docker/Containerfile" \
        --tag "privity-$role" "$root" >/dev/null
    "$root/docker/try.sh" "$role"
done
