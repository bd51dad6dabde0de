// The tenant's main module: wraps the default export so that console lines carry the run they
// belong to and uncaught errors reach the owner's log with their stack. It runs among the tenant's
// own code and is trusted with nothing.
import { AsyncLocalStorage } from "node:async_hooks";
import * as app from "index.js";
export * from "index.js";

const MARK = "\u0001";
const runs = new AsyncLocalStorage();
const native = {};

for (const level of ["debug", "error", "info", "log", "warn"]) {
  native[level] = console[level].bind(console);
  console[level] = (...values) => write(level, values);
}

function write(level, values) {
  const run = runs.getStore();
  if (run === undefined) return native[level](...values);
  const mark = MARK + run + MARK;
  const [first, ...rest] = values;
  // The first string may be a format: the mark has to become part of it.
  if (typeof first === "string") return native[level](mark + first, ...rest);
  return native[level](mark + MARK, ...values); // the second MARK and a space are taken off again
}

function report(what, error) {
  write("error", [what, error]);
}

addEventListener("unhandledrejection", (event) => report("Unhandled rejection:", event.reason));

function describe(error) {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return "an error that cannot be described";
  }
}

// Patched once, on the prototype: a function per request would cost more than the whole wrapping.
let watched = false;
function watchBackground(ctx) {
  watched = true;
  const prototype = Object.getPrototypeOf(ctx);
  const waitUntil = prototype.waitUntil;
  prototype.waitUntil = function (promise) {
    const failed = (error) => report("Uncaught in waitUntil:", error);
    return waitUntil.call(this, Promise.resolve(promise).catch(failed));
  };
}

async function settle(handler, request, env, ctx) {
  try {
    const response = await handler.fetch(request, env, ctx);
    if (response instanceof Response) return response;
    throw new TypeError("fetch() did not return a Response");
  } catch (error) {
    report("Uncaught", error);
    throw new Error(MARK + describe(error));
  }
}

function guard(handler, request, env, ctx) {
  if (!watched) watchBackground(ctx);
  const run = request.headers.get("lichen-run") ?? undefined;
  return runs.run(run, settle, handler, request, env, ctx);
}

function wrap(handler) {
  if (typeof handler === "function") {
    return class extends handler {
      fetch(request) {
        const inner = { fetch: (outer) => super.fetch(outer) };
        return guard(inner, request, this.env, this.ctx);
      }
    };
  }
  if (typeof handler?.fetch !== "function") {
    throw new TypeError("the main module has no default export with a fetch() method");
  }
  return {
    __proto__: handler,
    fetch(request, env, ctx) {
      return guard(handler, request, env, ctx);
    },
  };
}

export default wrap(app.default);
