/** What surrounds the tasks: welcome, counts, states, help, thanks. */

import { element, page } from "./view.js";

const MANNER =
  "There is no right answer, nothing tells what made an image, and every vote can be undone.";

const INVITATIONS = {
  pair: `You see two images at a time. Say which is better. ${MANNER}`,
  best_worst: `You see several images at a time. Pick the best, then the worst. ${MANNER}`,
  rating: `You see one image at a time. Give it a mark. ${MANNER}`,
};

const KEYS = {
  pair: [
    [["1", "←"], "The left image is better"],
    [["2", "→"], "The right image is better"],
    [["3"], "They are equally good"],
    [["4"], "Both are bad"],
  ],
  best_worst: [
    [["1", "…", "8"], "The best image, then the worst"],
    [["←", "→", "Enter"], "Go to an image and pick it"],
    [["Esc"], "Take back a pick"],
  ],
  rating: [
    [["1", "…", "5"], "Bad, poor, fair, good, excellent"],
    [["←", "→", "Enter"], "Go to a mark and give it"],
  ],
};

const KEYS_OF_ALL = [
  [["Space"], "Skip: no opinion"],
  [["Z"], "Undo the last vote"],
  [["+", "−", "0"], "Zoom all images in, out, back"],
  [["Shift", "← → ↑ ↓"], "Move what the zoom shows"],
  [["?"], "This list"],
];

/** Draw how far the voter is. */
export function drawCount(done, total) {
  page.count.textContent = `${done} of ${total}`;
  page.progress.max = total || 1;
  page.progress.value = done;
}

/** Draw the voter's name, which is also the way to another. */
export function drawVoter(name) {
  page.who.textContent = name;
  page.who.setAttribute("aria-label", `${name}: somebody else votes`);
}

/** Draw how far all pictures are zoomed. */
export function drawZoom(scale) {
  page["zoom-reset"].hidden = scale === 1;
  page["zoom-reset"].ariaLabel = `Zoom ${scale.toFixed(1)} times: back to the whole images`;
  page["zoom-reset"].textContent = `Zoom ${scale.toFixed(1)} × ✕`;
}

/** Draw the form for a name, with the names there are. */
export function drawWelcome({ kind, voters }, enter) {
  page["welcome-text"].textContent = INVITATIONS[kind];
  const items = voters.map(({ name, votes }) => {
    const note = element("small", { textContent: votes === 1 ? "1 vote" : `${votes} votes` });
    const button = element("button", { type: "button" }, element("span", { textContent: name }), note);
    button.addEventListener("click", () => enter(name));
    return element("li", {}, button);
  });
  page.known.hidden = !items.length;
  page["known-names"].replaceChildren(...items);
}

/** Draw terms and figures of the last page. */
export function drawFacts(facts) {
  const rows = facts.map(([term, text]) =>
    element("div", {}, element("dt", { textContent: term }), element("dd", { textContent: text })),
  );
  page.counts.replaceChildren(...rows);
}

/** Draw whether the server answers and votes wait; `stuck` where the voter waits for it too. */
export function drawState(away, waiting, { named, stuck, broken }) {
  const kept = waiting === 1 ? "1 vote is kept here" : `${waiting} votes are kept here`;
  const trouble = waiting ? `Server away, ${kept}` : "Server away, trying again";
  setText(page.state, away ? trouble : named ? "Saved" : "");
  page.state.classList.toggle("away", away);
  page.waiting.hidden = !stuck && !broken;
  const outlook = waiting ? `${kept} and sent as soon as it is back.` : "Trying again…";
  if (stuck) setText(page.waiting, `The server does not answer. ${outlook}`);
  else if (broken) setText(page.waiting, "An image does not load. Trying again; you may skip it.");
}

/** A live region speaks at each change, so none is made without one. */
function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

let noticed;

/** Show a message for a while. */
export function notice(text) {
  clearTimeout(noticed);
  page.notice.textContent = text;
  page.notice.hidden = false;
  noticed = setTimeout(() => {
    page.notice.hidden = true;
  }, 8000);
}

/** Fill the list of keys. */
export function drawHelp(kind) {
  const rows = [...KEYS[kind], ...KEYS_OF_ALL].map(([keys, text]) =>
    element(
      "div",
      {},
      element("dt", {}, ...keys.map((key) => element("kbd", { textContent: key }))),
      element("dd", { textContent: text }),
    ),
  );
  page["help-keys"].replaceChildren(...rows);
}
