// The trusted front of a tenant's process: runs in an isolate of its own, loads the tenant's code
// into another one, passes requests on, and answers pings from the thread that both share.
import ENTRY from "entry.js";

const ERROR_HEADER = "lichen-error"; // only this isolate may set it
const MESSAGE_CHARS_MAX = 1000;
const MARK = "\u0001"; // entry.js marks what the tenant's handler threw

async function load(env) {
  const packed = await (await env.CODE.fetch("http://code/")).arrayBuffer();
  const specBytes = new DataView(packed).getUint32(0);
  const decoder = new TextDecoder();
  const spec = JSON.parse(decoder.decode(new Uint8Array(packed, 4, specBytes)));
  return {
    compatibilityDate: spec.compatibilityDate,
    compatibilityFlags: spec.compatibilityFlags,
    mainModule: "lichen-entry.js",
    modules: {
      "lichen-entry.js": ENTRY,
      "index.js": decoder.decode(new Uint8Array(packed, 4 + specBytes)),
    },
    env: spec.env,
    globalOutbound: null,
  };
}

function failure(error) {
  let message = String(error?.message ?? error);
  const thrown = message.startsWith(MARK);
  if (thrown) message = message.slice(MARK.length);
  else console.error(message); // the code could not be loaded: its owner's log says why
  const kind = thrown ? "exception" : "load";
  const text = encodeURIComponent(message.slice(0, MESSAGE_CHARS_MAX).toWellFormed());
  return new Response(null, { status: 500, headers: { [ERROR_HEADER]: `${kind} ${text}` } });
}

function withoutForgery(response) {
  const headers = new Headers(response.headers);
  headers.delete(ERROR_HEADER);
  const { status, statusText, webSocket } = response;
  return new Response(response.body, { status, statusText, headers, webSocket });
}

export default {
  async fetch(request, env) {
    if (request.headers.has("lichen-ping")) return new Response(null, { status: 204 });
    try {
      const tenant = env.LOADER.get("tenant", () => load(env)).getEntrypoint();
      const response = await tenant.fetch(request);
      return response.headers.has(ERROR_HEADER) ? withoutForgery(response) : response;
    } catch (error) {
      return failure(error);
    }
  },
};
