"""nginx as the measure of things: one worker, everything that makes it fast turned on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lib.machine import find_tool, free_port, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from lib.machine import Processes

_CONFIG = """
{user}daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log {dir}/{name}.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 75;
  open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;
  default_type application/octet-stream;
  client_body_temp_path {dir}/{name}-b; proxy_temp_path {dir}/{name}-p;
  fastcgi_temp_path {dir}/{name}-f; uwsgi_temp_path {dir}/{name}-u; scgi_temp_path {dir}/{name}-s;
  {upstream}
  server {{
    listen 127.0.0.1:{port};
    {location}
  }}
}}
"""
_UPSTREAM = "upstream next {{ server {address}; keepalive 64; keepalive_requests 1000000000; }}"
_PASS = """location / { proxy_pass http://next; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host; }"""


class Nginx:
    """One running nginx: its port and its process id."""

    def __init__(self, processes: Processes, name: str, upstream: str, location: str) -> None:
        self.port = free_port()
        folder = processes.folder
        config = folder / f"{name}.conf"
        config.write_text(
            _CONFIG.format(
                dir=folder, name=name, port=self.port, upstream=upstream, location=location,
                user="user root; " if os.getuid() == 0 else "",  # else it may not read the folder
            )
        )  # fmt: skip
        self.pid = processes.start(find_tool("nginx"), "-p", str(folder), "-c", str(config))
        wait_for(self.port)


def static(processes: Processes, www: Path) -> Nginx:
    """Serve a folder's files."""
    return Nginx(processes, "static", "", f"location / {{ root {www}; }}")


def proxy(processes: Processes, name: str, address: str) -> Nginx:
    """Pass everything on to `unix:/path` or `host:port`, over kept-alive connections."""
    return Nginx(processes, name, _UPSTREAM.format(address=address), _PASS)
