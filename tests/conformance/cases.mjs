// What case scripts share: a case prints its result as one line of JSON.

export function cases() {
  return async function run(name, body) {
    const begun = performance.now();
    let result = { case: name, ok: true };
    try {
      await body();
    } catch (error) {
      result = { case: name, ok: false, detail: String(error?.stack ?? error).slice(0, 2000) };
    }
    console.log(JSON.stringify({ ...result, secs: (performance.now() - begun) / 1000 }));
  };
}

/** Runs `check` until it does not throw, for at most ten seconds: what was written elsewhere takes a moment. */
export async function eventually(check) {
  const deadline = Date.now() + 10_000;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((done) => setTimeout(done, 10));
    }
  }
}
