// What the battery fetches from.
export default {
  async fetch(request) {
    const { pathname, searchParams } = new URL(request.url);
    switch (pathname) {
      case "/echo": {
        const headers = Object.fromEntries([...request.headers].filter(([name]) => /^(x-|content-type|authorization|cookie)/.test(name)));
        for (const name of ["x-forwarded-proto", "x-real-ip", "x-forwarded-for"]) delete headers[name];
        return Response.json({ method: request.method, body: await request.text(), headers });
      }
      case "/redirect": return new Response("elsewhere", { status: Number(searchParams.get("status")), headers: { location: searchParams.get("to") } });
      case "/loop": return new Response(null, { status: 302, headers: { location: "/loop" } });
      case "/status": return new Response(searchParams.get("status") === "204" ? null : "told", { status: Number(searchParams.get("status")), statusText: "As Told", headers: [["x-a", "1"], ["x-a", "2"], ["set-cookie", "a=1"], ["set-cookie", "b=2"]] });
      case "/chunks": {
        let n = 0;
        return new Response(new ReadableStream({ async pull(to) { await scheduler.wait(5); n++ < 4 ? to.enqueue(new TextEncoder().encode(`chunk ${n};`)) : to.close(); } }));
      }
      case "/large": return new Response(new Uint8Array(1_500_000).fill(120));
      case "/slow": await scheduler.wait(3_000); return new Response("late");
      default: return new Response("nothing", { status: 404 });
    }
  },
};
