"""The engine: the application on a socket, CometBFT as a child, and submissions that wait.

    submit -> CometBFT -> CheckTx ... agreement ... Commit (fsync) -> results

The application works on a thread of its own, one request after the other; what a block changes is
shown to readers in one step, on the event loop, while that thread rests. CometBFT ends when this
process does, however that ends, and the other way round: the two are started again together, and
CometBFT replays what the application lacks. (It means to end by itself when the application is
gone, but has been seen to hang then; so a shell stands between, with a pipe from this process.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import structlog

from lichen.errors import LedgerError, LichenError, LimitError, MachineError, PeerUnavailableError
from lichen.ledger.blocks import TRANSACTIONS_PER_REQUEST_MAX
from lichen.ledger.comet import binary, files, messages
from lichen.ledger.comet.app import App
from lichen.ledger.comet.rpc import Rpc
from lichen.ledger.comet.snapshots import SnapshotFolder
from lichen.ledger.engine import check_last_block
from lichen.ledger.errors import OverloadError
from lichen.ledger.replay import stored_genesis
from lichen.ledger.results import Refusal, Result, Status
from lichen.ledger.store import LmdbStore
from lichen.ledger.transactions import Received, decode_transaction
from lichen.ledger.views import View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lichen.identity import Address
    from lichen.ledger.comet.files import Settings
    from lichen.ledger.state import State

WAITING_MAX = 4096
BATCH_TRANSACTIONS_MAX = 1024
BATCH_BYTES_MAX = 4 << 20
PREDECESSOR_S_MAX = 2.0
PREDECESSOR_EVERY_S = 0.03
PREDECESSOR_WAITS_MAX = 64
READY_EVERY_S = 0.05
READ_BYTES = 1 << 20
SOCKET_PATH_BYTES_MAX = 100
REQUESTS_PER_TURN = 32

# The end of its input, which it gets even when this process is killed, ends CometBFT: 5 s to do so
_GUARD = """
exec 3<&0
"$@" </dev/null &
comet=$!
(
  read -r _ <&3
  kill "$comet"
  for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$comet" || exit; sleep 0.5; done
  kill -9 "$comet"
) 2>/dev/null &
guard=$!
wait "$comet"
code=$?
kill "$guard" 2>/dev/null
exit "$code"
"""

log = structlog.get_logger()


class NoQuorumError(PeerUnavailableError):
    """The validators do not agree on blocks: too few of them are there."""

    code = "no-quorum"


class CometEngine:
    """Orders transactions by CometBFT; `view` reads the state after the last block."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        *,
        program: Path | None = None,
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        """Open a folder made by `create`; raise when it is missing, in use or damaged."""
        files.check_settings(settings)
        self._program = program or binary.require()
        self._home = home
        self._settings = settings
        self._store = LmdbStore(home)
        self._snapshots = SnapshotFolder(home / "snapshots", settings.snapshot_blocks)
        clock = clock_ms or (lambda: time.time_ns() // 1_000_000)
        try:
            genesis = stored_genesis(self._store, home)
            self._app = App(self._store, genesis, self._snapshots, clock)
            check_last_block(self._app.state)
        except BaseException:
            self._store.close()
            raise
        self._pausing = 0
        self._answer_s = settings.answer_ms / 1000
        self._worker = ThreadPoolExecutor(1, "ledger-app")
        self._turn = asyncio.Lock()
        self._advanced = asyncio.Event()
        self._waiting: dict[bytes, asyncio.Future[Result]] = {}
        self._outbox: deque[tuple[bytes, bytes]] = deque()
        self._posted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._error: LichenError | None = None
        self._ready = self._stopping = self._stalled = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._sockets = _socket_folder(self._home)
        app, rpc = self._sockets / "app", self._sockets / "rpc"
        self._server = await asyncio.start_unix_server(self._serve, app)
        home = files.write_run_files(
            self._home, self._app.state.genesis, self._settings, str(app), str(rpc)
        )
        self._rpc = Rpc(self._settings.rpc or str(rpc))
        self._process = await asyncio.create_subprocess_exec(
            *("sh", "-c", _GUARD, "sh", self._program, "start", "--home", home),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which stops it then
        )
        self._task = self._loop.create_task(self._run(), name="ledger-comet")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop CometBFT, then close; raise what ended it, if something did."""
        self.stop_streams()
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
            if self._task is not None:
                await self._task
        finally:
            await self._close()
        if self._error is not None:
            raise self._error

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._rpc.close()
        await asyncio.to_thread(self._worker.shutdown)
        await asyncio.to_thread(self._snapshots.close)
        self._store.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def state(self) -> State:
        """The state after the last block that was committed here."""
        return self._app.state

    @property
    def view(self) -> View:
        """Typed reads of it."""
        return View(self._app.state)

    @property
    def queued(self) -> int:
        """How many submitted transactions wait for a block."""
        return len(self._waiting)

    @property
    def running(self) -> bool:
        """Whether transactions are being ordered."""
        return self._ready and not self._stalled and self._process.returncode is None

    @property
    def stopping(self) -> bool:
        """Whether the engine takes no more transactions."""
        return self._stopping

    @property
    def comet_height(self) -> int:
        """The height of CometBFT's last block; it counts the blocks without transactions too."""
        return self._app.height

    def stop_streams(self) -> None:
        """Wake whoever waits for blocks: the process is stopping. Safe in a signal handler."""
        self._stopping = True
        self._loop.call_soon_threadsafe(self._advance_readers)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when CometBFT ends, by itself or because it was stopped."""
        if self._task is not None:
            self._task.add_done_callback(lambda _: callback())

    def status(self) -> Status:
        """Return where the ledger stands."""
        head = self.state.head
        return Status(
            network=self.state.network.hex(),
            height=head.height,
            time_ms=head.time_ms,
            state_root=head.state_root.hex(),
            block_hash=head.hash.hex(),
            queued=self.queued,
        )

    async def wait_beyond(self, height: int, timeout_s: float) -> bool:
        """Wait for a block above `height`; False when the time is over or the engine stops."""
        deadline = self._loop.time() + timeout_s
        while self.state.head.height <= height and not self._stopping:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._advanced.wait()
            except TimeoutError:
                return False
        return self.state.head.height > height

    async def submit(self, raws: Sequence[bytes]) -> list[Result]:
        """Order encoded transactions; return once every one is in a block or refused.

        Transactions of one call keep their order. Raises LimitError for too many at once,
        OverloadError when too many wait, NoQuorumError when no block comes: the outcome is open
        then, and to send the same again is safe.
        """
        if len(raws) > TRANSACTIONS_PER_REQUEST_MAX:
            raise LimitError(
                f"{len(raws)} transactions are over {TRANSACTIONS_PER_REQUEST_MAX}",
                hint="send them in several requests",
            )
        self._require_room(len(raws))
        deadline, height = self._loop.time() + self._answer_s, self._app.height
        pending = await self._enter(raws)
        futures = {one for one in pending if isinstance(one, asyncio.Future)}
        if futures:
            await asyncio.wait(futures, timeout=max(0.0, deadline - self._loop.time()))
        if any(not one.done() for one in futures):
            raise self._late(futures, height)
        return [one.result() if isinstance(one, asyncio.Future) else one for one in pending]

    def _late(self, futures: set[asyncio.Future[Result]], height: int) -> PeerUnavailableError:
        """Say why there is no result in time; where no block came, to everybody who waits."""
        error = PeerUnavailableError(
            f"the transaction was not ordered within {self._answer_s:.0f} s",
            hint="send the same again, which is safe",
        )
        if self._app.height == height:
            self._stalled, error = True, _no_quorum()
            log.error("no-quorum", waiting=self.queued, comet_height=height)
            self._fail_waiting(error)
        for identity in [one for one, future in self._waiting.items() if future in futures]:
            self._settle(identity, error)
        return error

    def _require_room(self, count: int) -> None:
        if self._stopping:
            raise OverloadError("the ledger is stopping", hint="try again later")
        if not self._ready:
            raise PeerUnavailableError("the ledger is starting", hint="try again in a second")
        if self._stalled:
            raise _no_quorum()
        if len(self._waiting) + count > WAITING_MAX:
            raise OverloadError(
                f"{len(self._waiting)} transactions are waiting", hint="try again in a second"
            )

    async def _enter(self, raws: Sequence[bytes]) -> list[Result | asyncio.Future[Result]]:
        """Put what is new into the outbox; return, for each, its result or what waits for it."""
        decoded = [_decode(raw) for raw in raws]
        await self._wait_for_predecessors(decoded)
        pending: list[Result | asyncio.Future[Result]] = []
        for raw, received in zip(raws, decoded, strict=True):
            if isinstance(received, LedgerError):
                pending.append(Result("", error=Refusal.of(received)))
            elif (height := self._app.place(received.id)) is not None:
                pending.append(Result(received.id.hex(), height))
            else:
                pending.append(self._post(received.id, raw))
        self._posted.set()
        return pending

    def _post(self, identity: bytes, raw: bytes) -> asyncio.Future[Result]:
        future = self._waiting.get(identity)
        if future is None:
            future = self._waiting[identity] = self._loop.create_future()
            self._app.local.add(identity)
            self._outbox.append((identity, raw))
        return future

    async def _wait_for_predecessors(self, decoded: Sequence[Received | LedgerError]) -> None:
        """Give what comes first a moment: it may have been sent elsewhere, or just before."""
        first: dict[Address, int] = {}
        for received in decoded:
            if isinstance(received, Received):
                first.setdefault(received.signed.signer.address, received.signed.nonce)
        deadline = self._loop.time() + PREDECESSOR_S_MAX
        for address, nonce in first.items():
            while nonce > await self._next_nonce(address):
                if not await self._pause(deadline):
                    break

    async def _pause(self, deadline: float) -> bool:
        """Wait a little for what was sent before; False when that has lasted long enough.

        A block may bring it, or the waiting room: it may be on its way there. Only some may wait,
        since to look costs us more than to ask.
        """
        left = deadline - self._loop.time()
        if left <= 0 or self._stopping or self._pausing >= PREDECESSOR_WAITS_MAX:
            return False
        self._pausing += 1
        try:
            await self.wait_beyond(self.state.head.height, min(left, PREDECESSOR_EVERY_S))
        finally:
            self._pausing -= 1
        return True

    async def _run(self) -> None:
        """Watch CometBFT until it ends."""
        sender = self._loop.create_task(self._send())
        try:
            code = await self._until_stopped()
        finally:
            self._ready, was_stopping = False, self._stopping
            self._stopping = True
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            self._fail_waiting(OverloadError("the ledger stopped", hint="send it again later"))
            self._advance_readers()
        if not was_stopping and self._error is None:
            self._error = MachineError(
                f"CometBFT ended with code {code}", hint="its messages in the log say why"
            )

    async def _until_stopped(self) -> int:
        ended = self._loop.create_task(self._process.wait())
        while not ended.done() and not self._ready and not self._stopping:
            self._ready = await self._rpc.takes_transactions()
            if not self._ready:
                await asyncio.wait({ended}, timeout=READY_EVERY_S)
        while not ended.done() and not self._stopping:
            await asyncio.wait({ended}, timeout=READY_EVERY_S * 10)
        if self._process.stdin is not None:
            self._process.stdin.close()
        return await ended

    async def _send(self) -> None:
        """Hand over what is posted: one batch at a time, so that the order stays."""
        while True:
            await self._posted.wait()
            self._posted.clear()
            while self._outbox:
                batch = _take(self._outbox)
                try:
                    reasons = await self._rpc.hand_over([raw for _, raw in batch])
                except PeerUnavailableError as error:
                    for identity, _ in batch:
                        self._settle(identity, error)
                    continue
                for (identity, _), reason in zip(batch, reasons, strict=True):
                    if reason:
                        why = f"CometBFT did not take the transaction: {reason}"
                        self._settle(identity, OverloadError(why, hint="try again in a second"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one of CometBFT's connections: for agreement, waiting room, reads, snapshots."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        frames = messages.Frames()
        try:
            while data := await reader.read(READ_BYTES):
                requests = [messages.decode_request(one) for one in frames.feed(data)]
                for part in _cut(requests):
                    writer.write(await self._answer(part))
                    await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            log.debug("comet-connection-ended")
        except Exception as error:
            log.exception("application-failed")
            self._error = self._error or MachineError(
                f"the ledger failed: {error}",
                hint="look at its log; it goes on from its last block",
            )
            with contextlib.suppress(ConnectionError):
                writer.write(messages.frame(messages.exception(repr(error))))
                await writer.drain()
        finally:
            writer.close()

    async def _answer(self, requests: list[messages.Request]) -> bytes:
        def work() -> bytes:
            return b"".join(messages.frame(self._app.handle(request)) for request in requests)

        async with self._turn:
            answer = await self._loop.run_in_executor(self._worker, work)
            height = self._app.height
            settled = self._app.advance()
        if self._app.height > height:
            self._stalled = False
            self._advance_readers()
        for identity, result in settled:
            self._settle(identity, result)
        return answer

    async def _next_nonce(self, address: Address) -> int:
        async with self._turn:
            return await self._loop.run_in_executor(self._worker, self._app.next_nonce, address)

    def _advance_readers(self) -> None:
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()
        if self._stopping:
            self._advanced.set()

    def _settle(self, identity: bytes, result: Result | LichenError) -> None:
        self._app.local.discard(identity)
        future = self._waiting.pop(identity, None)
        if future is None or future.done():
            return
        if isinstance(result, Result):
            future.set_result(result)
        else:
            future.set_exception(result)
            future.exception()  # whoever waited may be gone

    def _fail_waiting(self, error: LichenError) -> None:
        for identity in list(self._waiting):
            self._settle(identity, error)


def _socket_folder(home: Path) -> Path:
    """Return an empty folder of our own for sockets, whose paths have to be short."""
    folder = home / "comet" / "run"
    if len(os.fsencode(folder / "app")) > SOCKET_PATH_BYTES_MAX:
        return Path(tempfile.mkdtemp(prefix="lichen-comet-"))
    shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    folder.mkdir(parents=True, mode=0o700)
    return folder


def _no_quorum() -> NoQuorumError:
    return NoQuorumError(
        "the validators do not agree on blocks: a third of them or more is away",
        hint="the transaction may still be ordered; send the same again when they are back",
    )


def _decode(raw: bytes) -> Received | LedgerError:
    try:
        return decode_transaction(raw)
    except LedgerError as error:
        return error


def _take(outbox: deque[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    taken: list[tuple[bytes, bytes]] = []
    size = 0
    while outbox and len(taken) < BATCH_TRANSACTIONS_MAX and size < BATCH_BYTES_MAX:
        taken.append(outbox.popleft())
        size += len(taken[-1][1])
    return taken


def _cut(requests: Sequence[messages.Request]) -> list[list[messages.Request]]:
    """Cut a batch behind what moves the state: nothing may be answered before it is shown.

    Also where it is long: agreement must not wait for thousands of newcomers to be looked at.
    """
    parts: list[list[messages.Request]] = [[]]
    for request in requests:
        parts[-1].append(request)
        moves = isinstance(request, messages.Commit | messages.ApplySnapshotChunk)
        if moves or len(parts[-1]) == REQUESTS_PER_TURN:
            parts.append([])
    return [part for part in parts if part]
