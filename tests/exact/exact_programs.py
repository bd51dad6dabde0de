"""Programs whose outcome has to be the same everywhere, each with the kind of end it comes to."""

from lichen.runtime.exact.outcome import Kind

HELLO = "export default { fetch: () => new Response('hello') }"


def handler(body, before=""):
    return f"{before}\nexport default {{ async fetch(request, env, ctx) {{ {body} }} }}"


PROGRAMS = {
    "hello": (HELLO, Kind.OK),
    "json": (
        handler(
            "const d = JSON.parse(JSON.stringify({ list: Array.from({ length: 200 }, (_, i) => ({ i, s: 'é' + i })) }));"
            "return Response.json({ sum: d.list.reduce((a, b) => a + b.i, 0), text: JSON.stringify(d, null, 2) })"
        ),
        Kind.OK,
    ),
    "digests": (
        handler(
            "const out = [];"
            "for (const name of ['SHA-1', 'SHA-256', 'SHA-384', 'SHA-512'])"
            " out.push(new Uint8Array(await crypto.subtle.digest(name, new TextEncoder().encode('abc'))).toHex());"
            "return Response.json(out)"
        ),
        Kind.OK,
    ),
    "hmac": (
        handler(
            "const key = await crypto.subtle.importKey('raw', new TextEncoder().encode('k'), { name: 'HMAC', hash: 'SHA-256' }, true, ['sign', 'verify']);"
            "const mac = await crypto.subtle.sign('HMAC', key, new TextEncoder().encode('m'));"
            "return Response.json([new Uint8Array(mac).toHex(), await crypto.subtle.verify('HMAC', key, mac, new TextEncoder().encode('m'))])"
        ),
        Kind.OK,
    ),
    "ed25519": (
        handler(
            "const { privateKey, publicKey } = await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify']);"
            "const data = new TextEncoder().encode('message'), signature = await crypto.subtle.sign('Ed25519', privateKey, data);"
            "return Response.json([new Uint8Array(signature).toHex(), await crypto.subtle.verify('Ed25519', publicKey, signature, data),"
            " await crypto.subtle.verify('Ed25519', publicKey, signature, new Uint8Array(3))])"
        ),
        Kind.OK,
    ),
    "randomness": (
        handler(
            "return Response.json([crypto.randomUUID(), Math.random(), Array.from(crypto.getRandomValues(new Uint32Array(4)))])"
        ),
        Kind.OK,
    ),
    "dates": (
        handler(
            "return new Response([Date.now(), new Date(), new Date(2020, 5, 1).getTimezoneOffset(), performance.now()].join())"
        ),
        Kind.OK,
    ),
    "regex": (
        handler(
            r"return Response.json('The year 2024, the year 1999'.replace(/\b(?<y>\d{4})\b/gu, (m, y) => Number(y) + 1).match(/\p{L}+/gu))"
        ),
        Kind.OK,
    ),
    "catastrophic regex": (
        handler("return new Response(String(/^(a+)+$/.test('a'.repeat(40) + 'b')))"),
        Kind.OUT_OF_FUEL,
    ),
    "exception": (handler("throw new TypeError('no')"), Kind.EXCEPTION),
    "thrown object": (handler("throw { toString() { throw 1 } }"), Kind.EXCEPTION),
    "no response": (handler("return 42"), Kind.EXCEPTION),
    "never": (handler("await new Promise(() => {})"), Kind.EXCEPTION),
    "unhandled rejection": (
        handler("Promise.reject(new Error('nobody')); return new Response('ok')"),
        Kind.OK,
    ),
    "out of memory": (
        handler("const kept = []; for (;;) kept.push(new Uint8Array(1 << 20))"),
        Kind.OUT_OF_MEMORY,
    ),
    "memory in strings": (handler("let s = 'x'; for (;;) s += s + 'y'.repeat(1000)"), None),
    "out of memory, survived": (
        handler(
            "let n = 0; try { const k = []; for (;;) { k.push(new Uint8Array(1 << 20)); n++ } } catch (e) { return new Response(`${e.name} ${n}`) }"
        ),
        Kind.OK,
    ),
    "endless loop": (handler("for (;;);"), Kind.OUT_OF_FUEL),
    "endless microtasks": (
        handler("const again = () => Promise.resolve().then(again); await again()"),
        Kind.OUT_OF_FUEL,
    ),
    "endless timers": (
        handler("await new Promise(() => setInterval(() => {}, 1))"),
        Kind.OUT_OF_FUEL,
    ),
    "deep recursion": (
        handler(
            "let n = 0; const f = () => { n++; f() }; try { f() } catch (e) { return new Response(`${e.name} ${n}`) }"
        ),
        Kind.OK,
    ),
    "deep recursion, uncaught": (handler("const f = () => f(); f()"), Kind.EXCEPTION),
    "deep recursion in natives": (
        handler(
            "let s = []; for (let i = 0; i < 5000; i++) s = [s]; let e1, e2; try { s.flat(Infinity) } catch (e) { e1 = e.name }"
            " try { JSON.parse('['.repeat(5000)) } catch (e) { e2 = e.name } return new Response(`${e1} ${e2}`)"
        ),
        Kind.OK,
    ),
    "deep recursion in regex": (
        handler(
            "let r; try { r = new RegExp('('.repeat(20000) + ')'.repeat(20000)).test('') } catch (e) { r = e.name } return new Response(String(r))"
        ),
        Kind.OK,
    ),
    "deep recursion in source": (
        handler(
            "let r; try { r = eval('('.repeat(50000) + '1' + ')'.repeat(50000)) } catch (e) { r = e.name } return new Response(String(r))"
        ),
        Kind.OK,
    ),
    "deep proxies": (
        handler(
            "let p = {}; for (let i = 0; i < 5000; i++) p = new Proxy(p, {}); let r; try { r = p.x } catch (e) { r = e.name } return new Response(String(r))"
        ),
        Kind.OK,
    ),
    "sorting": (
        handler(
            "const a = Array.from({ length: 2000 }, (_, i) => (i * 7919) % 2003); return Response.json([a.toSorted((x, y) => x - y).slice(0, 50), a.sort().slice(0, 50)])"
        ),
        Kind.OK,
    ),
    "bigint": (
        handler(
            "let a = 1n; for (let i = 1n; i < 300n; i++) a *= i; return new Response(a.toString() + a.toString(36))"
        ),
        Kind.OK,
    ),
    "floats": (
        handler(
            "const f = [0.1 + 0.2, Math.sin(1e6), Math.pow(2, 0.5), Math.exp(1), Math.tan(3), Math.cbrt(5), Math.hypot(1, 2), 1e308 * 10, 0 / 0, -0];"
            "return Response.json([f.map(String), Array.from(new Uint8Array(new Float64Array(f).buffer))])"
        ),
        Kind.OK,
    ),
    "nan bits": (
        handler(
            "const f = new Float64Array([NaN, 0 / 0, Math.sqrt(-1), -NaN, Infinity - Infinity]); return Response.json(Array.from(new Uint8Array(f.buffer)))"
        ),
        Kind.OK,
    ),
    "typed arrays": (
        handler(
            "const a = new Float32Array(1000).map((_, i) => i / 3); return new Response(new Uint8Array(a.buffer).slice(0, 400))"
        ),
        Kind.OK,
    ),
    "proxy": (
        handler(
            "const seen = []; const p = new Proxy({ a: 1 }, { get: (t, k) => (seen.push(String(k)), t[k]), ownKeys: () => ['a'] }); ({ ...p }); p.b; return Response.json(seen)"
        ),
        Kind.OK,
    ),
    "generators": (
        handler(
            "function* g() { let a = 0, b = 1; for (;;) { yield a; [a, b] = [b, a + b] } } return Response.json(g().take(50).toArray())"
        ),
        Kind.OK,
    ),
    "async order": (
        handler(
            "const order = []; setTimeout(() => order.push('t10'), 10); setTimeout(() => order.push('t0'), 0); queueMicrotask(() => order.push('m'));"
            "await new Promise((done) => setTimeout(done, 20)); ctx.waitUntil(new Promise((done) => setTimeout(() => { console.log('later'); done() }, 5)));"
            "return Response.json(order)"
        ),
        Kind.OK,
    ),
    "collection is visible": (
        handler(
            "let n = 0; const r = new FinalizationRegistry(() => n++); for (let i = 0; i < 20000; i++) r.register({ i }, i); await 0; const w = new WeakRef({}); await 0;"
            " return new Response(`${n} ${typeof w.deref()}`)"
        ),
        Kind.OK,
    ),
    "streams": (
        handler(
            "const up = new TransformStream({ transform(c, t) { t.enqueue(c.toUpperCase()) } });"
            "const body = ReadableStream.from(['a', 'b', 'c']).pipeThrough(up).pipeThrough(new TextEncoderStream());"
            "const [x, y] = body.tee(); return new Response((await new Response(x).text()) + (await new Response(y).text()))"
        ),
        Kind.OK,
    ),
    "urls": (
        handler(
            "const u = new URL('HTTP://Us%20er:p@EXAMPLE.com:80/a/../b/./%7Ec?q=ä b#f'); u.searchParams.append('x', '1 2');"
            "return Response.json([u.href, new URL('//bücher.example', u).host, new URL('http://0x7f.1/').host, new URL('http://[::0:1]/').host])"
        ),
        Kind.OK,
    ),
    "clone": (
        handler(
            "const a = { d: new Date(1), m: new Map([[1, new Set([2])]]), b: new Uint8Array([1]), e: new RangeError('x') }; a.self = a; const c = structuredClone(a);"
            " return Response.json([c.self === c, c.m.get(1).has(2), c.d.getTime(), c.e.name, c.b[0]])"
        ),
        Kind.OK,
    ),
    "state does not stay": (
        handler(
            "count++; globalThis.x = count; return new Response(String(count))", "let count = 0;"
        ),
        Kind.OK,
    ),
    "logs": (
        handler(
            "console.log('a', { b: [1, 2] }); console.error(new Error('e').message); return new Response('')"
        ),
        Kind.OK,
    ),
    "fetch is refused": (
        handler("try { await fetch('http://x/') } catch (e) { return new Response(e.name) }"),
        Kind.OK,
    ),
    "fetch is refused, uncaught": (handler("return fetch('http://x/')"), Kind.EXCEPTION),
}

