// URL and URLSearchParams: the node parses and writes them.
import { finish, host, text } from "starling:host";

const [HREF, ORIGIN, PROTOCOL, USERNAME, PASSWORD, HOST, HOSTNAME, PORT, PATHNAME, SEARCH, HASH] = Array(11).keys();

let bind, reread;

export class URLSearchParams {
  #pairs = []; #changed = undefined;
  constructor(init = "") {
    if (typeof init === "object" && init !== null || typeof init === "function") {
      if (typeof init[Symbol.iterator] === "function") {
        for (const pair of init) {
          const list = [...pair];
          if (list.length !== 2) throw new TypeError("Sequence initializer must only contain pairs.");
          this.#pairs.push([text(list[0]), text(list[1])]);
        }
      } else {
        for (const name of Object.keys(init)) this.#pairs.push([text(name), text(init[name])]);
      }
    } else {
      this.#read(text(init));
    }
  }
  #read(query) {
    const flat = host.formRead(query.startsWith("?") ? query.slice(1) : query);
    this.#pairs = [];
    for (let i = 0; i < flat.length; i += 2) this.#pairs.push([flat[i], flat[i + 1]]);
  }
  static {
    bind = (params, query, changed) => {
      params.#read(query);
      params.#changed = changed;
    };
    reread = (params, query) => params.#read(query);
  }
  #write() { this.#changed?.(this.toString()); }
  get size() { return this.#pairs.length; }
  append(name, value) {
    this.#pairs.push([text(name), text(value)]);
    this.#write();
  }
  delete(name, value) {
    const [wanted, with_] = [text(name), value === undefined ? undefined : text(value)];
    this.#pairs = this.#pairs.filter(([n, v]) => n !== wanted || (with_ !== undefined && v !== with_));
    this.#write();
  }
  get(name) { return this.#pairs.find(([n]) => n === text(name))?.[1] ?? null; }
  getAll(name) { return this.#pairs.filter(([n]) => n === text(name)).map(([, value]) => value); }
  has(name, value) {
    return this.#pairs.some(([n, v]) => n === text(name) && (value === undefined || v === text(value)));
  }
  set(name, value) {
    const [wanted, given] = [text(name), text(value)];
    const at = this.#pairs.findIndex(([n]) => n === wanted);
    if (at < 0) this.#pairs.push([wanted, given]);
    else {
      this.#pairs[at][1] = given;
      this.#pairs = this.#pairs.filter(([n], i) => i <= at || n !== wanted);
    }
    this.#write();
  }
  sort() {
    this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.#write();
  }
  forEach(callback, self) { for (const [name, value] of this.#pairs) callback.call(self, value, name, this); }
  *entries() { for (let i = 0; i < this.#pairs.length; i++) yield [...this.#pairs[i]]; }
  *keys() { for (let i = 0; i < this.#pairs.length; i++) yield this.#pairs[i][0]; }
  *values() { for (let i = 0; i < this.#pairs.length; i++) yield this.#pairs[i][1]; }
  [Symbol.iterator]() { return this.entries(); }
  toString() { return host.formWrite(this.#pairs.flat()); }
}
finish("URLSearchParams", URLSearchParams);
export class URL {
  #parts; #params = null;
  constructor(url, base) {
    if (arguments.length === 0) throw new TypeError("Failed to construct 'URL': 1 argument required, but only 0 present.");
    const parts = host.urlParse(text(url), base === undefined ? undefined : text(base));
    if (parts === undefined) throw new TypeError("Invalid URL string.");
    this.#parts = parts;
  }
  static canParse(url, base) { return host.urlParse(text(url), base === undefined ? undefined : text(base)) !== undefined; }
  static parse(url, base) { return URL.canParse(url, base) ? new URL(url, base) : null; }
  #set(part, value) {
    this.#parts = host.urlSet(this.#parts[HREF], part, text(value)) ?? this.#parts;
    if (this.#params && (part === SEARCH || part === HREF)) reread(this.#params, this.#parts[SEARCH]);
  }
  get href() { return this.#parts[HREF]; }
  set href(value) {
    if (!URL.canParse(value)) throw new TypeError("Invalid URL string.");
    this.#set(HREF, value);
  }
  get origin() { return this.#parts[ORIGIN]; }
  get protocol() { return this.#parts[PROTOCOL]; }
  set protocol(value) { this.#set(PROTOCOL, value); }
  get username() { return this.#parts[USERNAME]; }
  set username(value) { this.#set(USERNAME, value); }
  get password() { return this.#parts[PASSWORD]; }
  set password(value) { this.#set(PASSWORD, value); }
  get host() { return this.#parts[HOST]; }
  set host(value) { this.#set(HOST, value); }
  get hostname() { return this.#parts[HOSTNAME]; }
  set hostname(value) { this.#set(HOSTNAME, value); }
  get port() { return this.#parts[PORT]; }
  set port(value) { this.#set(PORT, value); }
  get pathname() { return this.#parts[PATHNAME]; }
  set pathname(value) { this.#set(PATHNAME, value); }
  get search() { return this.#parts[SEARCH]; }
  set search(value) { this.#set(SEARCH, value); }
  get hash() { return this.#parts[HASH]; }
  set hash(value) { this.#set(HASH, value); }
  get searchParams() {
    if (!this.#params) {
      this.#params = new URLSearchParams();
      bind(this.#params, this.#parts[SEARCH], (query) => {
        this.#parts = host.urlSet(this.#parts[HREF], SEARCH, query) ?? this.#parts;
      });
    }
    return this.#params;
  }
  toString() { return this.#parts[HREF]; }
  toJSON() { return this.#parts[HREF]; }
}
finish("URL", URL);
