/** The keyboard: all that the page can do. */

import { answerOf, page, SKIP } from "./view.js";

const PAN = 0.15; // of a frame
const ARROWS = {
  ArrowLeft: [PAN, 0],
  ArrowRight: [-PAN, 0],
  ArrowUp: [0, PAN],
  ArrowDown: [0, -PAN],
};

/** Listen; `judging` has `task`, `picks`, `vote` and `undo`, `zoom` is the stage's. */
export function listen(judging, zoom) {
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.target.matches?.("input")) return;
    if (handle(event, judging, zoom)) event.preventDefault();
  });
}

/** Do what a key says; whether it says anything. */
function handle(event, judging, zoom) {
  const { key } = event;
  const letter = key.toLowerCase();
  if (letter === "z" && !event.altKey && !event.shiftKey) return once(event, () => judging.undo());
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (key === "?") return once(event, () => page.help.showModal());
  if (!judging.task) return false;
  if (key === "+" || key === "=") return done(zoom.in());
  if (key === "-") return done(zoom.out());
  if (key === "0") return done(zoom.reset());
  if (key in ARROWS) return arrow(event, judging, zoom);
  if (key === "Escape") return done(zoom.isZoomed ? zoom.reset() : judging.picks?.clear());
  if (key === " ") return !isActivating(event) && once(event, () => judging.vote(SKIP));
  const digit = /^(?:Digit|Numpad)([1-8])$/.exec(event.code)?.[1];
  return Boolean(digit) && !event.shiftKey && once(event, () => answer(digit, judging));
}

function arrow(event, { task, vote }, zoom) {
  const { key, shiftKey } = event;
  if (shiftKey) return zoom.isZoomed && done(zoom.pan(...ARROWS[key], true));
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (!step) return false;
  if (task.kind === "pair") return once(event, () => vote(step < 0 ? "left" : "right"));
  const box = task.kind === "rating" ? page.answers : page.stage;
  const buttons = [...box.querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  const to = at < 0 ? (step < 0 ? buttons.length - 1 : 0) : at + step;
  buttons[Math.max(0, Math.min(buttons.length - 1, to))]?.focus();
  return true;
}

function answer(digit, { task, picks, vote }) {
  const value = answerOf(task.kind, digit);
  if (picks) picks.pick(Number(digit) - 1);
  else if (value !== undefined) vote(value);
}

/** Whether Space presses a button that was reached by the keyboard. */
function isActivating({ target }) {
  return target.matches?.("button:focus-visible, a:focus-visible");
}

/** A key that is held down acts once. */
function once(event, act) {
  if (!event.repeat) act();
  return true;
}

function done() {
  return true;
}