HOSTILE = {
    "a prelude that was polluted": (
        handler(
            "return new Response('still here')",
            "Array.prototype.push = () => { throw 1 }; Object.prototype.status = 7; Promise.prototype.then = () => {}; JSON.stringify = () => 'x';"
            " Map.prototype.get = () => 0; String.prototype.replace = () => ''; Uint8Array.prototype.set = () => {};",
        ),
        None,
    ),
    "a response that lies about itself": (
        handler(
            "const r = new Response('x'); Object.defineProperty(r, 'status', { value: 'no' }); Object.defineProperty(r, 'headers', { value: null }); return r"
        ),
        None,
    ),
    "a subclass with hostile getters": (
        handler("class R extends Response { get status() { for (;;); } } return new R('x')"),
        Kind.OUT_OF_FUEL,
    ),
    "a thenable for ever": (handler("return { then(f) { f(this) } }"), Kind.OUT_OF_FUEL),
    "names in hosts that nobody has": (
        handler(
            "let r = []; for (const f of Object.getOwnPropertyNames(globalThis)) if (/host|lichen/i.test(f)) r.push(f); return Response.json(r)"
        ),
        Kind.OK,
    ),
    "a large array buffer": (handler("return new Response(new Uint8Array(4e9).length + '')"), None),
    "a response that is too large": (
        handler("const a = new Uint8Array(17 * 2 ** 20); return new Response(a)"),
        None,
    ),
    "a flood of lines": (
        handler(
            "for (let i = 0; i < 1000; i++) console.log('x'.repeat(1000)); return new Response('')"
        ),
        Kind.OK,
    ),
    "a host call with odd sizes": (
        handler(
            "const out = [];"
            "for (const n of [0, 1, 65536, 65537]) try { crypto.getRandomValues(new Uint8Array(n)); out.push(n) } catch (e) { out.push(e.name) }"
            "const b = new ArrayBuffer(8, { maxByteLength: 64 }); const v = new Uint8Array(b); b.resize(2);"
            "out.push(new Uint8Array(await crypto.subtle.digest('SHA-256', v)).length);"
            "const d = new ArrayBuffer(8); d.transfer(); try { await crypto.subtle.digest('SHA-256', d); out.push('ok') } catch (e) { out.push(e.name) }"
            "try { await crypto.subtle.verify('Ed25519', {}, d, d) } catch (e) { out.push(e.name) }"
            "return Response.json(out)"
        ),
        Kind.OK,
    ),
    "shared memory": (
        handler(
            "const s = new SharedArrayBuffer(8); let r; try { r = Atomics.wait(new Int32Array(s), 0, 0, 1e9) } catch (e) { r = e.name } return new Response(r)"
        ),
        None,
    ),
}
