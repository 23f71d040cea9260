// Logins: a password is checked at one PoP, the session holds at every PoP, and so does its end.
//
// A session is a random token; what is stored is its hash, so that who can read the namespace can't take sessions over.
// Revoking a session deletes its key: within the convergence lag it is over everywhere.

const SESSION_SECS = 24 * 3600;
const ROUNDS = 50_000;
const bytes = (text) => new TextEncoder().encode(text);
const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));

async function stretched(password, salt) {
  const key = await crypto.subtle.importKey("raw", bytes(password), "PBKDF2", false, ["deriveBits"]);
  return new Uint8Array(await crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt, iterations: ROUNDS }, key, 256));
}

const sessionKey = async (token) => `session/${hex(await crypto.subtle.digest("SHA-256", bytes(token)))}`;
// Programs send the token as a bearer, browsers as a cookie.
const tokenOf = ({ headers }) =>
  /^Bearer ([0-9a-f]{64})$/.exec(headers.get("authorization") ?? "")?.[1] ??
  /(?:^|;\s*)session=([0-9a-f]{64})(?:;|$)/.exec(headers.get("cookie") ?? "")?.[1];

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    switch (`${request.method} ${pathname}`) {
      case "POST /register": {
        const { name, password } = await request.json();
        if (!/^[\w-]{1,40}$/.test(name) || typeof password !== "string" || password.length < 8) {
          return new Response("A name, and a password of at least 8 characters.\n", { status: 400 });
        }
        if ((await env.KV.get(`user/${name}`)) !== null) return new Response("That name is taken.\n", { status: 409 });
        const salt = crypto.getRandomValues(new Uint8Array(16));
        await env.KV.put(`user/${name}`, JSON.stringify({ salt: hex(salt), hash: hex(await stretched(password, salt)) }));
        return new Response("registered\n", { status: 201 });
      }
      case "POST /login": {
        const { name, password } = await request.json();
        const user = await env.KV.get(`user/${name}`, "json");
        // As much work for a name that nobody has.
        const hash = await stretched(`${password}`, unhex(user?.salt ?? "00"));
        if (!user || !crypto.subtle.timingSafeEqual(hash, unhex(user.hash))) return new Response("Wrong name or password.\n", { status: 401 });
        const token = hex(crypto.getRandomValues(new Uint8Array(32)));
        await env.KV.put(await sessionKey(token), name, { expirationTtl: SESSION_SECS });
        const cookie = `session=${token}; Path=/; Max-Age=${SESSION_SECS}; HttpOnly; SameSite=Strict`;
        return Response.json({ token }, { headers: { "set-cookie": cookie } });
      }
      case "POST /logout": {
        const token = tokenOf(request);
        if (token) await env.KV.delete(await sessionKey(token));
        return new Response("logged out\n");
      }
      case "GET /": {
        const token = tokenOf(request);
        const name = token ? await env.KV.get(await sessionKey(token)) : null;
        if (request.headers.get("accept")?.includes("text/html")) {
          return new Response(PAGE, { headers: { "content-type": "text/html; charset=utf-8" } });
        }
        if (name === null) return new Response("Log in first: POST /login.\n", { status: 401, headers: { "www-authenticate": "Bearer" } });
        return Response.json({ name, pop: request.cf?.colo });
      }
      default:
        return new Response("There is nothing here.\n", { status: 404 });
    }
  },
};

const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Logins</title><style>body{font:16px/1.5 system-ui;max-width:32rem;margin:10vh auto;padding:0 1rem}input,button{font:inherit}</style>
<h1>Logins</h1><form><input name="name" placeholder="name" required> <input name="password" type="password" placeholder="password" required>
<p><button value="register">Register</button> <button value="login">Log in</button> <button value="logout" formnovalidate>Log out</button></p></form>
<pre></pre><script>
  const show = (text) => { document.querySelector("pre").textContent = text; };
  const who = async () => { show(await (await fetch("/", { headers: { accept: "application/json" } })).text()); };
  document.forms[0].onsubmit = async (event) => {
    event.preventDefault();
    const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
    const answer = await fetch("/" + event.submitter.value, { method: "POST", body });
    if (!answer.ok || event.submitter.value === "register") show(await answer.text());
    else await who();
  };
  who();
</script></html>
`;
