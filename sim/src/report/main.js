// Reads the outcome out of the page and draws it; draws again when the page gets another width or another light.

// A seed may have more digits than a number here keeps: it stays as it is written.
const outcome = JSON.parse($("outcome").textContent, (key, value, context) => (key === "seed" ? (context?.source ?? value) : value));

drawHead(outcome);
drawTiles(outcome);
drawQuantiles(outcome);
drawTraffic(outcome);
drawHealth(outcome);
const redrawMap = drawMap(outcome);
function drawPictures() {
  drawHistogram(outcome);
  drawOverTime(outcome);
  drawNodeBytes(outcome);
  drawHeat(outcome);
}
drawPictures();

function redraw() {
  redrawMap();
  drawPictures();
}

let width = innerWidth, soon = 0;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(soon);
  soon = setTimeout(redraw, 120);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
$("theme").addEventListener("click", () => {
  document.documentElement.style.colorScheme = isDark() ? "light" : "dark";
  redraw();
});

// Paper is light, and narrower than most windows.
let onScreen = "";
addEventListener("beforeprint", () => {
  onScreen = document.documentElement.style.colorScheme;
  document.documentElement.style.colorScheme = "light";
  onPaper = true;
  redraw();
});
addEventListener("afterprint", () => {
  document.documentElement.style.colorScheme = onScreen;
  onPaper = false;
  redraw();
});
