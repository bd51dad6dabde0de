"""The pin: notices when uvicorn's protocol class is no longer the one we subclass."""

from __future__ import annotations

import hashlib
import inspect

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server

RELIED_ON = (
    (HttpToolsProtocol, "__init__"),
    (HttpToolsProtocol, "connection_made"),
    (HttpToolsProtocol, "connection_lost"),
    (HttpToolsProtocol, "eof_received"),
    (HttpToolsProtocol, "data_received"),
    (HttpToolsProtocol, "handle_websocket_upgrade"),
    (HttpToolsProtocol, "on_response_complete"),
    (HttpToolsProtocol, "on_body"),
    (HttpToolsProtocol, "on_message_complete"),
    (HttpToolsProtocol, "shutdown"),
    (HttpToolsProtocol, "pause_writing"),
    (HttpToolsProtocol, "resume_writing"),
    (RequestResponseCycle, "receive"),
    (RequestResponseCycle, "send"),
    (FlowControl, "pause_reading"),
    (FlowControl, "resume_reading"),
    (Server, "startup"),
    (Server, "main_loop"),
    (Server, "shutdown"),
)
FINGERPRINT = "961b14e4d36082186860abd84a07e4abb3bbbaaadb3df00609a61bcd93f51f14"


def test_uvicorn_is_the_version_we_read() -> None:
    assert uvicorn.__version__ == "0.54.0"


def test_the_methods_we_override_or_call_have_not_moved() -> None:
    digest = hashlib.sha256()
    for kind, name in RELIED_ON:
        digest.update(inspect.getsource(getattr(kind, name)).encode())
    assert digest.hexdigest() == FINGERPRINT, (
        "uvicorn changed beneath lichen.wire: read its new protocol class, run the integration "
        "tests of the wire, then put the new fingerprint here"
    )
