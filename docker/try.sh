#!/usr/bin/env bash
# Runs one image as its user would: its own user, root file system read-only, no network.
set -euo pipefail
role="${1:?give a role: client, server, audit or serve}"
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"

container="$(buildah from "privity-$role")"
mount="$(buildah mount "$container")"
scratch="$(mktemp -d)"
finish() {
    rm -rf "$scratch"
    buildah umount "$container" >/dev/null
    buildah rm "$container" >/dev/null
}
trap finish EXIT
user="$(buildah inspect --format '{{.OCIv1.Config.User}}' "$container")"
[ "$user" = 10001:10001 ] || { echo "try.sh: the image runs as '$user'" >&2; exit 1; }
install -d -o 10001 -g 10001 -m 0700 "$scratch/data"

# Its own mounts and network; the image bound read-only onto itself, as `read_only: true` has it.
run() {
    unshare --mount --net --fork -- /bin/sh -euc '
        mount --bind "$1" "$1"
        mount --bind "$2" "$1/data"
        mount -t tmpfs tmpfs "$1/tmp"
        mount -t proc proc "$1/proc"
        mount --rbind /dev "$1/dev"
        mount -o remount,bind,ro "$1"
        ip link set lo up
        root="$1"; shift 2
        exec chroot --userspec 10001:10001 "$root" /usr/bin/env -i HOME=/tmp \
            PATH=/opt/privity/bin:/usr/bin:/bin PRIVITY_HOME=/opt/privity/home \
            PYTHONDONTWRITEBYTECODE=1 "$@"
    ' sh "$mount" "$scratch/data" "$@"
}

run privity --version
run sh -c '! touch /opt/privity/x 2>/dev/null' || { echo "try.sh: the image can be written" >&2; exit 1; }
# The list of packages is one, and has every package that is installed, with its wheel's digest.
run python -c 'import json
from importlib.metadata import distributions
listed = json.load(open("/opt/privity/sbom.cdx.json"))
assert listed["bomFormat"] == "CycloneDX", "format"
named = {part["name"]: part for part in listed["components"]}
here = {one.metadata["Name"].lower().replace("_", "-").replace(".", "-") for one in distributions()}
assert here == set(named), here ^ set(named)
bare = [name for name, part in named.items() if not part.get("hashes")]
assert set(bare) <= {"pip", "setuptools", "privity"}, bare
print(len(named), "packages listed")' || { echo "try.sh: the list of packages is not whole" >&2; exit 1; }
case "$role" in
    client)
        run privity client init /data/site --name clinic-a --coordinator coordinator:8443 >/dev/null
        run privity client budget /data/site --json
        printf '{"text": "Seen by Dr. Maria Jensen on 3 May 2024, phone 415-555-0132."}\n' \
            > "$scratch/data/notes.jsonl"
        run privity client deid /data/notes.jsonl --profile strict
        run privity model show smollm2-135m-instruct
        # Each extra of the role: what a missing one would say is an error of its own.
        run python -c 'import datasketch, nltk, onnx, onnxruntime, onnxscript, openpyxl, optuna, pkcs11, psycopg
import pyarrow, rfc3161_client, rouge_score, sacrebleu, sqlalchemy'
        python3 -c 'import json
for n in range(40):
    print(json.dumps({"unit_id": f"p{n}", "instruction": f"ask {n} " + chr(97 + n % 26) * 9, "response": "b"}))
' > "$scratch/data/export.jsonl"
        run privity client prepare /data/site --from /data/export.jsonl
        run privity serve /data/nothing && exit 1 || [ $? -eq 2 ] || [ $? -eq 4 ]
        ;;
    server)
        run privity server init /data/hub --name hub >/dev/null
        run privity server status /data/hub --json
        ;;
    audit)
        run privity audit verify /data/nothing && exit 1 || [ $? -eq 2 ] || [ $? -eq 4 ]
        run python -c 'import fastapi, jinja2, pkcs11, rfc3161_client, uvicorn'
        ;;
    serve)
        run privity model show smollm2-135m-instruct
        run privity serve /data/nothing && exit 1 || [ $? -eq 2 ] || [ $? -eq 4 ]
        ;;
esac
echo "tried: privity-$role"
