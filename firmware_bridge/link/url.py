"""From a URL to a link: the one place that knows which kinds there are."""

from __future__ import annotations

from firmware_bridge.link.channel import Channel
from hil.errors import ConfigError


def open_channel(url: str) -> Channel:
    """The host's end of the link that a URL names.

    Args:
        url: `tcp://HOST:PORT[?key=FILE]` or `serial:///dev/PORT[?baud=N]`.

    Raises:
        ConfigError: not such a URL, or a package that it needs is missing.
        AccessError: the key file cannot be used.
        TransportError: the port cannot be opened.
    """
    scheme = url.partition("://")[0]
    if scheme == "tcp":
        from firmware_bridge.link.tcp import TcpChannel

        return TcpChannel(url)
    if scheme == "serial":
        from firmware_bridge.link.serial_line import SerialChannel

        return SerialChannel(url)
    raise ConfigError(f"{url!r} names no link", fix="write tcp://HOST:PORT, or serial:///dev/ttyUSB0?baud=921600")
