"""The link of the kill tests: hands bytes on between client and daemon; SIGKILL cuts it, SIGSTOP stalls it."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection

from kill.processes import die_with_parent


def forward(port: int, to_port: int, ready: Connection) -> None:
    """Forward connections from a port (0: a free one) to another; says which port on `ready`."""
    die_with_parent()
    asyncio.run(_forward(port, to_port, ready))


async def _forward(port: int, to_port: int, ready: Connection) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", to_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    ready.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
