"""A stranger's node registration cannot make the gateway dial what only the gateway can reach."""

import asyncio
import socket
import threading

import pytest

from lichen.wire.dialling import PrivateAddressError, is_public, public_dial, resolve_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:a9fe:a9fe::1",
    ],
)
def test_addresses_that_only_this_machine_or_its_network_reaches_are_not_public(
    address: str,
) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "::1", "2130706433", "0x7f.1", "127.1", "0"]
)
async def test_no_spelling_of_loopback_is_connected_to(host: str) -> None:
    connected = asyncio.Event()
    server = await asyncio.start_server(lambda *_: connected.set(), ["127.0.0.1"], 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(OSError) as refused:  # noqa: PT011 (some resolvers refuse odd spellings)
            await public_dial(host, port)(asyncio.Protocol)
        if host in ("127.0.0.1", "localhost"):
            assert isinstance(refused.value, PrivateAddressError)
    assert not connected.is_set()


async def test_slow_name_servers_of_strangers_hold_up_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        answered.wait(60)
        return [(0, 0, 0, "", ("1.1.1.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    waiting = [asyncio.ensure_future(resolve_public("slow.example", 80)) for _ in range(100)]
    async with asyncio.timeout(20):
        assert await asyncio.to_thread(lambda: 1) == 1
    assert not any(task.done() for task in waiting)
    answered.set()
    assert await asyncio.gather(*waiting) == [["1.1.1.1"]] * 100
