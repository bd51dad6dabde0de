"""The workerd configuration of one process: a router, the way to its code, and no network.

Format: workerd's `workerd.capnp` text configuration.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

COMPATIBILITY_DATE: Final = "2026-01-01"
SOCKET_NAME: Final = "requests"
ROUTER: Final = "router.js"
ENTRY: Final = "entry.js"
CODE_SOCKET: Final = "code.sock"
CONFIG: Final = "config.capnp"

# V8 does not see what workerd holds beside each small JavaScript object, and by default collects
# only once the heap is large: a busy hello-world then grew by 10 KB a request, up to 380 MB.
# Collecting early keeps it at 124 MB. The one thread that the tenant pays for collects too: helper
# threads would only make a tenant with a full heap press on its neighbours from several cores.
_COLLECTION: Final = (
    "--initial-old-space-size=4",  # MiB
    "--max-semi-space-size=4",  # MiB
    "--single-threaded-gc",
)

_TEMPLATE = """\
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "router", worker = .router),
    (name = "code", external = (address = "unix:%(code_socket)s", http = ())),
    (name = "internet", network = (allow = [])),
  ],
  sockets = [(name = "%(socket)s", http = (), service = "router")],
  v8Flags = [%(v8_flags)s],
  logging = (structuredLogging = true),
);
const router :Workerd.Worker = (
  modules = [
    (name = "router.js", esModule = embed "router.js"),
    (name = "entry.js", text = embed "entry.js"),
  ],
  compatibilityDate = "%(date)s",
  bindings = [
    (name = "LOADER", workerLoader = (id = "tenant")),
    (name = "CODE", service = "code"),
  ],
  globalOutbound = "internet",
);
"""


def config_text(*, code_socket: str, heap_mb: int) -> str:
    """Write the configuration.

    `code_socket` is the path of the unix socket, as the process sees it, that serves the tenant's
    code; `heap_mb` bounds V8's old space in MiB.
    """
    if not code_socket.startswith("/") or any(c in code_socket for c in '"\\\n%'):
        raise ValueError(f"{code_socket!r} cannot stand in a workerd configuration")
    flags = (f"--max-old-space-size={heap_mb}", *_COLLECTION)
    return _TEMPLATE % {
        "code_socket": code_socket,
        "v8_flags": ", ".join(f'"{flag}"' for flag in flags),
        "socket": SOCKET_NAME,
        "date": COMPATIBILITY_DATE,
    }


def module_text(name: str) -> str:
    """Return one of our own modules, `router.js` or `entry.js`."""
    return files("lichen.runtime").joinpath("js", name).read_text(encoding="utf-8")
