// A Worker that does what it is asked for, good or bad.

import { connect } from "cloudflare:sockets";

const kept = [];
let requests = 0;

const attempt = async (work) => {
  try {
    return new Response(`done: ${await work()}`);
  } catch (error) {
    return new Response(`refused: ${error.message}`);
  }
};

const paths = {
  "/": () => new Response(`answer ${++requests}`),
  "/name": (request, env) => new Response(env.NAME),
  "/json": (request, env) => Response.json({ value: env.JSON, secret: env.SECRET }),
  "/seen": (request) => Response.json({ cf: request.cf, url: request.url, headers: Object.fromEntries(request.headers) }),
  "/get": async (request, env, ctx, query) => new Response(await env.KV.get(query.get("key"))),
  "/put": async (request, env, ctx, query) => {
    await env.KV.put(query.get("key"), query.get("value"));
    return new Response(await env.KV.get(query.get("key")));
  },
  "/echo": (request) => new Response(request.body, { headers: { "x-method": request.method } }),
  "/length": async (request) => new Response((await request.arrayBuffer()).byteLength),
  "/later": (request, env, ctx, query) => {
    ctx.waitUntil(scheduler.wait(2000).then(() => env.KV.put(query.get("key"), "done")));
    return new Response("soon");
  },
  "/drip": () => {
    const { readable, writable } = new TransformStream();
    (async () => {
      const writer = writable.getWriter();
      for (let n = 0; n < 10; n++) {
        await writer.write(new TextEncoder().encode(`${n}\n`));
        await scheduler.wait(200);
      }
      await writer.close();
    })();
    return new Response(readable);
  },
  "/slow": async () => {
    await scheduler.wait(1500);
    return new Response("slow");
  },
  "/socket": () => {
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    server.addEventListener("message", (event) => server.send(`heard ${event.data}`));
    return new Response(null, { status: 101, webSocket: client });
  },
  "/cache": async () => {
    await caches.default.put("http://cache/x", new Response("x", { headers: { "cache-control": "max-age=60" } }));
    return caches.default.match("http://cache/x");
  },
  "/status": () => new Response("teapot", { status: 418, headers: { "x-a": "b", "set-cookie": "c=d" } }),

  "/throw": () => {
    throw new Error("thrown on purpose");
  },
  "/loop": () => {
    for (;;);
  },
  "/async-loop": async () => {
    for (;;) await null;
  },
  // Never computes for long without a pause, and leaves others little time.
  "/choppy": async () => {
    const stretch = async (turns) => {
      const begun = Date.now();
      for (let n = 0; n < turns; n++);
      await scheduler.wait(1);
      return Date.now() - begun;
    };
    // As many turns as this machine needs for long stretches that are no offence by themselves.
    let turns = 50_000_000;
    while ((await stretch(turns)) < 600) turns *= 1.25;
    for (const end = Date.now() + 20_000; Date.now() < end; ) await stretch(turns);
    return new Response("done");
  },
  "/objects": () => {
    for (;;) kept.push(new Array(100_000).fill(1.5));
  },
  "/buffers": () => {
    for (;;) kept.push(new Uint8Array(10_000_000).fill(1));
  },
  "/storm": (request, env) =>
    attempt(async () => {
      const results = await Promise.allSettled(Array.from({ length: 3000 }, () => env.KV.get("k")));
      const refused = results.filter((result) => result.status === "rejected");
      return `${results.length - refused.length} of ${results.length}, ${refused[0]?.reason.message}`;
    }),
  "/fork": (request) =>
    attempt(async () => {
      const answers = await Promise.all([fetch(request.url), fetch(request.url)]);
      return answers.map((answer) => answer.status).join();
    }),
  "/fetch": (request, env, ctx, query) => attempt(async () => (await fetch(query.get("url"))).status),
  "/connect": (request, env, ctx, query) =>
    attempt(async () => {
      await connect(query.get("to")).opened;
      return "open";
    }),
  // Keys that look like ways out of the namespace.
  "/escape": (request, env, ctx, query) =>
    attempt(async () => {
      const key = query.get("key");
      await env.KV.put(key, "mine");
      const { keys } = await env.KV.list();
      return JSON.stringify([await env.KV.get(key), keys.some(({ name }) => name === key)]);
    }),
  "/headers": () =>
    attempt(async () => {
      const headers = new Headers();
      for (let n = 0; n < 2000; n++) headers.set(`x-${n}`, "y".repeat(1000));
      return "made";
    }),
  "/huge-headers": () => {
    const headers = new Headers();
    for (let n = 0; n < 200; n++) headers.set(`x-${n}`, "y".repeat(10_000));
    return new Response("huge", { headers });
  },
  "/env": () => attempt(async () => JSON.stringify(globalThis.process?.env ?? null)),
};

export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    console.log("asked for", url.pathname);
    const path = paths[url.pathname];
    return path ? path(request, env, ctx, url.searchParams) : new Response("no such path", { status: 404 });
  },
  async scheduled(controller, env) {
    await env.KV.put(`cron ${env.NAME} ${controller.scheduledTime} ${crypto.randomUUID()}`, controller.cron);
  },
};
