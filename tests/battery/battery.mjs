// What the platform answers: the cases of the group that is asked for, each by itself, as JSON. Run on both engines, whose
// answers are compared.
import { cases as bodies } from "./bodies.mjs";
import { cases as crypto } from "./crypto.mjs";
import { cases as html } from "./html.mjs";
import { loops, cases as network, scheduled } from "./network.mjs";
import { cases as platform } from "./platform.mjs";
import { cases as url } from "./url.mjs";

const groups = { platform, bodies, url, crypto, html, network, loops };
/** How long a case may take. */
const PATIENCE_MS = 5_000;

export default {
  async fetch(request, env, ctx) {
    const cases = groups[new URL(request.url).pathname.slice(1)];
    if (!cases) return Response.json(Object.keys(groups));
    const answers = {};
    for (const [name, answer] of Object.entries(cases)) {
      const late = scheduler.wait(PATIENCE_MS).then(() => "hangs");
      try { answers[name] = (await Promise.race([answer(env, ctx, request), late])) ?? null; } catch (error) { answers[name] = `threw ${error.name}: ${error.message}`; }
    }
    return Response.json(answers);
  },
  scheduled,
};
