// The map: where nodes stand, how one write spreads over them, and how many have it by when.

/** Natural Earth I, in the units of land.svg. */
function project(lon, lat) {
  const [l, p] = [(lon * Math.PI) / 180, (lat * Math.PI) / 180];
  const p2 = p * p, p4 = p2 * p2;
  const x = l * (0.8707 - 0.131979 * p2 + p4 * (-0.013791 + p4 * (0.003971 * p2 - 0.001529 * p4)));
  const y = p * (1.007226 + p2 * (0.015085 + p4 * (-0.044475 + 0.028874 * p2 - 0.005916 * p4)));
  return [x * 360, -y * 360];
}

/** Along the great circle, broken where the map is. */
function greatCircle(from, to) {
  const vector = ({ lat, lon }) => {
    const [p, l] = [(lat * Math.PI) / 180, (lon * Math.PI) / 180];
    return [Math.cos(p) * Math.cos(l), Math.cos(p) * Math.sin(l), Math.sin(p)];
  };
  const [a, b] = [vector(from), vector(to)];
  const angle = Math.acos(clamp(a[0] * b[0] + a[1] * b[1] + a[2] * b[2], -1, 1));
  if (angle < 1e-6) return "";
  const steps = Math.max(2, Math.ceil(angle * 20));
  const points = [];
  let last = from.lon;
  for (let i = 0; i <= steps; i++) {
    const [s, t] = [Math.sin(angle * (1 - i / steps)), Math.sin((angle * i) / steps)];
    const [x, y, z] = a.map((_, axis) => (s * a[axis] + t * b[axis]) / Math.sin(angle));
    const lon = (Math.atan2(y, x) * 180) / Math.PI;
    if (Math.abs(lon - last) > 180) points.push(null);
    points.push(project(lon, (Math.asin(clamp(z, -1, 1)) * 180) / Math.PI));
    last = lon;
  }
  return through(points);
}

