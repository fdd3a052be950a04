/** Elements of the page; every text that comes from elsewhere is set as text, never as markup. */

import { arrange, isSmall } from "./layout.js";

export const SKIP = "skip";

/** Answers of the kinds that have buttons: value, label, key. */
const ANSWERS = {
  pair: [
    { value: "left", label: "Left", key: "1" },
    { value: "tie", label: "Tie", key: "3" },
    { value: "both_bad", label: "Both bad", key: "4" },
    { value: "right", label: "Right", key: "2" },
  ],
  rating: ["Bad", "Poor", "Fair", "Good", "Excellent"].map((label, index) => ({
    value: index + 1,
    label,
    key: String(index + 1),
  })),
  best_worst: [],
};

/** The elements of the page that have an id. */
export const page = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((each) => [each.id, each]),
);

/** An element with properties and children; strings become text. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Show one of the page's screens. */
export function showScreen(id) {
  for (const screen of document.querySelectorAll("main")) screen.hidden = screen.id !== id;
  for (const part of [page.progress, page.title, page.count, page.who]) part.hidden = id !== "judging";
}

/** The answer that a key gives in a kind, if any. */
export function answerOf(kind, key) {
  return ANSWERS[kind].find((answer) => answer.key === key)?.value;
}

/** The label of an answer, for those who listen. */
export function labelOf(kind, value) {
  if (value === SKIP) return "Skipped";
  if (kind === "best_worst") return `Best ${value.best + 1}, worst ${value.worst + 1}`;
  return ANSWERS[kind].find((answer) => answer.value === value).label;
}

/** Draw the buttons of a kind, or the hint of best and worst. */
export function drawAnswers(kind, give) {
  page.answers.className = kind;
  const buttons = ANSWERS[kind].map(({ value, label, key }) => {
    const text = element("span", { textContent: label });
    const button = element("button", { type: "button" }, element("kbd", { textContent: key }), text);
    button.dataset.value = value;
    button.setAttribute("aria-keyshortcuts", key);
    button.addEventListener("click", () => give(value));
    return button;
  });
  if (!buttons.length) buttons.push(element("p", { id: "hint" }));
  page.answers.replaceChildren(...buttons);
}

/** Show on the buttons what was answered. */
export function flash(value) {
  const button = page.answers.querySelector(`[data-value="${value}"]`) ?? page.skip;
  button.getAnimations().forEach((animation) => animation.cancel());
  const color = getComputedStyle(document.body).getPropertyValue("--accent-soft");
  button.animate([{ backgroundColor: color }, {}], { duration: 350, easing: "ease-out" });
}

/** Draw the frames of a task's pictures; empty ones where a picture is not loaded yet. */
export function drawPictures(task, deck) {
  const { kind, images } = task;
  const figures = images.map((size, index) => {
    const held = deck.picture(size.url);
    held.image.alt = nameOf(kind, index, images.length);
    held.image.classList.toggle("small", isSmall(size));
    const frame = element(kind === "best_worst" ? "button" : "div", { className: "frame" });
    frame.dataset.index = index;
    frame.append(held.image);
    if (!held.loaded) {
      frame.classList.add("loading");
      held.ready.then(() => frame.classList.remove("loading"));
    }
    const figure = element("figure", {}, frame);
    if (kind === "best_worst") {
      Object.assign(frame, { type: "button", ariaPressed: "false" });
      figure.append(element("span", { className: "badge", textContent: String(index + 1) }));
    }
    return figure;
  });
  page.stage.className = kind;
  page.stage.replaceChildren(...figures);
  place(task);
}

/** Give the frames their sizes, anew after each change of the window. */
export function place(task) {
  const edge = 20; // room for rings and badges
  const { clientWidth, clientHeight } = page.middle;
  const room = { width: clientWidth - edge, height: clientHeight - edge };
  const narrow = clientWidth < 640;
  const { columns, sizes } = arrange(task.images, room, narrow ? 12 : 24, narrow ? 132 : 180);
  page.stage.style.setProperty("--columns", columns);
  page.stage.querySelectorAll(".frame").forEach((frame, index) => {
    const [width, height] = sizes[index];
    Object.assign(frame.style, { width: `${width}px`, height: `${height}px` });
  });
  if (task.kind === "pair") nameSides(columns === 1 ? ["Upper", "Lower"] : ["Left", "Right"]);
}

function nameSides([first, second]) {
  for (const [value, name] of [["left", first], ["right", second]]) {
    const label = page.answers.querySelector(`[data-value="${value}"] span`);
    if (label) label.textContent = name;
  }
}

function nameOf(kind, index, number) {
  if (kind === "pair") return index ? "Right image" : "Left image";
  return number === 1 ? "The image" : `Image ${index + 1} of ${number}`;
}

/** Draw the question and the prompt. */
export function drawTexts(question, prompt) {
  page.question.textContent = question;
  page.prompt.textContent = prompt;
  page.prompt.className = prompt.length > 140 ? "long" : "";
  page.prompt.scrollTop = 0;
}

/** Draw the reference photographs of a question; a click enlarges one. */
export function drawReferences(urls) {
  const shown = [...page.references.querySelectorAll("img")].map((image) => image.getAttribute("src"));
  page.judging.classList.toggle("referred", urls.length > 0);
  page.references.hidden = !urls.length;
  if (shown.join() === urls.join()) return;
  const buttons = urls.map((url, index) => {
    const image = element("img", { src: url, alt: `Reference photograph ${index + 1}` });
    const button = element("button", { type: "button", className: "plain" }, image);
    button.addEventListener("click", () => {
      page["photograph-image"].src = url;
      page.photograph.showModal();
    });
    return button;
  });
  const caption = element("p", { className: "overline", textContent: "Reference" });
  page.references.replaceChildren(caption, ...buttons);
}

/** Say something to those who listen. */
export function say(text) {
  page.live.textContent = text;
}
