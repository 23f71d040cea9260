// The lag's distribution, the lag over time with its faults, and the bytes of each node.

function drawHistogram({ summary, details }) {
  const { histogram, bound_relayed_us: bounds } = details;
  const width = widthOf("histogram");
  if (!histogram.some((bucket) => bucket.count)) {
    $("histogram").replaceChildren(html("p", "none", "No write became visible everywhere."));
    return;
  }
  // A bar's height is its number of writes; buckets that grow with the lag ask for an axis that does, too.
  const widths = histogram.map(({ from_us, to_us }) => to_us - from_us);
  const uneven = Math.max(...widths) > 1.5 * Math.min(...widths);
  const max = Math.max(histogram[histogram.length - 1].to_us, maxOf(bounds));
  // Of bars that each are so much wider than the one before, this makes equally wide ones.
  const x = uneven ? bent(widths[0] / Math.max(0.01, widths[1] / widths[0] - 1), max) : linear(max);
  const all = histogram.reduce((sum, bucket) => sum + bucket.count, 0);
  const most = maxOf(histogram.map((bucket) => bucket.count));
  // The same over PoPs: how the bounds lie, as if every PoP wrote alike.
  const ideal = histogram.map(({ from_us, to_us }) => (bounds.filter((us) => us >= from_us && us < to_us).length / Math.max(1, bounds.length)) * all);
  const y = linear(Math.max(most, maxOf(ideal)) * 1.06);
  const plot = chart({
    width, height: 300, left: 54, top: 48, x, y, xName: "lag at the last PoP", yName: "writes",
    xTicks: spanTicks(x, 80 / width), yTicks: evenTicks(y.max, 4).map((n) => [n, count(n)]),
  });
  const outline = [];
  histogram.forEach(({ from_us, to_us, count: n }, i) => {
    const [a, b] = [plot.px(from_us), plot.px(to_us)];
    if (n) plot.root.append(svg("rect", { x: a + 0.4, width: Math.max(1, b - a - 0.8), y: plot.py(n), height: plot.bottom - plot.py(n), fill: "var(--blue)", rx: Math.min(2, (b - a) / 4) }));
    if (ideal[i]) outline.push([a, ideal[i - 1] ? plot.py(ideal[i]) : plot.bottom], [a, plot.py(ideal[i])], [b, plot.py(ideal[i])]);
    else outline.push(ideal[i - 1] ? [a, plot.bottom] : null);
  });
  if (bounds.length > 1) plot.root.append(svg("path", { class: "line", d: through(outline), stroke: "var(--orange)" }));
  // The median's label to the left of its line, that of p99 to the right, where there is room.
  const [p50, p99] = [plot.px(summary.lag_last.p50_us), plot.px(summary.lag_last.p99_us)];
  const room = 92;
  const marks = [
    [p50, `p50 ${span(summary.lag_last.p50_us)}`, p50 > plot.left + room, 0],
    [p99, `p99 ${span(summary.lag_last.p99_us)}`, p99 > plot.right - room, (p99 > plot.right - room && p99 - p50 < room) || (p50 < plot.left + room && p99 - p50 < room) ? 15 : 0],
  ];
  for (const [px, label, before, up] of marks) {
    plot.root.append(svg("line", { class: "cursor", x1: px, x2: px, y1: plot.top - 13 - up, y2: plot.bottom }));
    plot.root.append(svg("text", { class: "strong", x: px + (before ? -5 : 5), y: plot.top - 3 - up, "text-anchor": before ? "end" : "start" }, label));
  }
  for (const [i, { from_us, to_us, count: n }] of histogram.entries()) {
    const hit = svg("rect", { class: "hit", x: plot.px(from_us), y: plot.top, width: Math.max(0, plot.px(to_us) - plot.px(from_us)), height: plot.h });
    tip(hit, () => `${span(from_us)} to ${span(to_us)}\n${count(n)} writes (${percent(n, all)})\nbound: ${percent(ideal[i], all)} of the PoPs`);
    plot.root.append(hit);
  }
  $("histogram").replaceChildren(plot.root);
  $("histogram-legend").replaceChildren(key("writes, by when the last PoP had them", "var(--blue)"), key("the bound, had every PoP written alike", "var(--orange)", "stroke"));
}

