// A shopping cart that is written at one PoP and read at another.
//
// The answer to a write carries a bookmark in `starling-bookmark`. The page sends it along with its next request, so that
// wherever that arrives the cart is as the visitor left it.

const ITEM = /^[\w-]{1,40}$/;

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    const [, visitor, item] = pathname.split("/");
    if (!visitor) return new Response(PAGE, { headers: { "content-type": "text/html; charset=utf-8" } });
    if (!ITEM.test(visitor) || (item && !ITEM.test(item))) return new Response("No such cart.\n", { status: 404 });

    // One key for each item: two devices that add different things don't overwrite each other.
    const prefix = `${visitor}/`;
    switch (request.method) {
      case "PUT": {
        const count = Number(await request.text());
        if (!item || !Number.isInteger(count) || count < 1 || count > 99) {
          return new Response("PUT /visitor/item takes a count from 1 to 99.\n", { status: 400 });
        }
        await env.KV.put(prefix + item, "", { metadata: { count }, expirationTtl: 30 * 24 * 3600 });
        break;
      }
      case "DELETE":
        if (item) await env.KV.delete(prefix + item);
        break;
      case "GET":
        break;
      default:
        return new Response("GET, PUT and DELETE.\n", { status: 405 });
    }
    const { keys } = await env.KV.list({ prefix });
    const items = Object.fromEntries(keys.map(({ name, metadata }) => [name.slice(prefix.length), metadata.count]));
    return Response.json({ pop: request.cf?.colo, items });
  },
};

const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Cart</title><style>body{font:16px/1.5 system-ui;max-width:32rem;margin:10vh auto;padding:0 1rem}button{font:inherit}</style>
<h1>Cart</h1><p><button>apple</button> <button>bread</button> <button>cheese</button></p><pre></pre>
<script>
  const visitor = localStorage.visitor ??= crypto.randomUUID();
  const cart = {};
  async function call(path, init = {}) {
    // What this visitor has seen, to be waited for.
    const headers = localStorage.bookmark ? { "starling-bookmark": localStorage.bookmark } : {};
    const answer = await fetch("/" + visitor + path, { ...init, headers });
    localStorage.bookmark = answer.headers.get("starling-bookmark") ?? localStorage.bookmark ?? "";
    Object.assign(cart, await answer.json());
    document.querySelector("pre").textContent = JSON.stringify(cart, null, 2);
  }
  for (const button of document.querySelectorAll("button")) {
    const item = button.textContent;
    button.onclick = () => call("/" + item, { method: "PUT", body: (cart.items[item] ?? 0) + 1 });
  }
  call("");
</script></html>
`;
