"""From the URLs that a daemon was given to its listeners."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firmware_bridge.link.channel import Listener
from hil.errors import ConfigError


def open_listeners(urls: Sequence[str], keys: Path | None) -> list[Listener]:
    """Open all, or none.

    Args:
        urls: `tcp://ADDRESS:PORT` or `serial:///dev/PORT[?baud=N]`.
        keys: folder of keys for TCP; None is the user's own.

    Raises:
        ConfigError: a URL is wrong, in use, or needs keys that do not exist.
    """
    found: list[Listener] = []
    try:
        found.extend(_open(url, keys) for url in urls)
    except BaseException:
        for link in found:
            link.close()
        raise
    return found


def _open(url: str, keys: Path | None) -> Listener:
    scheme = url.partition("://")[0]
    if scheme == "tcp":
        from firmware_bridge.link.keys import KeyFolder
        from firmware_bridge.link.tcp import TcpListener, tcp_address

        host, port, key = tcp_address(url)
        if key is not None:
            raise ConfigError(f"{url!r} names a key, which is for hosts", fix="name the folder of keys with --keys")
        return TcpListener(host, port, KeyFolder.find(keys))
    if scheme == "serial":
        from firmware_bridge.link.serial_line import SerialListener

        return SerialListener(url)
    raise ConfigError(f"{url!r} names no link", fix="write tcp://127.0.0.1:7341, or serial:///dev/ttyPS0?baud=921600")
