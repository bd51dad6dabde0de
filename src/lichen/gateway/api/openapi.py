"""The OpenAPI 3.1 document, made from the table of routes and the structs they answer."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import msgspec

import lichen
from lichen.content.cid import CID
from lichen.identity import Address, Digest, PublicKey
from lichen.units import Amount
from lichen.wire.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.gateway.api.table import Entry

_SCALARS: dict[type, dict[str, Any]] = {
    Amount: {"type": "string", "pattern": "^(0|[1-9][0-9]{0,38})$", "description": "10^-18 FLK"},
    Address: {"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$", "description": "EIP-55"},
    Digest: {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    PublicKey: {"type": "string", "pattern": "^z", "description": "the text of a did:key"},
    CID: {"type": "string", "description": "a content identifier"},
}
_PATH_PARAMETER = re.compile(r"\{([a-z]+)\}")
_REFERENCE = "#/components/schemas/{name}"


def document(entries: Sequence[Entry], prefix: str) -> dict[str, Any]:
    """Return the document; every route, answer and error of the API stands in it."""
    answers = [entry.answer for entry in entries]
    schemas, components = msgspec.json.schema_components(
        [*answers, Problem], schema_hook=_SCALARS.__getitem__, ref_template=_REFERENCE
    )
    paths: dict[str, dict[str, Any]] = {}
    for entry, schema in zip(entries, schemas, strict=False):
        paths.setdefault(prefix + entry.path, {})[entry.method.lower()] = _operation(entry, schema)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lichen",
            "version": lichen.__version__,
            "description": "What a Lichen gateway tells about its network, and how it is told.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {"problem": _content("an error", "application/problem+json", schemas[-1])},
            "securitySchemes": {
                "httpSignature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "signature",
                    "description": "RFC 9421; the keyid is the public key's did:key text",
                }
            },
        },
    }


def _operation(entry: Entry, schema: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PARAMETER.findall(entry.path)
    ]
    parameters += [
        {"name": p.name, "in": "query", "description": p.about, "schema": {"type": p.kind}}
        for p in entry.query
    ]
    summary, _, rest = (inspect.getdoc(entry.handler) or "").partition("\n")
    operation: dict[str, Any] = {
        "summary": summary,
        "description": rest.strip(),
        "parameters": parameters,
        "responses": {
            "200": _content("done", entry.media_type, schema),
            "default": {"$ref": "#/components/responses/problem"},
        },
    }
    if entry.takes:
        binary = {"type": "string", "format": "binary"}
        operation["requestBody"] = {"required": True, "content": {entry.takes: {"schema": binary}}}
    if entry.signed:
        operation["security"] = [{"httpSignature": []}]
    return operation


def _content(about: str, media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {media_type: {"schema": schema}}}
