#!/usr/bin/env bash
# Installs the kit where nothing answers, in an empty network namespace, and tries what it made.
#
#   docker/try_kit.sh [ROLE ...]          default: client server serve audit
#
# Needs the kit (docker/kit.sh) and Linux namespaces: root, or users who may make them.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
kit="${KIT:-$root/dist/kit}"
[ -f "$kit/SHA256SUMS" ] || { echo "try_kit.sh: run docker/kit.sh first" >&2; exit 2; }
roles=("${@:-}")
[ -n "${roles[0]}" ] || roles=(client server serve audit)
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
alone=(unshare --net)
[ "$(id -u)" = 0 ] || alone=(unshare --user --map-root-user --net)

# Its own home, and no setting of the caller's: pip must find everything in the kit.
run() {
    "${alone[@]}" env -i HOME="$scratch/home" PATH=/usr/local/bin:/usr/bin:/bin \
        PYTHON="${PYTHON:-python3.11}" "$@"
}
mkdir "$scratch/home"
if run "${PYTHON:-python3.11}" -c \
    'import socket; socket.create_connection(("192.0.2.1", 443), timeout=2)' 2>/dev/null; then
    echo "try_kit.sh: the namespace has a network" >&2
    exit 1
fi
for role in "${roles[@]}"; do
    echo "kit: $role, without network"
    run "$kit/install.sh" "$scratch/$role" "$role"
    tool=(run env PRIVITY_HOME="$scratch/$role/home" FLWR_TELEMETRY_ENABLED=0 HF_HUB_OFFLINE=1
        "$scratch/$role/bin/privity")
    case "$role" in
        client)
            "${tool[@]}" client init "$scratch/site" --name clinic-a --coordinator hub:8443 >/dev/null
            printf '{"text": "Seen by Dr. Maria Jensen on 3 May 2024."}\n' > "$scratch/notes.jsonl"
            "${tool[@]}" client deid "$scratch/notes.jsonl" --profile strict
            printf 'unit_id,instruction,response\np1,which desk is it,cards\np2,who sees me,nurse\n' \
                > "$scratch/export.csv"
            "${tool[@]}" client prepare "$scratch/site" --from "$scratch/export.csv" ;;
        server) "${tool[@]}" server init "$scratch/hub" --name hub >/dev/null
            "${tool[@]}" server status "$scratch/hub" --json ;;
        *) "${tool[@]}" --version ;;
    esac
    rm -rf "${scratch:?}/$role"
done
echo "tried: the kit without network"
