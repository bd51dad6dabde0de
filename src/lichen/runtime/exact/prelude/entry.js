// What the host calls: install the function's module, start a run, take turns until it is over.
const OK = 0, EXCEPTION = 1, OUT_OF_MEMORY = 2;
const NO_LOGS = utf8("[]");
let handler = null, result = null;

expose({
  navigator: Object.freeze({ userAgent: "lichen-exact", language: "en", hardwareConcurrency: 1 }),
  self: globalThis,
  reportError(error) { log("error", ["Uncaught", error]); },
  caches: undefined,
});
delete globalThis.caches;

// Take a module's exports; return the reason why they are no function, if they are none.
function install(exports) {
  const given = exports?.default;
  const target = typeof given === "function" && given.prototype?.fetch ? new given() : given;
  if (typeof target === "function") handler = { fetch: target };
  else if (typeof target?.fetch === "function") handler = target;
  else return copyOf(utf8("the main module has no default export with a fetch() method"));
}

function readInput(text, buffer) {
  const head = JSON.parse(text);
  const plain = head.method === "GET" || head.method === "HEAD" || buffer === undefined;
  return receiveRequest(head, plain ? null : new Uint8Array_(buffer));
}

const context = () => ({
  waitUntil(promise) {
    state.waiting++;
    Promise_.resolve(promise)
      .catch((error) => log("error", ["Uncaught in waitUntil:", error]))
      .then(() => { state.waiting--; });
  },
  passThroughOnException() {},
  props: {},
});

async function answer(head, buffer) {
  const request = readInput(head, buffer);
  const response = await handler.fetch(request, Object.create(null), context());
  if (!(response instanceof Response)) throw new TypeError("fetch() did not return a Response");
  const body = await takeBody(response);
  const packed = utf8(
    JSON.stringify({ status: response.status, headers: rawHeaders(response.headers) }),
  );
  if (body.length + packed.length > OUTPUT_BYTES_MAX) {
    throw new RangeError(`a response has at most ${OUTPUT_BYTES_MAX} bytes`);
  }
  return [lengthPrefix(packed.length), packed, body];
}

function failed(error) {
  const memory = error instanceof InternalError && error.message === "out of memory";
  log("error", ["Uncaught", error]);
  result = { kind: memory ? OUT_OF_MEMORY : EXCEPTION, output: memory ? [] : [utf8(describe(error))] };
}

function start(head, buffer) {
  answer(head, buffer).then(
    (output) => { result = { kind: OK, output }; },
    failed,
  );
}

// Called whenever no job is left. Returns the packed result once the run is over. After the response,
// timers run on only while something that was handed to waitUntil is not settled.
function turn() {
  if (result !== null && state.waiting === 0) return finish();
  if (nextTimer()) return undefined;
  if (result === null) failed(new Error_("the function waits for something that never happens"));
  return finish();
}

function finish() {
  if (state.logsDropped) state.logs.push(["warn", `${state.logsDropped} lines dropped`]);
  const logs = state.logs.length ? utf8(JSON.stringify(state.logs)) : NO_LOGS;
  const { kind, output } = result;
  return concat([new Uint8Array_([kind]), lengthPrefix(logs.length), logs, ...output]).buffer;
}

return { install, start, turn, describe: (error) => copyOf(utf8(describe(error))) };
