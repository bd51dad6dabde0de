// https://console.spec.whatwg.org: lines are kept, up to a bound, and handed over with the result.
const DEPTH_MAX = 4, ITEMS_MAX = 100;

function inspect(value, depth = 0, seen = new Set()) {
  if (typeof value === "string") return depth ? JSON.stringify(value) : value;
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return `[Function: ${value.name || "(anonymous)"}]`;
  if (typeof value !== "object" || value === null) return String(value);
  if (seen.has(value)) return "[Circular]";
  if (value instanceof Error_) return describe(value);
  if (value instanceof Date || value instanceof RegExp) return String(value);
  if (depth >= DEPTH_MAX) return Array.isArray(value) ? "[Array]" : "[Object]";
  seen.add(value);
  const inner = (item) => inspect(item, depth + 1, seen);
  const written = inspectItems(value, inner);
  seen.delete(value);
  return written;
}

function inspectItems(value, inner) {
  const few = (items) => items.slice(0, ITEMS_MAX).join(", ") + (items.length > ITEMS_MAX ? ", ..." : "");
  if (Array.isArray(value)) return `[ ${few(value.slice(0, ITEMS_MAX + 1).map(inner))} ]`;
  if (isView(value)) return `${apply(viewTag, value, []) ?? "DataView"}(${value.byteLength} bytes)`;
  if (value instanceof Map) {
    return `Map(${value.size}) { ${few([...value].map(([k, v]) => `${inner(k)} => ${inner(v)}`))} }`;
  }
  if (value instanceof Set) return `Set(${value.size}) { ${few([...value].map(inner))} }`;
  if (value instanceof Headers) return `Headers { ${few(rawHeaders(value).map(([k, v]) => `${k}: ${v}`))} }`;
  const name = value.constructor?.name;
  const fields = Object.keys(value).map((key) => `${key}: ${inner(value[key])}`);
  return `${name && name !== "Object" ? name + " " : ""}{ ${few(fields)} }`;
}

function format(values) {
  const [first, ...rest] = values;
  if (typeof first !== "string" || !first.includes("%")) return values.map((v) => inspect(v)).join(" ");
  const written = first.replace(/%([sdifoOjc%])/g, (mark, kind) => {
    if (kind === "%") return "%";
    if (!rest.length) return mark;
    const value = rest.shift();
    if (kind === "c") return "";
    if (kind === "d" || kind === "i") return String(Math.trunc(Number(value)));
    if (kind === "f") return String(Number(value));
    return kind === "s" ? inspect(value) : inspect(value, 1);
  });
  return [written, ...rest.map((value) => inspect(value))].join(" ");
}

function log(level, values) {
  let line;
  try {
    line = format(values);
  } catch {
    line = "a value that cannot be shown";
  }
  const size = line.length * 2 + 16;
  if (state.logBytes + size > LOG_BYTES_MAX) {
    state.logsDropped++;
    return;
  }
  state.logBytes += size;
  state.logs.push([level, line]);
}

const counts = new Map();
const console = {
  assert(condition, ...values) { if (!condition) log("error", ["Assertion failed", ...values]); },
  count(label = "default") {
    counts.set(label, (counts.get(label) ?? 0) + 1);
    log("info", [`${label}: ${counts.get(label)}`]);
  },
  countReset(label = "default") { counts.delete(label); },
  debug(...values) { log("debug", values); },
  dir(value) { log("log", [inspect(value, 1)]); },
  error(...values) { log("error", values); },
  group(...values) { if (values.length) log("log", values); },
  groupEnd() {},
  info(...values) { log("info", values); },
  log(...values) { log("log", values); },
  table(value) { log("log", [inspect(value, 1)]); },
  time() {},
  timeEnd(label = "default") { log("info", [`${label}: 0ms`]); },
  timeLog(label = "default", ...values) { log("info", [`${label}: 0ms`, ...values]); },
  trace(...values) { log("debug", ["Trace:", ...values]); },
  warn(...values) { log("warn", values); },
};
console.groupCollapsed = console.group;
console.clear = console.groupEnd;
expose({ console });
