import { renderToReadableStream } from "react-dom/server.edge";
import { Page } from "./page";

async function fetch(request: Request): Promise<Response> {
  const name = new URL(request.url).searchParams.get("name") ?? "world";
  const stream = await renderToReadableStream(<Page name={name} />);
  return new Response(stream, { headers: { "content-type": "text/html; charset=utf-8" } });
}

export default { fetch };
