"""Makes an sshd as far away as a host in another place: passes its connections on, each way later by half a round trip.

A script, run on a host of the lab by `bench.subjects.hosts`: ``far.py ADDRESS PORT TARGET ROUND_TRIP_SECONDS``. Linux can
delay packets itself (``tc … netem``) where its kernel has that; not every kernel has.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

_CHUNK_BYTES = 64 * 1024


async def main(address: str, port: int, target: int, round_trip: float) -> None:
    """Pass connections on until it is killed.

    Args:
        address: where to listen, and where the target is.
        port: where to listen.
        target: port of the target.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(address, target)
        for each in (writer, there_writer):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        half = round_trip / 2
        await asyncio.gather(_carry(reader, there_writer, half), _carry(there_reader, writer, half))

    server = await asyncio.start_server(serve, address, port)
    print("listens", flush=True)
    await server.serve_forever()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Pass everything on, in order, each part when its time has come: as many as there are may be on the way at once."""
    clock = asyncio.get_running_loop().time
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def arrive() -> None:
        while True:
            due, part = await on_the_way.get()
            await asyncio.sleep(max(0.0, due - clock()))
            if not part:
                return
            writer.write(part)
            await writer.drain()

    arrival = asyncio.create_task(arrive())
    with contextlib.suppress(OSError):
        while part := await reader.read(_CHUNK_BYTES):
            on_the_way.put_nowait((clock() + delay, part))
    on_the_way.put_nowait((clock() + delay, b""))
    with contextlib.suppress(OSError):
        await arrival
    writer.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
