// Asked where no file answers. START is the page to begin with, if the site has no index.html of its own.
export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname === "/" && env.START) return Response.redirect(new URL(env.START, url), 302);
    const found = await env.ASSETS.fetch(request);
    if (found.status !== 404 || found.headers.has("content-type")) return found;
    return new Response(MISSING, { status: 404, headers: { "content-type": "text/html; charset=utf-8" } });
  },
};

const MISSING = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Not found</title><style>body{font:16px/1.5 system-ui;max-width:32rem;margin:10vh auto;padding:0 1rem}</style>
<h1>There is no such page</h1><p>Begin at <a href="/">the start</a>.</p></html>
`;
