// A Worker that carries out a list of KV operations in order and tells what each gave: JSON in, JSON out. The same
// module runs on workerd with a node behind it and in miniflare.
//
// An operation is {op, key?, keys?, type?, options?, value?, ns?}; its result {ok} or {error: {name, message}}.

const decode = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

const encode = (bytes) => {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
};

/** The value of a put: text, or bytes in one of the forms that `put` takes. */
function input({ text, base64, zeros, as }) {
  if (text !== undefined && as === undefined) return text;
  const bytes = zeros !== undefined ? new Uint8Array(zeros) : text !== undefined ? new TextEncoder().encode(text) : decode(base64);
  switch (as) {
    case "view":
      return new Uint8Array(bytes.buffer, 0, bytes.length);
    case "stream": {
      // Of unknown length, in pieces.
      let at = 0;
      const piece = Math.max(1, Math.ceil(bytes.length / 3));
      return new ReadableStream({
        type: "bytes",
        pull(controller) {
          if (at >= bytes.length) return controller.close();
          controller.enqueue(bytes.slice(at, (at += piece)));
        },
      });
    }
    case "fixed": {
      const { readable, writable } = new FixedLengthStream(bytes.length);
      const writer = writable.getWriter();
      writer.write(bytes).then(() => writer.close()).catch(() => {});
      return readable;
    }
    case "response":
      return new Response(bytes).body;
    case "number":
      return 42;
    default:
      return bytes.buffer;
  }
}

/** A result as JSON can carry it. */
async function output(value) {
  if (value === undefined) return { undefined: true };
  if (value instanceof ReadableStream) value = new Uint8Array(await new Response(value).arrayBuffer());
  if (value instanceof ArrayBuffer) value = new Uint8Array(value);
  if (value instanceof Uint8Array) {
    if (value.length <= 4096) return { base64: encode(value) };
    const digest = await crypto.subtle.digest("SHA-256", value);
    return { length: value.length, sha256: encode(new Uint8Array(digest)) };
  }
  if (value instanceof Map) {
    const entries = [];
    for (const [key, one] of value) entries.push([key, await output(one)]);
    return { map: entries };
  }
  if (typeof value === "string" && value.length > 4096) {
    return { text: await output(new TextEncoder().encode(value)) };
  }
  if (value !== null && typeof value === "object" && "cacheStatus" in value && "value" in value) {
    return { value: await output(value.value), metadata: value.metadata, cacheStatus: value.cacheStatus };
  }
  return { json: value };
}

const shown = (page) => ({ ...page, ...(page.cursor === undefined ? {} : { cursor: "there is more" }) });

async function carryOut(env, { op, ns = "KV", key, keys, type, options, value }) {
  const kv = env[ns];
  switch (op) {
    case "get":
      return output(await kv.get(keys ?? key, options ?? type));
    case "getWithMetadata":
      return output(await kv.getWithMetadata(keys ?? key, options ?? type));
    case "put":
      return output(await kv.put(key, input(value), options));
    case "delete":
      return output(await kv.delete(key));
    case "list":
      return { page: shown(await kv.list(options)) };
    case "listAll": {
      // Every page to the end. Cursors mean nothing to others, so they are left out.
      const pages = [];
      for (let cursor; ; ) {
        const page = await kv.list({ ...options, cursor });
        pages.push(shown(page));
        if (page.list_complete) return { pages };
        cursor = page.cursor;
      }
    }
    case "typeof":
      return output(typeof kv[key]);
    case "wait":
      await scheduler.wait(value);
      return output();
    default:
      throw new Error(`no such operation: ${op}`);
  }
}

export default {
  async fetch(request, env) {
    const results = [];
    for (const operation of await request.json()) {
      try {
        results.push({ ok: await carryOut(env, operation) });
      } catch (error) {
        results.push({ error: { name: error.name, message: error.message } });
      }
    }
    return Response.json(results);
  },
};
