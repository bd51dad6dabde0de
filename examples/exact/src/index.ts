import { Hono } from "hono";

const app = new Hono();

app.get("/", (c) =>
  c.text("A draw of lots. Send names: POST /draw {\"names\": [\"Ada\", \"Alan\"], \"winners\": 1}\n"));

app.post("/draw", async (c) => {
  const { names, winners = 1 } = await c.req.json<{ names: string[]; winners?: number }>();
  if (!Array.isArray(names) || names.length === 0) return c.json({ error: "send names" }, 400);
  return c.json({
    entries: await digest(JSON.stringify(names)),
    at: new Date().toISOString(),
    winners: shuffle(names).slice(0, winners),
  });
});

// Fisher and Yates. The randomness comes from the seed of the run, so the draw can be repeated.
function shuffle(names: string[]): string[] {
  const left = [...names];
  for (let end = left.length - 1; end > 0; end--) {
    const pick = Math.floor(Math.random() * (end + 1));
    [left[end], left[pick]] = [left[pick], left[end]];
  }
  return left;
}

async function digest(text: string): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export default app;
