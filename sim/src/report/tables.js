// What is said in words and figures.

const words = (name) => name.replaceAll("_", " ");
const timesParts = (permille) => [permille < 10_000 ? (permille / 1000).toFixed(2) : count(Math.round(permille / 1000)), "×"];
const times = (permille) => timesParts(permille).join(" ");

function drawHead({ summary }) {
  document.title = `${summary.scenario} · Starling simulation`;
  $("scenario").textContent = summary.scenario;
  $("about").textContent = summary.about;
  const where = summary.nodes === summary.pops ? `${count(summary.nodes)} PoPs, a node each` : `${count(summary.nodes)} nodes at ${count(summary.pops)} PoPs`;
  $("meta").textContent = `${where} · ${span(summary.virtual_us)} of virtual time · ${count(summary.writes.accepted)} writes · seed ${summary.seed}`;
  const broken = summary.violations.length;
  $("verdict").className = broken ? "bad" : "good";
  $("verdict").textContent = broken ? `✗ ${count(broken)} ${broken === 1 ? "promise" : "promises"} broken` : "✓ No promise broken";
  $("replay").textContent = summary.replay || `starling-sim run ${summary.scenario} --seed ${summary.seed}`;
  $("copy").addEventListener("click", async () => {
    const done = await navigator.clipboard?.writeText($("replay").textContent).then(() => true, () => false);
    if (!done) getSelection().selectAllChildren($("replay"));
    $("copy").textContent = done ? "Copied" : "Selected";
    setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
  });
  $("violations").hidden = !broken;
  $("violations").querySelector(".scroll").replaceChildren(table(["checker", "at", "=what it saw"], summary.violations.map((v) => [v.checker, span(v.at_us), v.what])));
}

function drawTiles({ summary }) {
  const tile = (label, [number, unit], under) => html("div", "tile", html("span", "", label), html("b", "", number, html("small", "", unit)), html("span", "", under));
  const { writes, traffic, lag_last: lag, bound_relayed: bound } = summary;
  const lost = [[writes.unfinished, "not everywhere"], [writes.refused, "refused"], [writes.unserved, "to nodes that were down"]].filter(([n]) => n);
  $("tiles").replaceChildren(
    tile("Last PoP, median", spanParts(lag.p50_us), `bound ${span(bound.p50_us)}`),
    tile("Last PoP, p99", spanParts(lag.p99_us), `bound ${span(bound.p99_us)}`),
    tile("Over its bound, p99", timesParts(summary.lag_over_bound.p99_us), `median ${times(summary.lag_over_bound.p50_us)}`),
    tile("Writes everywhere", [count(writes.everywhere), ""], lost.length ? lost.map(([n, what]) => `${count(n)} ${what}`).join(", ") : `of ${count(writes.everywhere + writes.unfinished)} measured`),
    tile("Copies per node", [digits(traffic.copies_per_node_milli / 1000), ""], "received for each write"),
    tile("Per write and node", bytesParts(traffic.bytes_per_write_per_node_milli / 1000), `${bytes(traffic.data_bytes_per_write_per_node_milli / 1000)} of data`),
    ...(summary.healed_us === null ? [] : [tile("All equal again", spanParts(summary.healed_us), "after the last fault")]),
  );
}

function drawQuantiles({ summary }) {
  const row = (name, q, show = span) => (q.count ? [name, count(q.count), ...[q.p50_us, q.p90_us, q.p99_us, q.max_us].map(show)] : [name, "0", "–", "–", "–", "–"]);
  const lead = row("Visible at the last PoP", summary.lag_last);
  lead.lead = true;
  $("quantiles").replaceChildren(table(["lag", "number", "p50", "p90", "p99", "max"], [
    lead,
    row("Bound, over the best relays", summary.bound_relayed),
    row("Bound, straight", summary.bound_direct),
    row("Last PoP, over its own bound", summary.lag_over_bound, times),
    row("Visible at 99 % of PoPs", summary.lag_most),
    row("Visible at each receiver", summary.lag_each),
    row("Watermarks behind the present", summary.watermark_lag),
    ...(summary.bookmark_reads ? [row("Reads that waited for a bookmark", summary.bookmark_wait)] : []),
  ]));
}

function drawTraffic({ summary }) {
  const { traffic } = summary;
  const flows = Object.entries(traffic.classes);
  const all = flows.reduce((sum, [, flow]) => sum + flow.bytes, 0);
  const receipts = Math.max(1, summary.writes.accepted * summary.nodes);
  $("traffic").replaceChildren(table(["class", "messages", "bytes", "share", "bytes per write and node"],
    flows.map(([name, flow]) => [words(name), count(flow.messages), bytes(flow.bytes), percent(flow.bytes, all), bytes(flow.bytes / receipts)])));
}

function drawHealth({ summary }) {
  const named = (map) => Object.entries(map).map(([name, n]) => [words(name), count(n)]);
  const list = (id, title, rows, none, head = ["", ""]) => {
    const body = rows.length ? table(head, rows) : html("p", "none", none);
    if (rows.length && !head.some(Boolean)) body.tHead.remove();
    $(id).className = rows.length > 14 ? "long" : "";
    $(id).replaceChildren(html("h3", "", title), body);
  };
  const bounds = summary.peak_bounds;
  const peaks = Object.entries(summary.peaks).map(([name, n]) => {
    if (!bounds[name]) return [words(name), count(n), "–", ""];
    const meter = html("span", n >= bounds[name] ? "meter full" : "meter", html("i"));
    meter.firstChild.style.width = `${Math.min(100, (n / bounds[name]) * 100)}%`;
    return [words(name), count(n), count(bounds[name]), meter];
  });
  list("peaks", "Queues at their deepest", peaks, "None was watched.", ["queue", "peak", "bound", ""]);
  list("alarms", "Alarms that nodes raised", named(summary.alarms), "None.");
  list("faults", "Faults that took place", named(summary.faults), "None.");
  list("counters", "Events, over all nodes", named(summary.counters).filter(([, n]) => n !== "0"), "None.");
  const { traffic } = summary;
  list("cost", "Network and cost", [
    ["packets lost and sent again", count(traffic.lost_packets)],
    ["connections set up", count(traffic.connections)],
    ["connections lost", count(traffic.disconnections)],
    ["messages per write and node", digits(traffic.messages_per_write_per_node_milli / 1000)],
    ["sync sessions asked for", count(traffic.syncs_asked)],
    ["sync sessions completed", count(traffic.syncs_completed)],
    ["records that came by repair", count(traffic.records_synced)],
    ["real time to simulate", `${digits(summary.real_seconds)} s`],
    ...(summary.real_memory_mib ? [["real memory", `${count(summary.real_memory_mib)} MiB`]] : []),
  ], "");
  $("cost").append(html("p", "mono hash", `trace hash ${summary.trace_hash}`));
}
