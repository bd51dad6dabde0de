import { Hono } from "hono";

const app = new Hono();

app.get("/", (c) => c.text("Hello from Lichen!\n"));

app.get("/hello/:name", (c) => c.json({ hello: c.req.param("name") }));

app.post("/sum", async (c) => {
  const { numbers } = await c.req.json<{ numbers: number[] }>();
  return c.json({ sum: numbers.reduce((total, number) => total + number, 0) });
});

app.notFound((c) => c.json({ error: `no route for ${c.req.path}` }, 404));

export default app;
