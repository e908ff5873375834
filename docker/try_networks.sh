#!/usr/bin/env bash
# Runs coordinator and institutions from their images, each on a network of its own, as
# compose.yaml has them, and tries what each can reach. Needs root, buildah, iproute2.
set -euo pipefail
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"
sites=(clinic-a clinic-b bank-a)
scratch="$(mktemp -d)"
containers=()
server_pid=""
finish() {
    [ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null || true
    wait 2>/dev/null || true
    for name in hub "${sites[@]}"; do ip netns delete "privity-$name" 2>/dev/null || true; done
    for one in "${containers[@]}"; do
        buildah umount "$one" >/dev/null && buildah rm "$one" >/dev/null
    done
    rm -rf "$scratch"
}
trap finish EXIT

open_image() { # sets `mount`
    local container
    container="$(buildah from "privity-$1")"
    containers+=("$container")
    mount="$(buildah mount "$container")"
}
open_image server; server="$mount"
open_image client; client="$mount"

data="$scratch/data"
install -d -o 10001 -g 10001 -m 0700 "$data" "$data/hub"
for site in "${sites[@]}"; do install -d -o 10001 -g 10001 -m 0700 "$data/$site"; done

# run NETWORK IMAGE DATA COMMAND...: as the image's user, its root read-only, DATA at /data.
run() {
    local network="$1" image="$2" folder="$3"
    shift 3
    # A mount namespace inside the network's: `ip netns exec` has made both.
    ip netns exec "privity-$network" unshare --mount -- /bin/sh -euc '
        mount --bind "$1" "$1"
        mount --bind "$2" "$1/data"
        mount -t tmpfs tmpfs "$1/tmp"
        mount -t proc proc "$1/proc"
        mount --rbind /dev "$1/dev"
        mount --bind "$3" "$1/etc/hosts"
        mount -o remount,bind,ro "$1"
        root="$1"; shift 3
        exec chroot --userspec 10001:10001 "$root" /usr/bin/env -i HOME=/tmp \
            PATH=/opt/privity/bin:/usr/bin:/bin PRIVITY_HOME=/opt/privity/home \
            PYTHONDONTWRITEBYTECODE=1 FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 "$@"
    ' sh "$image" "$folder" "$scratch/hosts-$network" "$@"
}
reaches() { # reaches NETWORK HOST PORT
    ip netns exec "privity-$1" timeout 3 bash -c "exec 3<>/dev/tcp/$2/$3" 2>/dev/null
}
check() { echo "  $1"; shift; "$@" || { echo "try_networks.sh: that does not hold" >&2; exit 1; }; }
not() { ! "$@"; }

ip netns add privity-hub
ip -n privity-hub link set lo up
echo "127.0.0.1 localhost coordinator" > "$scratch/hosts-hub"
number=0
for site in "${sites[@]}"; do
    number=$((number + 1))
    ip netns add "privity-$site"
    ip -n "privity-$site" link set lo up
    ip link add "pv$number" netns "privity-$site" type veth peer name "hub$number" netns privity-hub
    ip -n "privity-$site" address add "10.99.$number.2/24" dev "pv$number"
    ip -n privity-hub address add "10.99.$number.1/24" dev "hub$number"
    ip -n "privity-$site" link set "pv$number" up
    ip -n privity-hub link set "hub$number" up
    printf '127.0.0.1 localhost\n10.99.%s.1 coordinator\n' "$number" > "$scratch/hosts-$site"
done

echo "enrolling"
run hub "$server" "$data/hub" privity server init /data/hub --name hub --host coordinator >/dev/null
sed -i 's/^bind = .*/bind = "0.0.0.0"/' "$data/hub/hub/coordinator.toml"
for site in "${sites[@]}"; do
    run "$site" "$client" "$data/$site" \
        privity client init "/data/$site" --name "$site" --coordinator coordinator:8443 >/dev/null
    install -o 10001 -g 10001 "$data/$site/$site/enroll.json" "$data/hub/$site.json"
    run hub "$server" "$data/hub" privity server enroll /data/hub "/data/$site.json" >/dev/null
    install -o 10001 -g 10001 -m 0600 "$data/hub/hub/invitations/$site.json" \
        "$data/$site/$site/invitation.json"
    printf '{"unit_id": "p1", "instruction": "Which desk?", "response": "cards"}\n' \
        > "$data/$site/$site/records.jsonl"
done

echo "starting the coordinator"
run hub "$server" "$data/hub" privity server start /data/hub > "$scratch/server.log" 2>&1 &
server_pid=$!
for _ in $(seq 120); do reaches clinic-a 10.99.1.1 8443 && break; sleep 1; done

check "the public port answers" reaches clinic-a 10.99.1.1 8443
check "the control port does not" not reaches clinic-a 10.99.1.1 8444
check "another institution's network is out of reach" not reaches clinic-a 10.99.2.2 8443
check "so is the coordinator's side of it" not reaches clinic-a 10.99.2.1 8443
for site in "${sites[@]}"; do
    report="$(run "$site" "$client" "$data/$site" privity client doctor "/data/$site" --json || true)"
    check "$site reaches the coordinator with the invited certificate" \
        grep -q "answers with the invited certificate" <<< "$report"
done
echo "tried: separate networks"
