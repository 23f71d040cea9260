// Cards for Mr. Babbage's engine. When it needs a logarithm it rings a bell and shows a number; an attendant brings the
// card with that number and the decimal part of its logarithm. If it is the wrong card, the engine rings a louder bell.
//
// GET /?int=2303 answers the card of 2303 as a picture. Cards are kept in the KV namespace LOGCARD: the number is the
// key, seven digits are the value.

const PLACES = 7;
const NUMBER_MAX = 999_999;

addEventListener("fetch", (event) => event.respondWith(fetchCard(event)));

async function fetchCard(event) {
  const asked = new URL(event.request.url).searchParams.get("int");
  if (asked === null || !/^[1-9][0-9]{0,5}$/.test(asked)) {
    const message = `The engine rings, but for which number? Ask for /?int=2303, from 1 to ${NUMBER_MAX}.\n`;
    return new Response(message, { status: 400, headers: { "content-type": "text/plain;charset=UTF-8" } });
  }
  const expected = decimals(Number(asked));
  const stored = await LOGCARD.get(asked);
  const card = { number: asked, log: expected, from: stored === expected ? "store" : "computed", wrong: null };
  const headers = { "content-type": "image/svg+xml", "cache-control": "no-store", "x-card": card.from };
  if (stored !== null && stored !== expected) {
    // The louder bell.
    card.wrong = stored.slice(0, 20);
    console.error(`wrong card for ${asked}: it says ${JSON.stringify(card.wrong)}, the logarithm is ${expected}`);
    headers["x-louder-bell"] = `wrong card, replaced: .${encodeURIComponent(card.wrong)} should be .${expected}`;
  }
  if (stored !== expected) await LOGCARD.put(asked, expected);
  return new Response(draw(card), { headers });
}

/** The decimal part of the logarithm, to seven places. */
function decimals(number) {
  const places = 10 ** PLACES;
  return String(Math.round((Math.log10(number) % 1) * places)).padStart(PLACES, "0");
}

const escape = (text) => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

