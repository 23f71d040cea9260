// An A/B test: a visitor is put into a group once, by a cookie, and the shares change at every PoP with one write.

const EXPERIMENT = "headline";
const DEFAULT = { share: 0.5 };
const GROUPS = { a: "Your data, next door.", b: "Write anywhere. Read everywhere." };

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === `/${EXPERIMENT}` && request.method === "PUT") {
      const share = Number(await request.text());
      if (!(share >= 0 && share <= 1)) return new Response("The share of group b is a number from 0 to 1.\n", { status: 400 });
      await env.KV.put(EXPERIMENT, JSON.stringify({ share }));
      return Response.json({ share });
    }
    const known = /(?:^|;\s*)group=([ab])(?:;|$)/.exec(request.headers.get("cookie") ?? "")?.[1];
    const { share } = (await env.KV.get(EXPERIMENT, "json")) ?? DEFAULT;
    const group = known ?? (Math.random() < share ? "b" : "a");
    const response = new Response(`<!doctype html><title>A/B</title><h1>${GROUPS[group]}</h1>\n`, {
      headers: { "content-type": "text/html; charset=utf-8", "cache-control": "private, no-store", "x-group": group },
    });
    // Who was in a group stays in it.
    if (!known) response.headers.append("set-cookie", `group=${group}; Path=/; Max-Age=2592000; SameSite=Lax`);
    return response;
  },
};
