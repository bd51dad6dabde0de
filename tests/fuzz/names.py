"""CIDs, varints and paths: text and bytes that name things."""

from __future__ import annotations

from urllib.parse import quote

import libipld

from lichen.cdn.formats import decode_path, split_content_path
from lichen.content import varint
from lichen.content.cid import CID, IDENTITY
from lichen.content.protobuf import read_uvarint, uvarint
from lichen.errors import UserError
from lichen.gateway.names import HOST_BYTES_MAX, Hosts, split_app_path
from lichen.wire.heads import _HOST
from tests.fuzz.kit import outcome, refusals, require, target

KNOWN = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
OLD = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"


LIBIPLD_DIGEST_BYTES_MAX = 64


def _same_as_libipld(cid: CID) -> None:
    if len(cid.digest) > LIBIPLD_DIGEST_BYTES_MAX:
        return
    found = libipld.decode_cid(cid.encode())
    hashed = found["hash"]
    require(
        (cid.version, cid.codec, cid.hash_code, cid.digest)
        == (found["version"], found["codec"], hashed["code"], hashed["digest"]),
        (cid, found),
    )


@target("cid-text", KNOWN.encode(), OLD.encode(), b"k" + b"0" * 9, b"f01551220" + b"00" * 32)
def cid_text(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with refusals():
        cid = CID.parse(text)
        require(CID.parse(str(cid)) == cid)
        require(CID.from_wire(cid.to_wire()) == cid)
        require(CID.parse(cid.to_base36()) == cid.as_v1())
        require(CID.decode(cid.encode()) == cid)
        require(len(str(cid)) < 512)
        _same_as_libipld(cid)


@target("cid-bytes", CID.parse(KNOWN).encode(), CID.parse(OLD).encode(), b"\1\x55\0\5hello")
def cid_bytes(data: bytes) -> None:
    with refusals():
        cid, end = CID.read(data, 0)
        require(cid.encode() == data[:end], "another spelling")
        _same_as_libipld(cid)
        if cid.hash_code == IDENTITY:
            require(cid.matches(cid.digest))


@target("varint", b"\x80\x01", b"\xff" * 9 + b"\x01", b"\x00", bytes_max=16)
def varints(data: bytes) -> None:
    with refusals():
        number, end = varint.decode(data)
        require(varint.encode(number) == data[:end])
    with refusals():
        number, end = read_uvarint(data, 0)
        require(uvarint(number) == data[:end])
        if end < 9:
            require(varint.decode(data) == (number, end))


@target("content-path", b"/ipfs/%b/a/b" % KNOWN.encode(), b"/ipfs/%b/%%2e%%2e" % KNOWN.encode())
def content_path(data: bytes) -> None:
    with refusals():
        text = decode_path(data)
        require("\0" not in text)
        require(not {".", ".."} & set(text.split("/")))
        require(outcome(lambda: decode_path(quote(text).encode())) in {text, UserError})
    with refusals():
        root, path = split_content_path(data)
        require(path == "" or path.startswith("/"))
        require(not {".", ".."} & set(path.split("/")))
        again = f"/ipfs/{root}{quote(path)}".encode()
        if len(again) <= 4096:
            require(split_content_path(again) == (root, path))


_HOSTS = ("localhost", "example.org", "127.0.0.1")


@target("host", b"shop.app.localhost:8080", b"%b.ipfs.localhost" % KNOWN.encode(), b"[::1]:80")
def host(data: bytes) -> None:
    if not _HOST.fullmatch(data):  # refused with its head
        return
    hosts = Hosts(_HOSTS)
    name = hosts.read(data)
    require(hosts.read(data.lower()) == name, "case decides")
    if name.kind != "gateway":
        require(len(data) <= HOST_BYTES_MAX)
        require("/" not in name.value)
        require(name.kind not in {"app", "ipfs"} or "." not in name.value)
    if name.kind == "app":
        again = Hosts(_HOSTS).read(f"{name.value}.app.localhost".encode())
        require(again == name)


@target("app-path", b"/app/shop/a?b", b"/app/shop", b"/app/shop?x")
def app_path(data: bytes) -> None:
    found = split_app_path(data)
    if found is not None:
        app, below = found
        require(below.startswith(b"/"))
        require(data.startswith(b"/app/%b" % app.encode()))
        require(data.endswith(below) or below == b"/" + data[5 + len(app) :])
