"""Linux namespaces for one process: no network, a root of listed folders only, no privileges.

Needs no privilege itself where the kernel lets users make namespaces. Built from an allow-list:
what is not named in the `View` does not exist for the process afterwards.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_NEWNS, _NEWIPC, _NEWUSER, _NEWNET = 0x0002_0000, 0x0800_0000, 0x1000_0000, 0x4000_0000
_BIND, _REC, _SLAVE, _NOSUID, _NODEV = 0x1000, 0x4000, 0x8_0000, 0x2, 0x4
_DETACH, _NOFOLLOW = 0x2, 0x8
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture; Linux 5.12
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AT_RECURSIVE = 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 0x1, 0x2, 0x4
_SET_FLAGS, _UP = 0x8914, 0x1  # SIOCSIFFLAGS, IFF_UP
_CAPBSET_DROP, _SET_NO_NEW_PRIVS = 24, 38
_CAPABILITY_VERSION = 0x2008_0522
_DEVICES = ("null", "zero", "full", "random", "urandom")
# What the loader and libraries read of a system; nothing of it is private.
_SYSTEM = (
    "/usr", "/bin", "/lib", "/lib32", "/lib64", "/nix/store",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
    "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu",
)  # fmt: skip


class Refused(Exception):
    """The namespace cannot be made here; the text says which step failed and why."""


@dataclass(frozen=True, slots=True)
class View:
    """All that a process may see of the disk, beside the system's libraries.

    Attributes:
        read: files and folders that it may read.
        hidden: folders of which nothing may show, even inside those of `read` or the system.
        inside: files of a hidden folder that may be read nevertheless.
    """

    read: tuple[str, ...]
    hidden: tuple[str, ...]
    inside: tuple[str, ...]


def enter(view: View, *, loopback: bool = False) -> None:
    """Move the calling process into namespaces of its own, for good.

    Args:
        view: what it may still read.
        loopback: whether its own children may reach each other, on a loopback of theirs alone.

    Guarantees: no network interface but a loopback, which is down unless asked for; every visible
        file is of the system or of `view` and none can be written, apart from an empty /tmp in
        memory; no capability is left and none can be gained; no core dumps.

    Raises:
        Refused: not Linux, or the kernel or its settings do not allow it. The process may be half
            way in and has to end.
    """
    if sys.platform != "linux" or platform.machine() not in _SYS_PIVOT_ROOT:
        raise Refused(f"namespaces are not supported on {sys.platform} {platform.machine()}")
    user, group = os.geteuid(), os.getegid()
    _do("a namespace of its own", "unshare", _NEWUSER | _NEWNS | _NEWNET | _NEWIPC)
    try:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
        _new_root(view)
        if loopback:
            _loopback_up()
    except OSError as fault:
        raise Refused(f"the namespace's files: {os.strerror(fault.errno or 0)}") from None
    _drop()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if [name for _, name in socket.if_nameindex()] not in ([], ["lo"]):
        raise Refused("the network namespace is not empty")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh22x", b"lo", _UP))


def _new_root(view: View) -> None:
    """Put a root of listed folders in the place of the machine's."""
    base = "/tmp"  # noqa: S108 - any folder will do: only this process sees what is put over it
    _mount(None, "/", None, _REC | _SLAVE)
    _mount("tmpfs", base, "tmpfs", _NOSUID | _NODEV, "mode=0755")
    for part in ("old", "new"):
        os.mkdir(f"{base}/{part}")
    os.chdir(base)
    _pivot(".", "old")
    os.chdir("/")
    _mount("tmpfs", "/new", "tmpfs", _NOSUID | _NODEV, "mode=0755")
    os.mkdir("/new/tmp")
    _mount("tmpfs", "/new/tmp", "tmpfs", _NOSUID | _NODEV, "mode=0755,size=256m")
    bound = _bind_all((*_SYSTEM, *view.read))
    for device in _DEVICES:
        _bind(f"/dev/{device}", f"/dev/{device}", devices=True)
    hidden = _hide(view.hidden, bound)
    for file in view.inside:
        _bind(_real(file), file)
    for place in hidden:
        _seal(place)
    _seal("/new")
    _do("the old root", "umount2", b"/old", _DETACH)
    os.chdir("/new")
    _pivot(".", ".")
    _do("the old root", "umount2", b".", _DETACH)
    os.chdir("/")


