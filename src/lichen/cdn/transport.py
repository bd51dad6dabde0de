"""Requests to peers whose addresses strangers wrote into the registry: to public addresses only."""

from __future__ import annotations

import httpx

from lichen.wire.dialling import resolve_public


class PublicTransport(httpx.AsyncHTTPTransport):
    """Resolves a request's host itself, and connects to the address that it checked."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raise httpx.ConnectError where the host is not of the open internet.

        The Host field and the certificate's name stay those of the URL.
        """
        name = request.url.host
        try:
            addresses = await resolve_public(name, request.url.port or 0)
        except OSError as error:
            raise httpx.ConnectError(str(error), request=request) from error
        request.extensions = {**request.extensions, "sni_hostname": name}
        request.url = request.url.copy_with(host=addresses[0])
        return await super().handle_async_request(request)