function draw({ number, log, from, wrong }) {
  const [width, height] = [1120, 700];
  const [step, pitch, top] = [54, 36, 190];
  const numberLeft = 136;
  const logLeft = width - 136 - (PLACES - 1) * step;
  const columns = (digits, left) =>
    [...digits].map((digit, at) => column(Number(digit), left + at * step, top, pitch)).join("");
  const lacing = (y) =>
    Array.from({ length: 14 }, (_, n) => hole(118 + (n * (width - 236)) / 13, y, 8.5)).join("");
  const whole = String(number).length - 1;
  const rule = (x1, x2, y) => `<path d="M${x1} ${y}H${x2}" stroke="#6b4e2e" stroke-width="1" opacity=".55"/>`;
  const numberRight = numberLeft + (number.length - 1) * step;
  const bell = wrong === null ? "" : ringing(width / 2 - 6, 292, wrong, log);

  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="Card ${number}: the decimal part of its logarithm is .${log}">
<defs>
  <linearGradient id="board" x1="0" y1="0" x2="1" y2="1">
    <stop offset="0" stop-color="#f3e6c8"/><stop offset=".55" stop-color="#ead7ae"/><stop offset="1" stop-color="#dcc391"/>
  </linearGradient>
  <radialGradient id="worn" cx=".5" cy=".5" r=".75">
    <stop offset=".6" stop-color="#7a5426" stop-opacity="0"/><stop offset="1" stop-color="#7a5426" stop-opacity=".28"/>
  </radialGradient>
  <linearGradient id="desk" x1="0" y1="0" x2="0" y2="1">
    <stop offset="0" stop-color="#3a2a1e"/><stop offset="1" stop-color="#231811"/>
  </linearGradient>
  <linearGradient id="depth" x1="0" y1="0" x2="0" y2="1">
    <stop offset="0" stop-color="#120b06"/><stop offset="1" stop-color="#4a3524"/>
  </linearGradient>
  <filter id="fibres" x="0" y="0" width="1" height="1">
    <feTurbulence type="fractalNoise" baseFrequency=".012 .35" numOctaves="3" seed="1834"/>
    <feColorMatrix values="0 0 0 0 .42  0 0 0 0 .29  0 0 0 0 .13  0 0 0 .5 -.17"/>
  </filter>
  <filter id="lifted" x="-.1" y="-.1" width="1.2" height="1.3">
    <feDropShadow dx="0" dy="9" stdDeviation="11" flood-color="#000" flood-opacity=".6"/>
  </filter>
  <clipPath id="card"><path d="M92 32H${width - 32}V${height - 32}H32V92Z"/></clipPath>
</defs>
<rect width="${width}" height="${height}" fill="url(#desk)"/>
<g filter="url(#lifted)"><path d="M92 32H${width - 32}V${height - 32}H32V92Z" fill="url(#board)"/></g>
<g clip-path="url(#card)">
  <rect x="32" y="32" width="${width - 64}" height="${height - 64}" filter="url(#fibres)" opacity=".55"/>
  <rect x="32" y="32" width="${width - 64}" height="${height - 64}" fill="url(#worn)"/>
</g>
<path d="M97 41H${width - 41}V${height - 41}H41V97Z" fill="none" stroke="#6b4e2e" stroke-width="1" opacity=".5"/>
${lacing(66)}${lacing(height - 66)}
<g font-family="'Baskerville','Libre Baskerville','Palatino Linotype','Georgia',serif" fill="#3b2814" text-anchor="middle">
  <text x="${width / 2}" y="118" font-size="27" letter-spacing="7">THE DIFFERENCE ENGINE</text>
  <text x="${width / 2}" y="142" font-size="15" font-style="italic" letter-spacing="1" fill="#6b4e2e">a card of the table of logarithms</text>
  <text x="${(numberLeft + numberRight) / 2}" y="166" font-size="13" letter-spacing="4">NUMBER</text>
  <text x="${logLeft + 3 * step}" y="166" font-size="13" letter-spacing="4">DECIMALS OF THE LOGARITHM</text>
  ${rule(numberLeft - 26, Math.max(numberRight, numberLeft + step) + 26, 550)}${rule(logLeft - 26, width - 110, 550)}
</g>
<g font-family="'Baskerville','Libre Baskerville','Palatino Linotype','Georgia',serif" font-size="19" text-anchor="middle" fill="#8a6a41">
${columns(number, numberLeft)}${columns(log, logLeft)}
</g>
${bell}
<g font-family="'Baskerville','Libre Baskerville','Palatino Linotype','Georgia',serif" fill="#3b2814">
  <text x="${width / 2}" y="592" font-size="22" text-anchor="middle"><tspan font-style="italic">log</tspan> ${number} = ${whole}<tspan dy="-5">·</tspan><tspan dy="5" letter-spacing="2">${log}</tspan><tspan font-size="13" font-style="italic" fill="#6b4e2e" dx="18">${from === "store" ? "brought from the store" : "computed, and put into the store"}</tspan></text>
</g>
</svg>
`;
}

/** Ten places from 0 to 9, of which one is punched. */
function column(digit, x, top, pitch) {
  return Array.from({ length: 10 }, (_, place) => {
    const y = top + place * pitch;
    return place === digit
      ? hole(x, y + 8, 14)
      : `<circle cx="${x}" cy="${y + 8}" r="14" fill="none" stroke="#8a6a41" stroke-width=".8" opacity=".38"/><text x="${x}" y="${y + 14.5}">${place}</text>`;
  }).join("");
}

/** Cut through the board: the desk shows below, the upper rim throws a shadow, the lower one catches the light. */
function hole(x, y, r) {
  return `<circle cx="${x}" cy="${y + 1.2}" r="${r + 0.6}" fill="#fff6df" opacity=".75"/><circle cx="${x}" cy="${y}" r="${r}" fill="url(#depth)"/><path d="M${x - r} ${y}a${r} ${r} 0 0 1 ${2 * r} 0" fill="none" stroke="#0a0603" stroke-width="2.4" opacity=".7"/>`;
}

/** The louder bell, and what was wrong. */
function ringing(x, y, wrong, right) {
  const waves = [34, 48, 62].map(
    (r) =>
      `<path d="M${-r} -14a${r} ${r} 0 0 0 0 44M${r} -14a${r} ${r} 0 0 1 0 44" stroke-width="${4.2 - r / 22}" opacity="${1.25 - r / 64}"/>`,
  );
  return `<g transform="translate(${x} ${y})" fill="none" stroke="#a3261b" stroke-linecap="round">
  ${waves.join("")}
  <path d="M-23 26c7-9 5-20 6-30a17 17 0 0 1 34 0c1 10-1 21 6 30z" fill="#a3261b" stroke="none"/>
  <circle cy="32" r="6" fill="#a3261b" stroke="none"/><circle cy="-23" r="4.5" fill="#a3261b" stroke="none"/>
  <g stroke="none" fill="#a3261b" text-anchor="middle" font-family="'Baskerville','Libre Baskerville','Palatino Linotype','Georgia',serif">
    <text y="74" font-size="17" letter-spacing="2">WRONG CARD</text>
    <text y="100" font-size="17" text-decoration="line-through">·${escape(wrong)}</text>
    <text y="124" font-size="15" font-style="italic">replaced by</text>
    <text y="148" font-size="17">·${right}</text>
  </g>
</g>`;
}
