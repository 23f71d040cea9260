// Short links: POST a URL, get a short one; whoever follows it is sent on from the nearest PoP.

const ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz";
const SLUG_LEN = 7;

function newSlug() {
  const random = crypto.getRandomValues(new Uint8Array(SLUG_LEN));
  return Array.from(random, (byte) => ALPHABET[byte % ALPHABET.length]).join("");
}

export default {
  async fetch(request, env) {
    const { origin, pathname } = new URL(request.url);
    const slug = pathname.slice(1);
    if (slug === "") {
      if (request.method !== "POST") return new Response(PAGE, { headers: { "content-type": "text/html; charset=utf-8" } });
      const form = request.headers.get("content-type")?.startsWith("application/x-www-form-urlencoded");
      const target = form ? (await request.formData()).get("url") : (await request.text()).trim();
      if (!URL.canParse(target) || !/^https?:$/.test(new URL(target).protocol)) {
        return new Response("A link needs an http or https URL.\n", { status: 400 });
      }
      // Slugs are random, so no two PoPs need to agree on the next one.
      const made = newSlug();
      await env.KV.put(made, new URL(target).href, { metadata: { made: Date.now() } });
      return new Response(`${origin}/${made}\n`, { status: 201 });
    }
    const target = slug.length === SLUG_LEN ? await env.KV.get(slug) : null;
    if (target === null) return new Response("There is no such link.\n", { status: 404 });
    return new Response(null, { status: 302, headers: { location: target, "cache-control": "no-store" } });
  },
};

const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Short links</title><style>body{font:16px/1.5 system-ui;max-width:32rem;margin:10vh auto;padding:0 1rem}input{font:inherit;width:70%}button{font:inherit}</style>
<h1>Short links</h1><form method="post"><input name="url" type="url" placeholder="https://…" required> <button>Shorten</button></form></html>
`;
