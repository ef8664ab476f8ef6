"""Addresses of servers: what may be one, where its paths begin, and whether it is on this machine."""

import httpx

from r1cli.errors import Exit, R1Error

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def root_of(url: str) -> str:
    """The address below which paths are: with /v1 at the end unless a version is there already."""
    trimmed = url.rstrip("/")
    last = trimmed.rpartition("/")[2]
    versioned = last[:1] == "v" and last[1:2].isdigit()
    return (trimmed if versioned else trimmed + "/v1") + "/"


def check_url(url: str) -> None:
    """Refuse what is no address of a server, or has a secret in it. Raises `R1Error` (exit 2)."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL("")
    if parts.userinfo:
        raise R1Error("--url holds a user name or a password, which would end up in logs", hint="--api-key-env NAME", code=Exit.USAGE)
    if parts.scheme not in ("http", "https") or not parts.host:
        raise R1Error(f"`{url}` is not the address of a server", hint="for example --url http://127.0.0.1:8000/v1", code=Exit.USAGE)


def is_local(url: str) -> bool:
    """Whether an address is on this machine."""
    return httpx.URL(url).host in _LOOPBACK