function drawMap({ details }) {
  const { spreads, places, faults } = details;
  const root = $("map").querySelector("svg");
  const place = (node) => places[details.nodes[node]];
  const name = (node) => (place(node) ? `${place(node).iata} ${place(node).city}` : `node ${node}`);
  const boundOf = (write) => details.bound_relayed_us[details.nodes[write.origin]] ?? 0;
  const lastOf = (write) => maxOf(write.arrivals_us.filter((us) => us !== null));
  const boundMax = maxOf(details.bound_relayed_us);
  const colours = lagScale(Math.max(boundMax, maxOf(spreads.map(lastOf))), boundMax);
  const several = new Map();
  // Nodes of one PoP stand in a spiral around it.
  const spots = details.nodes.map((at) => {
    const nth = several.get(at) ?? 0;
    several.set(at, nth + 1);
    const [x, y] = project(places[at].lon, places[at].lat);
    return [x + 7 * Math.sqrt(nth) * Math.cos(nth * 2.4), y + 7 * Math.sqrt(nth) * Math.sin(nth * 2.4)];
  });

  const graticule = svg("g", { class: "net" });
  for (let lon = -180; lon <= 180; lon += 30) graticule.append(svg("path", { d: through(Array.from({ length: 72 }, (_, i) => project(lon, -58 + i * 2))) }));
  for (let lat = -30; lat <= 60; lat += 30) graticule.append(svg("path", { d: through(Array.from({ length: 73 }, (_, i) => project(-180 + i * 5, lat))) }));
  const layer = svg("g");
  root.prepend(graticule);
  root.append(layer);

  let write, scale, nodes = [], cursor, reachedAt = [];
  let at_us = 0;

  /** Draws what stays while time moves. */
  function choose(index) {
    write = spreads[index];
    $("write").value = index;
    scale = lagScale(Math.max(lastOf(write), boundOf(write)) || 1, boundOf(write));
    reachedAt = write.arrivals_us.filter((us) => us !== null).sort((a, b) => a - b);
    const unit = 1980 / widthOf("map");
    const size = (spots.length > 500 ? 2.2 : spots.length > 150 ? 3.1 : spots.length > 40 ? 4.2 : 6) * unit * clamp(0.9 / unit + 0.45, 0.62, 1);
    layer.replaceChildren();
    const [ways, dots, labels] = [svg("g"), svg("g"), svg("g")];
    layer.append(ways, dots, labels);
    const struck = new Set();
    for (const fault of faults) {
      const lasts = fault.from_us <= write.accepted_us + lastOf(write) && fault.until_us >= write.accepted_us;
      if (lasts) fault.nodes.forEach((node) => struck.add(node));
    }
    nodes = spots.map(([x, y], node) => {
      const us = write.arrivals_us[node] ?? null;
      const dot = svg("circle", { cx: x, cy: y, r: size, "stroke-width": 0.9 * unit });
      tip(dot, () => {
        const from = us > 0 && write.informers.length ? `\nfrom ${name(write.informers[node] ?? write.origin)}` : "";
        const when = node === write.origin ? "accepted the write" : us === null ? "never had the write" : `had the write after ${span(us)}`;
        return `${name(node)}\n${when}${from}${struck.has(node) ? "\nbefallen by a fault" : ""}`;
      });
      const informer = us > 0 && write.informers.length ? (write.informers[node] ?? write.origin) : null;
      let way = null;
      const d = informer !== null && informer !== node && place(informer) ? greatCircle(place(informer), place(node)) : "";
      if (d) {
        way = svg("path", { class: "way", d, pathLength: 1, "stroke-width": 0.9 * unit });
        ways.append(way);
      }
      return { node, us, dot, way, left: informer === null ? 0 : (write.arrivals_us[informer] ?? 0), struck: struck.has(node) };
    });
    // The slow ones on top, whatever their number.
    [...nodes].sort((a, b) => (a.us ?? Infinity) - (b.us ?? Infinity)).forEach(({ dot }) => dots.append(dot));
    const label = (node, text, away) => {
      const [x, y] = spots[node];
      const end = x > 700;
      labels.append(svg("text", { x: x + (end ? -1 : 1) * away, y: y + 4.5 * unit, "text-anchor": end ? "end" : "start", "font-size": 13 * unit, style: `font-size:${13 * unit}px;stroke-width:${3.5 * unit}px` }, text));
    };
    if (spots[write.origin]) {
      const [x, y] = spots[write.origin];
      labels.append(svg("circle", { class: "origin", cx: x, cy: y, r: size + 3.4 * unit, "stroke-width": 2 * unit }));
      label(write.origin, place(write.origin).iata, size + 8 * unit);
    }
    const last = nodes.filter(({ us }) => us !== null).reduce((late, node) => (node.us > late.us ? node : late), nodes[write.origin] ?? { us: 0 });
    if (last.us > 0) label(last.node, place(last.node).iata, size + 5 * unit);
    const missing = write.arrivals_us.filter((us) => us === null).length;
    $("about-write").replaceChildren(
      `Write ${count(write.write)}, accepted by `, html("b", "", name(write.origin)), ` at ${span(write.accepted_us)}. `,
      last.us > 0 ? `Last: ${name(last.node)} after ` : "", last.us > 0 ? html("b", "", span(last.us)) : "",
      boundOf(write) && last.us > 0 ? `, ${digits(last.us / boundOf(write))} × its bound of ${span(boundOf(write))}. ` : ". ",
      missing ? html("b", "", `${count(missing)} ${missing === 1 ? "node" : "nodes"} never had it.`) : "",
    );
    $("ways").hidden = !write.informers.length;
    drawLegend();
    drawReached();
    drawFrames();
    show(at_us = scale.max);
  }

  function drawLegend() {
    const missing = nodes.some(({ us }) => us === null);
    $("map-legend").replaceChildren(
      ...ramp(colours, "visible after"), key("not yet", "var(--soft)", "ring"),
      ...(missing ? [key("never", "var(--red)", "ring")] : []),
      ...(nodes.some((node) => node.struck) ? [key("red rim: befallen by a fault meanwhile", "var(--red)", "ring")] : []),
    );
  }

  /** Draws the map as it was so long after the write's acceptance. */
  function show(us) {
    at_us = clamp(us, 0, scale.max);
    const now = scale.of(at_us);
    const over = at_us >= scale.max;
    let reached = 0;
    for (const { us: arrival, dot, way, left, struck } of nodes) {
      const there = arrival !== null && arrival <= at_us;
      reached += there;
      const colour = there ? heat(colours.of(arrival)) : "";
      const age = there ? now - scale.of(arrival) : 1;
      const state = there ? (struck ? " struck" : "") : arrival === null && over ? " never" : " waiting";
      dot.setAttribute("class", `node${state}`);
      dot.style.fill = colour;
      dot.style.transform = "";
      dot.style.strokeWidth = !over && age < 0.05 ? 0 : "";
      if (!way) continue;
      const part = clamp((at_us - left) / (arrival - left), 0, 1);
      way.style.visibility = part > 0 ? "visible" : "hidden";
      way.setAttribute("stroke-dasharray", part < 1 ? `${part} 2` : "none");
      way.style.stroke = heat(colours.of(arrival));
      way.style.opacity = part < 1 ? 0.6 : clamp(0.75 - age * 4, 0.24, 0.75);
    }
    $("at").value = Math.round(now * 1000);
    $("at").setAttribute("aria-valuetext", span(at_us));
    $("clock").firstElementChild.textContent = span(at_us);
    $("clock").lastElementChild.textContent = `${count(reached)} of ${count(nodes.length)} nodes`;
    if (cursor) cursor(at_us);
  }

  function drawReached() {
    const width = widthOf("reached");
    const all = Math.max(1, spots.length);
    const ticks = spanTicks(scale, 84 / width);
    const plot = chart({
      width, height: 176, left: 46, x: scale, y: linear(1), xName: "since the write was accepted", yName: "nodes that have it",
      xTicks: ticks, yTicks: [0, 0.5, 1].map((y) => [y, `${y * 100} %`]),
    });
    const points = [[plot.left, plot.bottom]];
    reachedAt.forEach((us, i) => points.push([plot.px(us), plot.py(i / all)], [plot.px(us), plot.py((i + 1) / all)]));
    points.push([plot.right, plot.py(reachedAt.length / all)]);
    const bound = boundOf(write);
    if (bound) {
      const x = plot.px(bound);
      const end = x > plot.right - 150;
      plot.root.append(svg("line", { class: "bound", x1: x, x2: x, y1: plot.top, y2: plot.bottom }));
      plot.root.append(svg("text", { x: x + (end ? -6 : 6), y: x < plot.left + plot.w / 2 ? plot.top + 12 : plot.bottom - 8, "text-anchor": end ? "end" : "start" }, `bound ${span(bound)}`));
    }
    const line = svg("path", { class: "line", d: through(points), stroke: "var(--blue)" });
    const mark = svg("line", { class: "cursor screen", y1: plot.top, y2: plot.bottom });
    const hit = svg("rect", { class: "hit", x: plot.left, y: 0, width: plot.w, height: plot.bottom, style: "cursor:ew-resize;touch-action:pan-y" });
    plot.root.append(line, mark, hit);
    cursor = (us) => { mark.setAttribute("x1", plot.px(us)); mark.setAttribute("x2", plot.px(us)); };
    const timeAt = (event) => scale.back(clamp((pointer(plot.root, event)[0] - plot.left) / plot.w, 0, 1));
    const drag = (event) => { if (event.buttons & 1 || event.type === "pointerdown") { pause(); show(timeAt(event)); } };
    hit.addEventListener("pointerdown", drag);
    hit.addEventListener("pointermove", drag);
    tip(hit, (event) => {
      const us = timeAt(event);
      const have = reachedAt.filter((arrival) => arrival <= us).length;
      return `${span(us)}: ${count(have)} of ${count(all)} nodes (${percent(have, all)})`;
    });
    $("reached").replaceChildren(plot.root);
    $("at").style.marginLeft = `${(plot.left / width) * 100}%`;
    $("at").style.width = `${(plot.w / width) * 100}%`;
  }

  /** Three moments, for paper, which does not move. */
  function drawFrames() {
    const land = root.querySelector(".land");
    $("frames").replaceChildren(...[0.1, 0.5, 0.9].map((part) => {
      const us = reachedAt[Math.max(0, Math.ceil(part * reachedAt.length) - 1)] ?? 0;
      const picture = svg("svg", { viewBox: root.getAttribute("viewBox") }, land.cloneNode());
      nodes.forEach(({ us: arrival }, node) => {
        if (arrival === null || arrival > us) return;
        picture.append(svg("circle", { cx: spots[node][0], cy: spots[node][1], r: nodes.length > 150 ? 8 : 13, "stroke-width": 2, fill: heat(colours.of(arrival)) }));
      });
      const have = reachedAt.filter((arrival) => arrival <= us).length;
      return html("figure", "", picture, html("figcaption", "", html("b", "", span(us)), ` ${count(have)} of ${count(nodes.length)} nodes`));
    }));
  }

  let playing = 0;
  function pause() {
    cancelAnimationFrame(playing);
    playing = 0;
    $("play").textContent = "▶";
    $("play").setAttribute("aria-label", "Play");
  }
  function play() {
    const from = at_us >= scale.max ? 0 : scale.of(at_us);
    let began;
    $("play").textContent = "❚❚";
    $("play").setAttribute("aria-label", "Pause");
    const step = (time) => {
      // The clock of frames need not be that of the page.
      began ??= time;
      const y = from + (time - began) / 7000;
      show(scale.back(Math.min(1, y)));
      if (y < 1) playing = requestAnimationFrame(step);
      else pause();
    };
    playing = requestAnimationFrame(step);
  }

  if (!spreads.length) {
    root.append(...spots.map(([x, y]) => svg("circle", { cx: x, cy: y, r: 6, fill: "var(--blue)" })));
    $("about-write").textContent = "No write was watched in this run.";
    for (const id of ["at", "play", "previous", "next", "write", "clock"]) $(id).hidden = true;
    return () => {};
  }
  const order = spreads.map((_, i) => i).sort((a, b) => lastOf(spreads[b]) - lastOf(spreads[a]));
  $("write").replaceChildren(...order.map((index, rank) => {
    const option = html("option", "", `${name(spreads[index].origin)}: ${span(lastOf(spreads[index]))}${rank === 0 ? ", the slowest" : ""} (write ${spreads[index].write})`);
    option.value = index;
    return option;
  }));
  const step = (by) => { pause(); choose(order[(order.indexOf(Number($("write").value)) + by + order.length) % order.length]); };
  $("write").addEventListener("change", () => { pause(); choose(Number($("write").value)); });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("play").addEventListener("click", () => (playing ? pause() : play()));
  $("at").addEventListener("input", () => { pause(); show(scale.back($("at").value / 1000)); });

  // A link may say which write and when: #write=17&at=120 (milliseconds).
  const asked = new URLSearchParams(location.hash.slice(1));
  const wanted = spreads.findIndex(({ write: number }) => String(number) === asked.get("write"));
  choose(wanted >= 0 ? wanted : order[0]);
  if (asked.get("at")) show(Number(asked.get("at")) * 1000 || 0);

  return () => {
    const [index, us] = [Number($("write").value), at_us];
    choose(index);
    show(us);
  };
}