def _bind_all(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Bind each path that exists, read-only; (real source, place) of each."""
    bound: list[tuple[str, str]] = []
    for path in sorted(set(paths), key=lambda path: (path.count("/"), path)):
        real = _real(path)
        # Under its own name and under the one that links lead to.
        for place in dict.fromkeys((real, path)):
            seen = any(_rest(place, at) is not None for _, at in bound)
            if os.path.exists(f"/old{real}") and not seen:
                _bind(real, place)
                bound.append((real, place))
    return bound


def _real(path: str) -> str:
    """Where `path` leads in the old root, whose absolute links start at /old for us now."""
    here, left = "/", path.split("/")
    for _ in range(1000):
        if not left:
            return here
        part = left.pop(0)
        step = os.path.normpath(os.path.join(here, part))
        if os.path.islink(f"/old{step}"):
            target = os.readlink(f"/old{step}")
            left = target.split("/") + left
            here = "/" if target.startswith("/") else here
        else:
            here = step
    raise Refused("the links of a path lead in a circle")


def _rest(path: str, top: str) -> str | None:
    """`path` from `top` on, or None where it does not lie in it."""
    return path[len(top) :] if path == top or path.startswith(f"{top.rstrip('/')}/") else None


def _hide(folders: Iterable[str], bound: Iterable[tuple[str, str]]) -> list[str]:
    """Put an empty folder over each hidden one, wherever it shows; the places."""
    places = []
    for folder in folders:
        real = _real(folder)
        shown = {f"{at}{rest}" for source, at in bound if (rest := _rest(real, source)) is not None}
        for place in sorted(shown | {real, folder}):
            where = f"/new{place}"
            os.makedirs(where, exist_ok=True)
            _mount("tmpfs", where, "tmpfs", _NOSUID | _NODEV, "mode=0755")
            places.append(where)
    return places


def _bind(source: str, place: str, *, devices: bool = False) -> None:
    into = f"/new{place}"
    if os.path.isdir(f"/old{source}"):
        os.makedirs(into, exist_ok=True)
    elif not os.path.lexists(into):
        os.makedirs(os.path.dirname(into), exist_ok=True)
        os.close(os.open(into, os.O_CREAT | os.O_WRONLY, 0o600))
    _mount(f"/old{source}", into, None, _BIND | _REC)
    attributes = _ATTR_RDONLY | _ATTR_NOSUID | (0 if devices else _ATTR_NODEV)
    _set_attributes(into, attributes, recursive=True)


def _seal(place: str) -> None:
    _set_attributes(place, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=False)


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


def _set_attributes(place: str, attributes: int, *, recursive: bool) -> None:
    wanted = _MountAttributes(attributes, 0, 0, 0)
    _do(
        "a read-only view (Linux 5.12 or newer)", "syscall", _SYS_MOUNT_SETATTR, -100,
        os.fsencode(place), _AT_RECURSIVE if recursive else 0, ctypes.byref(wanted),
        ctypes.sizeof(wanted),
    )  # fmt: skip


def _drop() -> None:
    """Give up every capability, and every way to gain one."""
    library = ctypes.CDLL(None, use_errno=True)
    for number in range(64):
        if library.prctl(_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break
    _do("no new privileges", "prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _do("no capabilities", "capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def _mount(source: str | None, place: str, kind: str | None, flags: int, data: str = "") -> None:
    encoded = (None if text is None else os.fsencode(text) for text in (source, place, kind))
    _do("a view of the disk of its own", "mount", *encoded, flags, data.encode() or None)


def _pivot(new: str, old: str) -> None:
    number = _SYS_PIVOT_ROOT[platform.machine()]
    _do("a root of its own", "syscall", number, new.encode(), old.encode())


def _do(what: str, name: str, *arguments: object) -> None:
    """Call a C function; any error is a refusal."""
    library = ctypes.CDLL(None, use_errno=True)
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if getattr(library, name)(*given) != 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")