function drawOverTime({ summary, details }) {
  const { over_time: slices, faults } = details;
  const width = widthOf("over-time");
  const end = Math.max(summary.virtual_us, maxOf(faults.map((fault) => fault.until_us)), 1);
  const measured = slices.filter((slice) => slice.lag.count);
  if (!measured.length && !faults.length) {
    $("over-time").replaceChildren(html("p", "none", "Nothing was measured."));
    return;
  }
  const bound = summary.bound_relayed.p99_us;
  const y = lagScale(Math.max(maxOf(measured.map((slice) => slice.lag.max_us)), bound, 1000) * 1.05, bound);
  const x = linear(end);
  // One lane above the plot for each kind of fault.
  const kinds = [...new Set(faults.map((fault) => fault.kind))];
  const lane = 20;
  const plot = chart({
    width, height: 290 + kinds.length * lane, left: 70, top: 30 + kinds.length * lane, x, y, xName: "virtual time", yName: "",
    xTicks: spanTicks(x, 90 / width), yTicks: spanTicks(y, 0.16),
  });
  kinds.forEach((kind, i) => {
    const top = 10 + i * lane;
    const these = faults.filter((fault) => fault.kind === kind);
    for (const fault of these) {
      const [a, b] = [plot.px(fault.from_us), plot.px(fault.until_us)];
      plot.root.append(svg("rect", { class: "fault", x: a, y: plot.top, width: Math.max(1, b - a), height: plot.h, opacity: clamp(0.12 / Math.sqrt(these.length), 0.03, 0.1) }));
      const bar = svg("rect", { class: "fault", x: a, y: top, width: Math.max(3, b - a), height: lane - 6, rx: 3, opacity: these.length > 12 ? 0.35 : 0.6 });
      tip(bar, () => `${fault.label || kind}\n${span(fault.from_us)} to ${span(fault.until_us)}${fault.nodes.length ? `\n${count(fault.nodes.length)} nodes` : ""}`);
      plot.root.append(bar);
    }
    plot.root.append(svg("text", { class: "strong", x: plot.left - 8, y: top + lane / 2 + 1, "text-anchor": "end" }, kind.length > 9 ? `${kind.slice(0, 8)}…` : kind));
  });
  // Slices are equally long; those without writes may be absent, and break the lines.
  const step = slices.slice(1).reduce((least, slice, i) => Math.min(least, slice.at_us - slices[i].at_us), end);
  const stretches = [];
  measured.forEach((slice, i) => {
    if (!i || slice.at_us - measured[i - 1].at_us > step * 1.5) stretches.push([]);
    stretches[stretches.length - 1].push(slice);
  });
  const curve = (stretch, pick) => stretch.map((slice) => [plot.px(slice.at_us + step / 2), plot.py(pick(slice.lag))]);
  for (const stretch of stretches) {
    const [low, high, most] = [(lag) => lag.p50_us, (lag) => lag.p99_us, (lag) => lag.max_us].map((pick) => curve(stretch, pick));
    plot.root.append(svg("path", { d: `${through([...high, ...[...low].reverse()])}Z`, fill: "var(--blue)", opacity: 0.16 }));
    for (const [points, stroke] of [[high, "var(--orange)"], [low, "var(--blue)"]]) {
      plot.root.append(svg("path", { class: "line", d: through(points), stroke }));
      if (points.length === 1) plot.root.append(svg("circle", { cx: points[0][0], cy: points[0][1], r: 2.5, fill: stroke }));
    }
    for (const [cx, cy] of most) plot.root.append(svg("circle", { cx, cy, r: 1.7, fill: "var(--soft)" }));
  }
  if (bound) plot.root.append(svg("line", { class: "bound", x1: plot.left, x2: plot.right, y1: plot.py(bound), y2: plot.py(bound) }));
  slices.forEach((slice) => {
    const until_us = slice.at_us + step;
    const [a, b] = [plot.px(slice.at_us), plot.px(until_us)];
    const hit = svg("rect", { class: "hit", x: a, y: plot.top, width: Math.max(0, b - a), height: plot.h });
    tip(hit, () => {
      const meanwhile = faults.filter((fault) => fault.from_us <= until_us && fault.until_us >= slice.at_us);
      const shown = meanwhile.slice(0, 5).map((fault) => `\n${fault.label || fault.kind}`).join("");
      const more = meanwhile.length > 5 ? `\nand ${count(meanwhile.length - 5)} more faults` : "";
      return `from ${span(slice.at_us)}: ${count(slice.writes)} writes\np50 ${span(slice.lag.p50_us)}, p99 ${span(slice.lag.p99_us)}, max ${span(slice.lag.max_us)}${shown}${more}`;
    });
    plot.root.append(hit);
  });
  $("over-time").replaceChildren(plot.root);
  $("over-time-legend").replaceChildren(
    key("median", "var(--blue)", "stroke"), key("p99", "var(--orange)", "stroke"), key("longest", "var(--soft)", "ring"),
    ...(bound ? [key(`bound, p99: ${span(bound)}`, "var(--ink)", "stroke dashed")] : []),
    ...(kinds.length ? [key("faults", "var(--red)")] : [html("span", "", "no faults")]),
  );
}

