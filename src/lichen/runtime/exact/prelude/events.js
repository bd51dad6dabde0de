// DOM events, as far as AbortSignal and libraries need them: no tree, no bubbling.
class Event {
  #stopped = false;
  constructor(type, { bubbles = false, cancelable = false, composed = false } = {}) {
    this.type = String(type);
    this.bubbles = !!bubbles;
    this.cancelable = !!cancelable;
    this.composed = !!composed;
    this.defaultPrevented = false;
    this.target = this.currentTarget = null;
    this.timeStamp = 0;
  }
  preventDefault() { if (this.cancelable) this.defaultPrevented = true; }
  stopPropagation() {}
  stopImmediatePropagation() { this.#stopped = true; }
  static isStopped(event) { return event.#stopped; }
}
const isStopped = Event.isStopped;
delete Event.isStopped;

class CustomEvent extends Event {
  constructor(type, init = {}) {
    super(type, init);
    this.detail = init.detail ?? null;
  }
}

class EventTarget {
  #listeners = new Map();
  addEventListener(type, listener, options) {
    if (listener == null) return;
    const { once = false, signal } = typeof options === "object" && options ? options : {};
    if (signal?.aborted) return;
    const list = this.#listeners.get(type) ?? [];
    if (list.some((entry) => entry.listener === listener)) return;
    list.push({ listener, once });
    this.#listeners.set(type, list);
    signal?.addEventListener("abort", () => this.removeEventListener(type, listener));
  }
  removeEventListener(type, listener) {
    const list = this.#listeners.get(type);
    if (list) this.#listeners.set(type, list.filter((entry) => entry.listener !== listener));
  }
  dispatchEvent(event) {
    event.target = event.currentTarget = this;
    for (const { listener, once } of [...(this.#listeners.get(event.type) ?? [])]) {
      if (once) this.removeEventListener(event.type, listener);
      try {
        if (typeof listener === "function") apply(listener, this, [event]);
        else listener.handleEvent(event);
      } catch (error) {
        log("error", [error]);
      }
      if (isStopped(event)) break;
    }
    return !event.defaultPrevented;
  }
}

const signalKey = Symbol("made by a controller");
class AbortSignal extends EventTarget {
  #reason;
  #aborted = false;
  onabort = null;
  constructor(key) {
    if (key !== signalKey) throw new TypeError("Illegal constructor");
    super();
  }
  get aborted() { return this.#aborted; }
  get reason() { return this.#reason; }
  throwIfAborted() { if (this.#aborted) throw this.#reason; }
  static abort(reason) { return abort(new AbortSignal(signalKey), reason); }
  static timeout(ms) {
    const signal = new AbortSignal(signalKey);
    setTimeout(() => abort(signal, new DOMException("The operation timed out", "TimeoutError")), ms);
    return signal;
  }
  static any(signals) {
    const joined = new AbortSignal(signalKey);
    for (const signal of signals) {
      if (signal.aborted) return abort(joined, signal.reason);
      signal.addEventListener("abort", () => abort(joined, signal.reason), { once: true });
    }
    return joined;
  }
  static end(signal, reason) {
    if (signal.#aborted) return signal;
    signal.#aborted = true;
    signal.#reason = reason === undefined
      ? new DOMException("The operation was aborted", "AbortError") : reason;
    const event = new Event("abort");
    if (typeof signal.onabort === "function") apply(signal.onabort, signal, [event]);
    signal.dispatchEvent(event);
    return signal;
  }
}
const abort = AbortSignal.end;
delete AbortSignal.end;

class AbortController {
  #signal = new AbortSignal(signalKey);
  get signal() { return this.#signal; }
  abort(reason) { abort(this.#signal, reason); }
}

for (const type of [Event, CustomEvent, EventTarget, AbortSignal, AbortController]) {
  named(type, type.name);
}
expose({ Event, CustomEvent, EventTarget, AbortSignal, AbortController });
