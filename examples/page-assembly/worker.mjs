// A page put together at the edge: a template and its fragments are keys, and change by themselves.

const NAME = /^[\w-]{1,40}$/;
const HTML = { "content-type": "text/html; charset=utf-8" };

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    const [, kind, name = ""] = pathname.split("/");
    if (request.method === "PUT") return change(kind, name, request, env);
    if (pathname !== "/") return new Response("There is nothing here.\n", { status: 404 });
    const template = (await env.KV.get("template", "stream")) ?? TEMPLATE;
    return new HTMLRewriter()
      .on("[data-fragment]", {
        // The page waits here, and what came before is on its way to the visitor already.
        async element(section) {
          const name = section.getAttribute("data-fragment");
          const fragment = NAME.test(name) ? await env.KV.get(`fragment/${name}`) : null;
          if (fragment === null) section.setAttribute("class", "missing").setInnerContent(`No fragment called ${name} yet`);
          else section.setInnerContent(fragment, { html: true });
        },
      })
      .on("[data-pop]", { element: (span) => { span.setInnerContent(request.cf?.colo ?? "somewhere"); } })
      .transform(new Response(template, { headers: HTML }));
  },
};

async function change(kind, name, request, env) {
  if (kind === "template") await env.KV.put("template", await request.text());
  else if (kind === "fragment" && NAME.test(name)) await env.KV.put(`fragment/${name}`, await request.text());
  else return new Response("PUT /template or /fragment/name.\n", { status: 404 });
  return new Response("It is on the page.\n");
}

const TEMPLATE = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>The Daily Edge</title><style>
  body{font:16px/1.5 system-ui;max-width:44rem;margin:8vh auto;padding:0 1rem;color:#223;background:#fbfaf7}
  main{display:grid;grid-template-columns:2fr 1fr;gap:1rem}section{background:#fff;border:1px solid #e6e3da;padding:0 1rem 1rem}
  .missing{border-style:dashed;background:none;color:#889;padding-top:1rem}footer{color:#889;margin-top:2rem}
</style><header><h1>The Daily Edge</h1></header>
<main><section data-fragment="news"></section><section data-fragment="weather"></section>
<section data-fragment="letters"></section><section data-fragment="market"></section></main>
<footer>Put together at <span data-pop></span>.</footer></html>
`;
