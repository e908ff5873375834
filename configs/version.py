"""The version of this software, as logs and releases name it."""

VERSION = "0.1.0"
SOFTWARE = f"privity {VERSION}"
