// Runs data files of the web platform tests: how many cases there are of each, and which ones fail.
import patterns from "./urlpatterntestdata.json";
import setters from "./setters_tests.json";
import urls from "./urltestdata.json";

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const failed = (cases, holds) => {
  const failures = cases.filter((one) => { try { return !holds(one); } catch { return true; } });
  return { cases: cases.length, failures };
};

function parses({ input, base, failure, ...expected }) {
  let url;
  try { url = new URL(input, base ?? undefined); } catch (error) { return Boolean(failure) && error instanceof TypeError; }
  const parts = ["href", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash", "origin"];
  return !failure && parts.every((part) => expected[part] === undefined || url[part] === expected[part]);
}

function sets([part, { href, new_value, expected }]) {
  const url = new URL(href);
  url[part] = new_value;
  return Object.entries(expected).every(([name, value]) => url[name] === value);
}

const PARTS = ["protocol", "username", "password", "hostname", "port", "pathname", "search", "hash"];

function matches({ pattern, inputs, expected_obj, expected_match, exactly_empty_components = [] }) {
  let made;
  try { made = new URLPattern(...pattern); } catch (error) { return expected_obj === "error" && error instanceof TypeError; }
  if (expected_obj === "error") return false;
  for (const part of PARTS) if (expected_obj?.[part] !== undefined && made[part] !== expected_obj[part]) return false;
  if (expected_match === "error") {
    try { made.exec(...inputs); return false; } catch (error) { return error instanceof TypeError; }
  }
  const found = made.exec(...inputs);
  if (made.test(...inputs) !== Boolean(expected_match) || !expected_match) return found === null && !expected_match;
  if (!same(found.inputs, expected_match.inputs ?? inputs)) return false;
  return PARTS.every((part) => {
    const expected = expected_match[part] ?? { input: "", groups: exactly_empty_components.includes(part) ? {} : { 0: "" } };
    // What took no part in the match is undefined; JSON has null for it.
    const groups = Object.fromEntries(Object.entries(found[part].groups).map(([name, value]) => [name, value ?? null]));
    const sorted = (object) => Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1));
    return found[part].input === expected.input && same(sorted(groups), sorted(expected.groups));
  });
}

export default {
  fetch() {
    const setting = Object.entries(setters).filter(([name]) => name !== "comment").flatMap(([name, cases]) => cases.map((one) => [name, one]));
    const told = {
      urls: failed(urls.filter((one) => typeof one !== "string"), parses),
      setters: failed(setting, sets),
      patterns: failed(patterns.filter((one) => !one.skip), matches),
    };
    // In few words each.
    told.urls.failures = told.urls.failures.map(({ input, base }) => (base === null || base === undefined ? input : `${input} at ${base}`));
    told.setters.failures = told.setters.failures.map(([name, { href, new_value }]) => `${name} of ${href}: ${new_value}`);
    told.patterns.failures = told.patterns.failures.map(({ pattern, inputs }) => JSON.stringify([pattern, inputs ?? []]));
    return Response.json(told);
  },
};
