// Host names: https://url.spec.whatwg.org/#host-parsing. Unicode names are lower-cased, brought to
// normal form C and encoded by RFC 3492; the tables of UTS 46 beyond that are not carried here.
const FORBIDDEN_HOST = /[\0\t\n\r #/:<>?@[\\\]^|]/;
const FORBIDDEN_DOMAIN = /[\0-\x20"#%/:<>?@[\\\]^`{|}\x7f]/;

function parseHost(input, special) {
  if (input.startsWith("[")) {
    if (!input.endsWith("]")) return null;
    const pieces = parseIPv6(input.slice(1, -1));
    return pieces === null ? null : `[${writeIPv6(pieces)}]`;
  }
  if (!special) {
    return FORBIDDEN_HOST.test(input) ? null : percentEncode(input, isC0);
  }
  const domain = toASCII(text(percentDecode(input)));
  if (domain === null || domain === "" || FORBIDDEN_DOMAIN.test(domain)) return null;
  return endsInNumber(domain) ? parseIPv4(domain) : domain;
}

function toASCII(domain) {
  const lower = domain.replace(/[\u00ad\u200b\u2060\ufeff]/g, "").normalize("NFKC").toLowerCase()
    .normalize("NFC").replace(/[\u3002\uff0e\uff61]/g, ".");
  if (/^[\0-\x7f]*$/.test(lower)) return lower;
  const labels = lower.split(".").map(punycode);
  return labels.includes(null) ? null : labels.join(".");
}

function punycode(label) {
  if (/^[\0-\x7f]*$/.test(label)) return label;
  const points = Array.from(label, (character) => character.codePointAt(0));
  if (points.some((point) => point === 0xfffd || (point >= 0xd800 && point < 0xe000))) return null;
  const basic = points.filter((point) => point < 128);
  let output = "xn--" + String.fromCodePoint(...basic) + (basic.length ? "-" : "");
  let handled = basic.length, n = 128, delta = 0, bias = 72;
  while (handled < points.length) {
    const next = Math.min(...points.filter((point) => point >= n));
    delta += (next - n) * (handled + 1);
    n = next;
    for (const point of points) {
      if (point < n) delta++;
      if (point !== n) continue;
      let rest = delta;
      for (let k = 36; ; k += 36) {
        const threshold = k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias;
        if (rest < threshold) break;
        output += punycodeDigit(threshold + ((rest - threshold) % (36 - threshold)));
        rest = Math.floor((rest - threshold) / (36 - threshold));
      }
      output += punycodeDigit(rest);
      bias = adaptBias(delta, handled + 1, handled === basic.length);
      delta = 0;
      handled++;
    }
    delta++;
    n++;
  }
  return output;
}

function punycodeDigit(digit) {
  return String.fromCharCode(digit < 26 ? digit + 97 : digit + 22);
}

function adaptBias(delta, count, first) {
  let rest = first ? Math.floor(delta / 700) : delta >> 1;
  rest += Math.floor(rest / count);
  let k = 0;
  for (; rest > 455; k += 36) rest = Math.floor(rest / 35);
  return k + Math.floor((36 * rest) / (rest + 38));
}

function endsInNumber(domain) {
  const parts = domain.split(".");
  if (parts.at(-1) === "" && parts.length > 1) parts.pop();
  return /^([0-9]+|0[xX][0-9A-Fa-f]*)$/.test(parts.at(-1));
}

function parseIPv4(domain) {
  const parts = domain.split(".");
  if (parts.at(-1) === "" && parts.length > 1) parts.pop();
  if (parts.length > 4) return null;
  const numbers = parts.map(ipv4Number);
  if (numbers.includes(null)) return null;
  const last = numbers.pop();
  if (numbers.some((number) => number > 255) || last >= 256 ** (4 - numbers.length)) return null;
  const address = numbers.reduce((sum, number, index) => sum + number * 256 ** (3 - index), last);
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
}

function ipv4Number(part) {
  if (/^0[xX][0-9A-Fa-f]*$/.test(part)) return part.length === 2 ? 0 : parseInt(part.slice(2), 16);
  if (/^0[0-7]+$/.test(part)) return parseInt(part, 8);
  if (/^0[0-9]+$/.test(part) || !/^[0-9]+$/.test(part)) return null;
  return parseInt(part, 10);
}

function parseIPv6(input) {
  const halves = input.split("::");
  if (halves.length > 2) return null;
  const sides = halves.map((half) => (half === "" ? [] : half.split(":")));
  const last = sides.at(-1);
  if (last.length && last.at(-1).includes(".")) {
    const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(last.pop());
    if (!match || match.slice(1).some((part) => part > 255 || /^0\d/.test(part))) return null;
    const [a, b, c, d] = match.slice(1).map(Number);
    last.push((a * 256 + b).toString(16), (c * 256 + d).toString(16));
  }
  if (!sides.flat().every((piece) => /^[0-9A-Fa-f]{1,4}$/.test(piece))) return null;
  const [front, back = []] = sides.map((side) => side.map((piece) => parseInt(piece, 16)));
  if (halves.length === 1) return front.length === 8 ? front : null;
  const missing = 8 - front.length - back.length;
  return missing < 1 ? null : [...front, ...Array(missing).fill(0), ...back];
}

function writeIPv6(pieces) {
  let best = -1, bestSize = 1;
  for (let start = 0; start < 8; start++) {
    let size = 0;
    while (start + size < 8 && pieces[start + size] === 0) size++;
    if (size > bestSize) [best, bestSize] = [start, size];
  }
  const write = (list) => list.map((piece) => piece.toString(16)).join(":");
  if (best < 0) return write(pieces);
  return `${write(pieces.slice(0, best))}::${write(pieces.slice(best + bestSize))}`;
}
