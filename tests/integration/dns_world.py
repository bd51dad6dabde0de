"""A real name server on loopback, for TXT records: over UDP, and TCP where an answer is long."""

import asyncio
import contextlib
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

UDP_BYTES_MAX = 512


PORTS_TRIED_MAX = 20


class NameServer(asyncio.DatagramProtocol):
    """Answers TXT questions from a map: records (owner, ttl, kind, *texts), an rcode, or silence."""

    def __init__(self):
        self.zone = {}
        self.asked = []
        self.transport = None

    @property
    def address(self):
        return f"127.0.0.1:{self.transport.get_extra_info('sockname')[1]}"

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        answer = self.answer(data)
        if answer is not None:
            wire = answer.to_wire()
            if len(wire) > UDP_BYTES_MAX:
                answer.answer, answer.flags = [], answer.flags | dns.flags.TC
                wire = answer.to_wire()
            self.transport.sendto(wire, peer)

    def answer(self, data):
        question = dns.message.from_wire(data)
        name = question.question[0].name.to_text().rstrip(".").lower()
        self.asked.append(name)
        found = self.zone.get(name, dns.rcode.NXDOMAIN)
        if found is None:
            return None
        answer = dns.message.make_response(question)
        if isinstance(found, dns.rcode.Rcode):
            answer.set_rcode(found)
            return answer
        for owner, ttl, kind, *texts in found:
            answer.answer.append(dns.rrset.from_text(f"{owner or name}.", ttl, "IN", kind, *texts))
        return answer

    async def stream(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                wire = self.answer(await reader.readexactly(size)).to_wire()
                writer.write(len(wire).to_bytes(2, "big") + wire)
        writer.close()


def txt(*texts, ttl=300, owner=None):
    return (owner, ttl, "TXT", *texts)


@contextlib.asynccontextmanager
async def serving():
    """Serve, until the block ends, a zone that starts empty."""
    server = NameServer()
    tcp, transport = await _listen(server)
    try:
        yield server
    finally:
        transport.close()
        tcp.close()


async def _listen(server):
    """Take one port for both protocols; another one where somebody has it for one of them."""
    for _ in range(PORTS_TRIED_MAX):
        tcp = await asyncio.start_server(server.stream, "127.0.0.1", 0)
        address = tcp.sockets[0].getsockname()
        try:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(lambda: server, address)
        except OSError:
            tcp.close()
        else:
            return tcp, transport
    raise OSError("no port is free for both UDP and TCP")


@contextlib.contextmanager
def serving_beside():
    """Serve from a thread, for tests that block."""
    started, server = threading.Event(), []

    async def run():
        async with serving() as made:
            made.stop, made.loop = asyncio.Event(), asyncio.get_running_loop()
            server.append(made)
            started.set()
            await made.stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert started.wait(10)
    try:
        yield server[0]
    finally:
        server[0].loop.call_soon_threadsafe(server[0].stop.set)
        thread.join(10)
