// HTMLRewriter: the node reads the page, in pieces; here the handlers are told what it met, and say what they want.
import { bytesOf, finish, host, text } from "starling:host";
import { Response, drain } from "starling:body";
import { ReadableStream } from "starling:streams";

const ONLY_HERE = Symbol("made by the platform");
const OVER = "This content token is no longer valid. Content tokens are only valid during the execution of the relevant content handler.";
let open, close, ended;

/** What handlers are given: what was met, and what they wish for, in order. */
class Token {
  #met; #wishes = null; #removed = false;
  constructor(token, met) {
    if (token !== ONLY_HERE) throw new TypeError("Illegal constructor");
    this.#met = met;
  }
  static {
    open = (token) => { token.#wishes = []; };
    close = async (token) => {
      const wishes = token.#wishes;
      token.#wishes = null;
      return Promise.all(wishes.map(async ([name, one = "", other = "", isHtml = false]) => [name, await contentOf(one), other, isHtml]));
    };
  }
  get met() {
    if (this.#wishes === null) throw new TypeError(OVER);
    return this.#met;
  }
  wish(name, one, other, isHtml) {
    void this.met;
    this.#wishes.push([name, one, other, isHtml]);
    return this;
  }
  put(name, content, options) { return this.wish(name, content, "", Boolean(options?.html)); }
  get removed() { return void this.met, this.#removed; }
  before(content, options) { return this.put("before", content, options); }
  after(content, options) { return this.put("after", content, options); }
  replace(content, options) {
    this.#removed = true;
    return this.put("replace", content, options);
  }
  remove() {
    this.#removed = true;
    return this.wish("remove");
  }
}
for (const name of ["met", "wish", "put"]) Object.defineProperty(Token.prototype, name, { enumerable: false, configurable: false });

/** Content may be a stream: then it is all read before the page goes on. */
async function contentOf(content) {
  const stream = content instanceof Response ? content.body : content;
  return stream instanceof ReadableStream ? host.decode("utf-8", await drain(stream), false, false) : text(content);
}

class Element extends Token {
  #onEnd = [];
  static { ended = (element) => element.#onEnd; }
  get tagName() { return this.met.name; }
  set tagName(name) {
    this.met.name = text(name);
    this.wish("name", this.met.name);
  }
  get namespaceURI() { return this.met.namespace; }
  get attributes() { return this.met.attributes.map((pair) => [...pair])[Symbol.iterator](); }
  getAttribute(name) { return this.met.attributes.find(([known]) => known === text(name).toLowerCase())?.[1] ?? null; }
  hasAttribute(name) { return this.getAttribute(name) !== null; }
  setAttribute(name, value) {
    const [wanted, given] = [text(name).toLowerCase(), text(value)];
    if (wanted === "" || /[\t\n\f\r />="'\0]/.test(wanted)) throw new TypeError(wanted === "" ? "Attribute name can't be empty." : "Forbidden character in the attribute name.");
    const known = this.met.attributes.find(([other]) => other === wanted);
    if (known) known[1] = given;
    else this.met.attributes.push([wanted, given]);
    return this.wish("setAttribute", wanted, given);
  }
  removeAttribute(name) {
    const wanted = text(name).toLowerCase();
    this.met.attributes = this.met.attributes.filter(([known]) => known !== wanted);
    return this.wish("removeAttribute", wanted);
  }
  prepend(content, options) { return this.put("prepend", content, options); }
  append(content, options) { return this.put("append", content, options); }
  setInnerContent(content, options) { return this.put("setInnerContent", content, options); }
  removeAndKeepContent() { return this.wish("removeAndKeepContent"); }
  onEndTag(callback) {
    if (!this.met.hasContent) throw new TypeError("Parser error: No end tag.");
    this.#onEnd.push(callback);
  }
}
class EndTag extends Token {
  get name() { return this.met.name; }
  set name(name) {
    this.met.name = text(name);
    this.wish("name", this.met.name);
  }
}
class Comment extends Token {
  get text() { return this.met.text; }
  set text(value) {
    this.met.text = text(value);
    this.wish("text", this.met.text);
  }
}
class Text extends Token {
  get text() { return this.met.text; }
  get lastInTextNode() { return this.met.last; }
}
class Doctype extends Token {
  get name() { return this.met.name; }
  get publicId() { return this.met.publicId; }
  get systemId() { return this.met.systemId; }
}
class DocumentEnd extends Token {
  append(content, options) { return this.put("append", content, options); }
}
const CLASSES = { element: Element, endTag: EndTag, comments: Comment, text: Text, doctype: Doctype, end: DocumentEnd };
for (const [kind, type] of Object.entries(CLASSES)) finish(kind === "comments" ? "Comment" : type.name, type);

export class HTMLRewriter {
  #handlers = [];
  #add(selector, handlers, kinds) {
    for (const kind of kinds) {
      if (typeof handlers?.[kind] === "function") this.#handlers.push({ selector, kind, call: (token) => handlers[kind](token) });
    }
    return this;
  }
  on(selector, handlers) {
    const error = host.rewriterSelector(text(selector));
    if (error !== undefined) throw new TypeError(`Parser error: ${error}`);
    return this.#add(text(selector), handlers, ["element", "comments", "text"]);
  }
  onDocument(handlers) { return this.#add(null, handlers, ["doctype", "comments", "text", "end"]); }
  transform(response) {
    if (!(response instanceof Response)) throw new TypeError("HTMLRewriter.transform() takes a Response.");
    if (response.body === null) return response;
    const { status, statusText, headers, cf } = response;
    return new Response(rewritten(response.body, this.#handlers), { status, statusText, headers, cf });
  }
}
finish("HTMLRewriter", HTMLRewriter);

function rewritten(body, handlers) {
  const reader = body.getReader();
  const page = host.rewriterNew(JSON.stringify(handlers.map(({ selector, kind }) => ({ selector, kind }))));
  // Whose end tags are still to come, by number.
  const elements = new Map();
  const told = async (met) => {
    const wishes = [];
    let token = null, last = null;
    for (const one of met) {
      const callbacks = one.kind === "endTag" ? elements.get(one.number) ?? [] : [handlers[one.handler].call];
      elements.delete(one.number);
      // Handlers of one thing share it.
      if (token === null || one.kind === "endTag" || last.kind !== one.kind || last.at !== one.at) token = new CLASSES[one.kind](ONLY_HERE, one);
      last = one;
      open(token);
      for (const callback of callbacks) await callback(token);
      wishes.push(await close(token));
      if (one.kind === "element") {
        const callbacks = ended(token).splice(0);
        if (callbacks.length > 0) elements.set(one.number, callbacks);
      }
    }
    return JSON.stringify(wishes);
  };
  const piece = async (bytes) => {
    const wishes = await told(JSON.parse(host.rewriterFind(page, bytes)));
    return host.rewriterDo(page, bytes, wishes);
  };
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      try {
        for (;;) {
          const { done, value } = await reader.read();
          const given = done ? null : bytesOf(value);
          if (given === undefined) throw new TypeError("This ReadableStream did not return bytes.");
          let written = 0;
          for (let at = 0; done || at < given.length; at += host.pieceLength) {
            const bytes = await piece(done ? null : given.subarray(at, at + host.pieceLength));
            written += bytes.length;
            if (bytes.length > 0) controller.enqueue(bytes);
            if (done) return controller.close();
          }
          if (written > 0) return;
        }
      } catch (error) {
        host.rewriterDrop(page);
        await reader.cancel(error).catch(() => {});
        throw error;
      }
    },
    async cancel(reason) {
      host.rewriterDrop(page);
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}
