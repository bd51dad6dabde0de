"""HTTP/1.1 on the wire: listener, hot paths, splice proxy, sendfile."""

from lichen.wire.answers import Answer, Asgi, Ready, Work
from lichen.wire.content import ContentEntry, FlatFile, content_answer
from lichen.wire.counters import Counters
from lichen.wire.exchange import Fault, Outcome, Retry
from lichen.wire.forward import Forward
from lichen.wire.heads import HeadRewrite, RequestHead, ResponseHead, forward_head
from lichen.wire.limits import Limits, PoolLimits
from lichen.wire.listener import Listener, ListenerConfig, listening, serve
from lichen.wire.muxlink import MuxDialler
from lichen.wire.problem import problem_app, problem_of, problem_ready
from lichen.wire.sendfile import SendFile
from lichen.wire.upstream import Pool

__all__ = [
    "Answer",
    "Asgi",
    "ContentEntry",
    "Counters",
    "Fault",
    "FlatFile",
    "Forward",
    "HeadRewrite",
    "Limits",
    "Listener",
    "ListenerConfig",
    "MuxDialler",
    "Outcome",
    "Pool",
    "PoolLimits",
    "Ready",
    "RequestHead",
    "ResponseHead",
    "Retry",
    "SendFile",
    "Work",
    "content_answer",
    "forward_head",
    "listening",
    "problem_app",
    "problem_of",
    "problem_ready",
    "serve",
]
