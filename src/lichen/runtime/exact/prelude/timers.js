// Timers fire in the order of their times, and nothing waits: the clock stands still in a run.
const timers = new Map(); // id -> { at, order, callback, arguments, every }
let timerIds = 0, elapsedMs = 0;
const TIMERS_MAX = 10_000;

function addTimer(callback, delay, values, repeat) {
  if (timers.size >= TIMERS_MAX) throw new RangeError(`at most ${TIMERS_MAX} timers at a time`);
  const wait = Math.max(Number(delay) || 0, repeat ? 1 : 0);
  const id = ++timerIds;
  const call = typeof callback === "function" ? callback : () => {};
  timers.set(id, { at: elapsedMs + Math.trunc(wait), order: id, call, values, every: repeat ? wait : 0 });
  return id;
}

function setTimeout(callback, delay, ...values) { return addTimer(callback, delay, values, false); }
function setInterval(callback, delay, ...values) { return addTimer(callback, delay, values, true); }
function clearTimeout(id) { timers.delete(Number(id)); }
function setImmediate(callback, ...values) { return addTimer(callback, 0, values, false); }

// Run the next timer; return whether there was one.
function nextTimer() {
  let next = null, nextId = 0;
  for (const [id, timer] of timers) {
    const earlier = next === null || timer.at < next.at ||
      (timer.at === next.at && timer.order < next.order);
    if (earlier) [next, nextId] = [timer, id];
  }
  if (next === null) return false;
  elapsedMs = Math.max(elapsedMs, next.at);
  if (next.every) {
    next.at += next.every;
    next.order = ++timerIds;
  } else {
    timers.delete(nextId);
  }
  try {
    apply(next.call, undefined, next.values);
  } catch (error) {
    log("error", ["Uncaught", error]);
  }
  return true;
}

expose({
  setTimeout, setInterval, setImmediate, clearTimeout, clearInterval: clearTimeout,
  clearImmediate: clearTimeout,
  performance: Object.freeze({ now: () => 0, timeOrigin: 0 }),
});
