import { marked } from "marked";

const ARTICLE = `
This page was **rendered on the network**: React ran in a sandbox on a node that somebody offers,
and its markdown was turned into HTML by an ordinary npm library.

- the style sheet comes from the site folder, by hash
- the run was metered and paid for in FLK
- the answer names it in the \`Lichen-Run\` header: \`lichen why RUN\` tells the rest
`;

export function Page({ name }: { name: string }) {
  return (
    <html lang="en">
      <head>
        <meta charSet="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>{`Hello, ${name}`}</title>
        <link rel="stylesheet" href="/style.css" />
      </head>
      <body>
        <h1>Hello, {name}!</h1>
        <article dangerouslySetInnerHTML={{ __html: marked.parse(ARTICLE, { async: false }) }} />
        <footer>Served by Lichen.</footer>
      </body>
    </html>
  );
}
