// Headers: names without case, in the order of the alphabet, values joined by commas.
import { finish, text } from "starling:host";

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

function checkName(name) {
  const given = text(name);
  if (!NAME.test(given)) throw new TypeError("Invalid header name.");
  return given.toLowerCase();
}

function checkValue(value) {
  const given = text(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  if (/[\0\r\n]/.test(given)) throw new TypeError("Invalid header value.");
  return given;
}

const listOf = (flat) => (typeof flat !== "string" ? flat ?? [] : flat === "" ? [] : flat.split("\n"));

let fromFlat, toFlat;

export class Headers {
  // Name in lower case to a list of values. What came from the node (names and values in turn, as a list or as lines) is
  // read when it is first looked at.
  #map = null; #flat = null; #guarded = false;
  constructor(init) {
    if (init === undefined || init === null) return;
    if (init instanceof Headers) {
      for (const [name, values] of init.#all()) this.#all().set(name, [...values]);
    } else if (typeof init === "object" && typeof init[Symbol.iterator] === "function") {
      for (const pair of init) {
        const list = [...pair];
        if (list.length !== 2) throw new TypeError("To initialize a Headers object from a sequence, each inner sequence must have exactly two elements.");
        this.append(list[0], list[1]);
      }
    } else if (typeof init === "object") {
      for (const name of Object.keys(init)) this.append(name, init[name]);
    } else {
      throw new TypeError("Headers can be made of an object, of pairs, or of other Headers.");
    }
  }
  static {
    fromFlat = (flat, guarded) => {
      const headers = new Headers();
      [headers.#flat, headers.#guarded] = [flat, guarded];
      return headers;
    };
    toFlat = (headers) => {
      if (headers.#flat !== null) return listOf(headers.#flat);
      const flat = [];
      for (const [name, values] of headers.#map ?? []) for (const value of values) flat.push(name, value);
      return flat;
    };
  }
  #all() {
    if (this.#map === null) {
      this.#map = new Map();
      const flat = listOf(this.#flat);
      this.#flat = null;
      for (let i = 0; i < flat.length; i += 2) {
        const known = this.#map.get(flat[i]);
        if (known) known.push(flat[i + 1]);
        else this.#map.set(flat[i], [flat[i + 1]]);
      }
    }
    return this.#map;
  }
  #change() {
    if (this.#guarded) throw new TypeError("Can't modify immutable headers.");
    return this.#all();
  }
  append(name, value) {
    const [key, given, all] = [checkName(name), checkValue(value), this.#change()];
    const known = all.get(key);
    if (known) known.push(given);
    else all.set(key, [given]);
  }
  delete(name) { this.#change().delete(checkName(name)); }
  get(name) { return this.#all().get(checkName(name))?.join(", ") ?? null; }
  getSetCookie() { return [...(this.#all().get("set-cookie") ?? [])]; }
  getAll(name) {
    if (checkName(name) !== "set-cookie") throw new TypeError("getAll() can only be used with the header name \"Set-Cookie\".");
    return this.getSetCookie();
  }
  has(name) { return this.#all().has(checkName(name)); }
  set(name, value) { this.#change().set(checkName(name), [checkValue(value)]); }
  forEach(callback, self) { for (const [name, value] of this) callback.call(self, value, name, this); }
  *entries() {
    for (const name of [...this.#all().keys()].sort()) {
      const values = this.#all().get(name) ?? [];
      if (name === "set-cookie") for (const value of values) yield [name, value];
      else yield [name, values.join(", ")];
    }
  }
  *keys() { for (const [name] of this.entries()) yield name; }
  *values() { for (const [, value] of this.entries()) yield value; }
  [Symbol.iterator]() { return this.entries(); }
}
finish("Headers", Headers);

export { fromFlat, listOf, toFlat };
