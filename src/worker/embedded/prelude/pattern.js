// URLPattern: the node takes patterns apart, regular expressions match them.
import { finish, host, text } from "starling:host";

const PARTS = ["protocol", "username", "password", "hostname", "port", "pathname", "search", "hash"];

/** A text or an object, as the node takes it. */
function given(input) {
  if (typeof input !== "object" || input === null || input instanceof globalThis.URL) return [text(input), undefined];
  const init = {};
  for (const name of [...PARTS, "baseURL"]) if (input[name] !== undefined) init[name] = text(input[name]);
  return [undefined, JSON.stringify(init)];
}

export class URLPattern {
  #parts;
  constructor(input = {}, base, options) {
    if (typeof base === "object" && base !== null && !(base instanceof globalThis.URL)) [base, options] = [undefined, base];
    const ignoreCase = Boolean(options?.ignoreCase);
    const parts = JSON.parse(host.patternCompile(...given(input), base === undefined ? undefined : text(base), ignoreCase));
    for (const name of PARTS) {
      try { parts[name].regexp = new RegExp(parts[name].regexpString, ignoreCase ? "ui" : "u"); } catch {
        throw new TypeError(`Failed to construct 'URLPattern': the ${name} holds an invalid regular expression.`);
      }
    }
    this.#parts = parts;
  }
  #match(input, base) {
    const json = host.patternInput(...given(input), base === undefined ? undefined : text(base));
    if (json === undefined || json === null) return null;
    const [values, found] = [JSON.parse(json), {}];
    for (const name of PARTS) {
      const match = this.#parts[name].regexp.exec(values[name]);
      if (match === null) return null;
      const groups = {};
      for (const [at, group] of this.#parts[name].groupNameList.entries()) groups[group] = match[at + 1];
      found[name] = { input: values[name], groups };
    }
    return found;
  }
  test(input = {}, base) { return this.#match(input, base) !== null; }
  exec(input = {}, base) {
    const found = this.#match(input, base);
    return found && { inputs: base === undefined ? [input] : [input, base], ...found };
  }
  get protocol() { return this.#parts.protocol.patternString; }
  get username() { return this.#parts.username.patternString; }
  get password() { return this.#parts.password.patternString; }
  get hostname() { return this.#parts.hostname.patternString; }
  get port() { return this.#parts.port.patternString; }
  get pathname() { return this.#parts.pathname.patternString; }
  get search() { return this.#parts.search.patternString; }
  get hash() { return this.#parts.hash.patternString; }
  get hasRegExpGroups() { return this.#parts.hasRegexpGroups; }
}
finish("URLPattern", URLPattern);
