"""Requests that only the holder of a key may make: signature, account, nonce, body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.errors import NotAllowedError, PaymentRequiredError
from lichen.identity.http_signature import request_head, verify_request

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.gateway.api.context import ApiContext
    from lichen.identity import Address
    from lichen.identity.http_signature import VerifiedSignature


def verify(context: ApiContext, request: Request, only: Address | None = None) -> VerifiedSignature:
    """Return the verified signature of a request by an account that holds FLK.

    `only` is the one account that may do this. The nonce is used up, last, so that strangers
    cannot fill the memory for nonces. A body has still to be checked against the signature.
    """
    scope = request.scope
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    head = request_head(
        scope["method"], scope["scheme"], path, scope["query_string"], scope["headers"]
    )
    signature = verify_request(head, now_ms=context.now_ms(), hosts=context.hosts)
    signer = signature.key.address
    if only is not None and signer != only:
        raise NotAllowedError(
            f"this is for {only} only, but {signer} signed",
            hint="choose the owner's account: lichen --profile, or account = in the profile",
        )
    if context.replica.state.account(signer).balance == 0:
        raise PaymentRequiredError(
            f"account {signer} has no FLK", hint="have some transferred to it first"
        )
    context.nonces.use(signature, now_ms=context.now_ms())
    return signature
