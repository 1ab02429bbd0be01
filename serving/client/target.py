"""Targets of a client: checks that a target can be one, before gRPC silently interprets it in another way.

localhost:8500                        one server, or a name whose addresses take turns
dns:///digits.default.svc:8500        the pods behind a headless Kubernetes service, resolved again as they change
ipv4:10.0.0.5:8500,10.0.0.6:8500      replicas by address; also ipv6:[::1]:8500
unix:/run/digits.sock                 a UNIX socket
"""

from __future__ import annotations

import ipaddress
import re

_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract):(.*)", re.DOTALL)
_HOST_PORT = re.compile(r"(\[[^\]]+\]|[^:\[\]]*):(\d+)")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_FORMS = "give HOST:PORT, such as localhost:8500, or dns:///HOST:PORT, ipv4:IP:PORT,IP:PORT or unix:PATH"


def check_target(target: str) -> str:
    """Return `target`.

    Raises:
        ValueError: if `target` is not one of the forms above; gRPC would use another port or scheme than was meant.
    """
    addresses_of(target)
    return target


def addresses_of(target: str) -> list[tuple[str, int]]:
    """Return the hosts and ports in `target`; none for a UNIX socket. Raise as `check_target` does."""
    if "://" in target and not _SCHEME.fullmatch(target):
        raise ValueError(f"target {target!r} is a URL, and gRPC has no such scheme; {_FORMS}")
    scheme, rest = match.groups() if (match := _SCHEME.fullmatch(target)) else ("", target)
    if scheme.startswith("unix"):
        if not rest.strip("/"):
            raise ValueError(f"target {target!r} has no path; {_FORMS}")
        return []
    if rest.startswith("//"):
        rest = rest[2:].partition("/")[2]  # the part before the slash is the DNS server's address, usually empty
    parts = rest.split(",") if scheme in ("ipv4", "ipv6") else [rest]
    return [_parse_address(part, scheme, target) for part in parts]


def _parse_address(text: str, scheme: str, target: str) -> tuple[str, int]:
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        if _HOST_NAME.fullmatch(text):
            raise ValueError(f"target {target!r} has no port; TensorFlow Serving's default is {text}:8500")
        raise ValueError(f"target {target!r} is not a gRPC target; {_FORMS}")
    host, port = match[1].strip("[]"), int(match[2])
    if not 1 <= port <= 65535:
        raise ValueError(f"target {target!r}: the port must be from 1 to 65535, not {port}")
    if match[1].startswith("[") or scheme in ("ipv4", "ipv6"):
        try:
            version = ipaddress.ip_address(host.partition("%")[0]).version
        except ValueError as error:
            raise ValueError(f"target {target!r}: {error}") from error
        if (version == 6) != match[1].startswith("[") or scheme not in ("", "dns", f"ipv{version}"):
            raise ValueError(f"target {target!r}: {host} is an IPv{version} address; {_FORMS}")
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError(f"target {target!r}: {host!r} is not a host name; {_FORMS}")
    return host, port
