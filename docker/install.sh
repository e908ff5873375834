#!/bin/sh
# Installs Privity from this kit, without network.
#
#   ./install.sh DIR [client|server|serve|audit|all]
#
# DIR must be new or empty. The base model is unpacked into DIR/home unless the role is audit.
set -eu
umask 022
kit="$(cd "$(dirname "$0")" && pwd)"
python="${PYTHON:-python3}"
target="${1:?give the folder to install into, for example: ./install.sh /opt/privity client}"
role="${2:-client}"
# An institution's machine prepares, trains, evaluates, exports and may serve; the verifier alone
# needs no machine learning. `timestamp` and `hsm` are for who keeps a log.
case "$role" in
    client) extras="client,prepare,search,evaluate,export,serve,timestamp,hsm" ;;
    server) extras="server,timestamp,hsm" ;;
    serve) extras="serve" ;;
    audit) extras="audit-page,timestamp,hsm" ;;
    all) extras="client,prepare,search,evaluate,export,server,serve,audit-page,timestamp,hsm" ;;
    *) echo "install.sh: there is no role $role; give client, server, serve, audit or all" >&2; exit 2 ;;
esac
if [ -n "$(ls -A "$target" 2>/dev/null || true)" ]; then
    echo "install.sh: $target is not empty; give a new folder" >&2
    exit 2
fi
if ! "$python" -c 'import sys, venv; sys.exit(sys.version_info[:2] < (3, 11))'; then
    echo "install.sh: needs Python 3.11 or newer with venv; set PYTHON=..." >&2
    exit 2
fi
# Files that the list does not name would be installed unchecked.
listed="$(cut -c 67- "$kit/SHA256SUMS" | LC_ALL=C sort)"
present="$(cd "$kit" && find . -type f ! -name SHA256SUMS | sed 's|^\./||' | LC_ALL=C sort)"
if [ "$listed" != "$present" ] || ! (cd "$kit" && sha256sum --quiet --strict --check SHA256SUMS); then
    echo "install.sh: the kit is not what its SHA256SUMS lists; fetch it again" >&2
    exit 4
fi

unset PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_CONSTRAINT 2>/dev/null || true
export PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS="$kit/wheels"
export PIP_DISABLE_PIP_VERSION_CHECK=1
echo "installing the $role role into $target"
"$python" -m venv "$target"
"$target/bin/python" -m pip install --quiet --upgrade pip
wheel="$(ls "$kit"/wheels/privity-*.whl)"
"$target/bin/python" -m pip install --quiet "$wheel[$extras]"
if [ "$role" != audit ]; then
    echo "unpacking the base model"
    PRIVITY_HOME="$target/home" PIP_FIND_LINKS="$kit/model" \
        "$target/bin/privity" model pull smollm2-135m-instruct
    echo "set PRIVITY_HOME=$target/home where you run it"
fi
"$target/bin/privity" --version
