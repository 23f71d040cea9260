// The heat map of lag between PoPs, and the same by region in numbers.

const REGIONS = ["North America", "South America", "Europe", "Africa", "Middle East", "Asia Pacific", "Oceania"];

function drawHeat({ details }) {
  const { matrix, places } = details;
  const cells = matrix.flat().filter((us) => us > 0).sort((a, b) => a - b);
  if (!cells.length) {
    $("matrix").replaceChildren(html("p", "none", "Nothing was measured between PoPs."));
    return;
  }
  // Neighbours stand together: by region, from west to east.
  const regionOf = (i) => places[i]?.region ?? "";
  const rank = (i) => { const at = REGIONS.indexOf(regionOf(i)); return at < 0 ? REGIONS.length : at; };
  const order = matrix.map((_, i) => i).sort((a, b) => rank(a) - rank(b) || regionOf(a).localeCompare(regionOf(b)) || places[a].lon - places[b].lon || a - b);
  const scale = lagScale(cells[cells.length - 1], maxOf(details.bound_relayed_us));
  const n = order.length;

  const canvas = html("canvas");
  // Whole pixels for each cell, so that paper does not smear them.
  const each = Math.max(1, Math.floor(660 / n));
  canvas.width = canvas.height = n * each;
  const context = canvas.getContext("2d");
  const image = context.createImageData(n * each, n * each);
  const empty = isDark() ? [38, 48, 58] : [227, 230, 228];
  for (let row = 0; row < n * each; row++) {
    for (let column = 0; column < n * each; column++) {
      const us = matrix[order[Math.floor(row / each)]][order[Math.floor(column / each)]];
      image.data.set([...(us ? heatParts(scale.of(us)) : empty), 255], (row * n * each + column) * 4);
    }
  }
  context.putImageData(image, 0, 0);

  const [left, top, side] = [n > 40 ? 104 : 44, n > 40 ? 30 : 34, 600];
  const root = svg("svg", { viewBox: `0 0 ${left + side + 4} ${top + side + 4}`, role: "img" });
  const picture = svg("image", { x: left, y: top, width: side, height: side, href: canvas.toDataURL(), preserveAspectRatio: "none" });
  root.append(picture);
  const at = (i) => (i / n) * side;
  if (n > 40) {
    const groups = [];
    order.forEach((place, i) => {
      if (!groups.length || groups[groups.length - 1].region !== regionOf(place)) groups.push({ region: regionOf(place), from: i, to: i });
      groups[groups.length - 1].to = i + 1;
    });
    for (const { region, from, to } of groups) {
      const [a, b] = [at(from), at(to)];
      if (from) {
        root.append(svg("line", { x1: left, x2: left + side, y1: top + a, y2: top + a, stroke: "var(--page)", "stroke-width": 1 }));
        root.append(svg("line", { y1: top, y2: top + side, x1: left + a, x2: left + a, stroke: "var(--page)", "stroke-width": 1 }));
      }
      if (b - a > 11) root.append(svg("text", { x: left - 7, y: top + (a + b) / 2 + 4, "text-anchor": "end" }, region));
      const short = region.replace("North", "N.").replace("South", "S.").replace("Middle", "M.");
      if (b - a > short.length * 6.4) root.append(svg("text", { x: left + (a + b) / 2, y: top - 7, "text-anchor": "middle" }, short));
    }
    root.append(svg("text", { class: "name", x: 0, y: 11 }, "from ↓  to →"));
  } else {
    order.forEach((place, i) => {
      root.append(svg("text", { x: left - 7, y: top + at(i + 0.5) + 4, "text-anchor": "end" }, places[place].iata));
      if (n <= 18 || i % 2 === 0) root.append(svg("text", { x: left + at(i + 0.5), y: top - 7, "text-anchor": "middle" }, places[place].iata));
    });
  }
  tip(picture, (event) => {
    const [x, y] = pointer(root, event);
    const [from, to] = [order[Math.floor(((y - top) / side) * n)], order[Math.floor(((x - left) / side) * n)]];
    if (from === undefined || to === undefined) return null;
    const us = matrix[from][to];
    return `${places[from].iata} ${places[from].city} → ${places[to].iata} ${places[to].city}\n${us ? span(us) : "not measured"}`;
  });
  $("matrix").replaceChildren(root);
  $("matrix-legend").replaceChildren(...ramp(scale, "mean lag"));

  // Means over measured pairs, region to region.
  const regions = [...new Set(order.map(regionOf))];
  const sums = regions.map(() => regions.map(() => [0, 0]));
  matrix.forEach((row, from) => row.forEach((us, to) => {
    const cell = sums[regions.indexOf(regionOf(from))][regions.indexOf(regionOf(to))];
    if (us) { cell[0] += us; cell[1]++; }
  }));
  const short = (region) => region.split(" ").map((word) => (region.includes(" ") ? word[0] : word.slice(0, 2))).join("");
  const unit = scale.max > 10e6 ? 1e6 : 1e3;
  const grid = html("table");
  grid.append(html("tr", "", html("th"), ...regions.map((region) => { const head = html("th", "", short(region)); head.title = region; return head; })));
  regions.forEach((region, i) => {
    const row = html("tr", "", html("th", "", region));
    sums[i].forEach(([sum, many]) => {
      const cell = html("td", "", many ? digits(sum / many / unit) : "–");
      if (many) {
        const colour = heatParts(scale.of(sum / many));
        cell.style.background = `rgb(${colour.join(" ")})`;
        cell.style.color = inkOn(colour);
      }
      row.append(cell);
    });
    grid.append(row);
  });
  $("regions").replaceChildren(html("h3", "", `From region ↓ to region →, mean in ${unit === 1e6 ? "s" : "ms"}`), grid);
}