function drawNodeBytes({ details }) {
  const { node_bytes: list, nodes, places } = details;
  const width = widthOf("node-bytes");
  const total = (classes) => Object.values(classes).reduce((sum, n) => sum + n, 0);
  const sorted = [...list].sort((a, b) => total(b.received) - total(a.received));
  if (!sorted.length) {
    $("node-bytes").replaceChildren(html("p", "none", "Bytes were not counted by node."));
    return;
  }
  const found = new Set(list.flatMap(({ sent, received }) => [...Object.keys(sent), ...Object.keys(received)].filter((c) => sent[c] || received[c])));
  const classes = [...Object.keys(CLASSES).filter((c) => found.has(c)), ...[...found].filter((c) => !(c in CLASSES))];
  const name = ({ node }) => (places[nodes[node]] ? `${places[nodes[node]].iata} ${places[nodes[node]].city}` : `node ${node}`);
  const [up, down] = [maxOf(sorted.map((n) => total(n.received))), maxOf(sorted.map((n) => total(n.sent)))];
  const all = (up + down) * 1.04 || 1;
  const y = { of: (value) => (value + down * 1.02) / all };
  const few = sorted.length <= 45;
  const plot = chart({
    width, height: 320, left: 70, x: linear(sorted.length), y, yName: "received", xName: few ? "nodes" : `${count(sorted.length)} nodes, most received first`,
    xTicks: few ? sorted.map((n, i) => [i + 0.5, width / sorted.length > 26 ? name(n).slice(0, 3) : ""]) : [],
    yTicks: [...evenTicks(down, 3).slice(1).reverse().map((n) => [-n, bytes(n)]), ...evenTicks(up, 3).map((n) => [n, bytes(n)])]
      .filter(([value], i, ticks) => i === 0 || (value - ticks[i - 1][0]) / all > 0.05),
  });
  const bottoms = sorted.map(() => [0, 0]);
  for (const name of classes) {
    let d = "";
    sorted.forEach((n, i) => {
      const [a, b] = [plot.px(i + (few ? 0.12 : 0)), plot.px(i + (few ? 0.88 : 1))];
      [[n.received[name] ?? 0, 1], [n.sent[name] ?? 0, -1]].forEach(([value, sign], side) => {
        if (!value) return;
        const from = bottoms[i][side];
        bottoms[i][side] = from + value;
        d += `M${a.toFixed(2)} ${plot.py(sign * from).toFixed(2)}H${b.toFixed(2)}V${plot.py(sign * (from + value)).toFixed(2)}H${a.toFixed(2)}Z`;
      });
    });
    plot.root.append(svg("path", { d, fill: CLASSES[name] ?? "var(--soft)" }));
  }
  plot.root.append(svg("line", { class: "cursor", x1: plot.left, x2: plot.right, y1: plot.py(0), y2: plot.py(0) }));
  plot.root.append(svg("text", { class: "name", x: 0, y: plot.bottom + 16 }, "sent"));
  const hit = svg("rect", { class: "hit", x: plot.left, y: plot.top, width: plot.w, height: plot.h });
  tip(hit, (event) => {
    const n = sorted[Math.floor(((pointer(plot.root, event)[0] - plot.left) / plot.w) * sorted.length)];
    if (!n) return null;
    const lines = classes.map((c) => `${c}: ${bytes(n.received[c] ?? 0)} in, ${bytes(n.sent[c] ?? 0)} out`);
    return [name(n), `received ${bytes(total(n.received))}, sent ${bytes(total(n.sent))}`, ...lines].join("\n");
  });
  plot.root.append(hit);
  $("node-bytes").replaceChildren(plot.root);
  $("node-bytes-legend").replaceChildren(...classes.map((c) => key(c, CLASSES[c] ?? "var(--soft)")));
}
