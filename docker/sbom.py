"""Write the CycloneDX list of the packages in an environment.

python sbom.py SITE-PACKAGES OUT.json [WHEELS]: with WHEELS, each package has the sha256 of the
wheel that it was installed from.
"""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _hashes(wheels: Path | None) -> dict[tuple[str, str], str]:
    found = {}
    for wheel in sorted(wheels.glob("*.whl")) if wheels else ():
        name, version = wheel.name.split("-")[:2]
        found[_normal(name), version] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return found


def _component(package: Distribution, hashes: dict[tuple[str, str], str]) -> Component:
    name, version = _normal(package.metadata["Name"]), package.version
    digest = hashes.get((name, version))
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f"{name}@{version}",
        purl=PackageURL(type="pypi", name=name, version=version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
    )


def bom(site: Path, wheels: Path | None = None) -> str:
    """Return the list as CycloneDX 1.6 JSON, sorted by name."""
    hashes = _hashes(wheels)
    found = {p.metadata["Name"].lower(): p for p in distributions(path=[str(site)])}
    made = Bom(components=[_component(found[name], hashes) for name in sorted(found)])
    return str(JsonV1Dot6(made).output_as_string(indent=1))


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    given[1].write_text(bom(given[0], given[2] if len(given) > 2 else None), encoding="utf-8")
