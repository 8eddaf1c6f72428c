// Makes the page faster; it works without this script. The server renders every state. This module fetches the same
// addresses, replaces what changed and updates the address bar. It holds no state of its own.

const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const form = () => find("#search");
const lightbox = find("#lightbox");

history.scrollRestoration = "manual";
let underneath = location.href; // the address of what #page shows; the lightbox has its own
let request = new AbortController();

// ---- Fetching a page and showing it ----------------------------------------------------------------------------

// Milliseconds without an answer before outlines replace the pictures; most answers come sooner.
const PATIENCE = 150;

async function fetched(address, options = {}) {
  request.abort();
  request = new AbortController();
  const response = await fetch(address, { ...options, signal: request.signal, credentials: "same-origin" });
  if (response.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  const text = await response.text();
  if (!(response.headers.get("content-type") ?? "").startsWith("text/html")) throw new Error(reason(response, text));
  return { address: response.url, page: new DOMParser().parseFromString(text, "text/html") };
}

function reason(response, text) {
  const wait = response.headers.get("retry-after");
  if (response.status === 429) return `The server is busy. Try again in ${wait ?? "a few"} s.`;
  if (response.status === 413) return "This picture is too large for the server. Try a smaller copy.";
  try {
    return JSON.parse(text).detail;
  } catch {
    return `The server answered with an error (${response.status}). Try again.`;
  }
}

async function go(address, { how = "push", scroll = 0, focus = "", ...options } = {}) {
  const results = find("#results");
  const outlines = setTimeout(() => results?.classList.add("busy"), PATIENCE);
  results?.setAttribute("aria-busy", "true");
  let found;
  try {
    found = await fetched(address, options);
  } catch (error) {
    if (error.name !== "AbortError") complain(error instanceof TypeError ? "The server cannot be reached. Is it running?" : error.message);
    return;
  } finally {
    clearTimeout(outlines);
    results?.classList.remove("busy");
    results?.removeAttribute("aria-busy");
  }
  if (how === "push") {
    history.replaceState({ scroll: scrollY }, "");
    history.pushState({ scroll: 0 }, "", found.address);
  } else if (how === "replace") history.replaceState({ scroll }, "", found.address);
  underneath = found.address;
  show(found.page, focus);
  scrollTo({ top: scroll, behavior: "instant" });
}

function show(page, focus) {
  const before = document.activeElement;
  const caret = before?.selectionStart;
  const opened = new Set(all("details[id][open]").map((details) => details.id));
  document.title = page.title;
  find("#page").replaceChildren(...document.adoptNode(find("#page", page)).childNodes);
  if (opened.has("filters")) find("#filters")?.setAttribute("open", "");
  prepare();
  const again = (focus && find(focus)) || (before?.id && document.getElementById(before.id)) || find("#heading");
  again?.focus({ preventScroll: true });
  if (caret != null && again?.id === before.id && again.value !== undefined) again.setSelectionRange?.(caret, caret);
  announce(find("#results")?.dataset.summary ?? find("#heading")?.textContent ?? "");
}

const announce = (words) => (find("#announcer").textContent = words);

function complain(words) {
  all(".notice").forEach((old) => old.remove());
  const notice = document.createElement("div");
  notice.className = "notice";
  notice.setAttribute("role", "alert");
  notice.append(Object.assign(document.createElement("p"), { textContent: words }));
  find("main").prepend(notice);
  notice.scrollIntoView({ block: "nearest" });
}

const submit = (options) => go(`/?${new URLSearchParams(fields())}`, options);

function fields() {
  const data = new FormData(form());
  data.delete("file");
  return data;
}

// ---- Searching with pictures -----------------------------------------------------------------------------------

function searchBy(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/"));
  if (!pictures.length) return complain("This file is not a picture. Drop or paste a JPEG, PNG, WebP or GIF file.");
  const body = form() ? fields() : new FormData();
  for (const picture of pictures) body.append("file", picture);
  return go("/", { method: "POST", body });
}

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
let depth = 0; // number of elements that a drag has entered and not left
document.addEventListener("dragenter", (event) => {
  if (carriesFiles(event)) document.body.classList.toggle("dragging", ++depth > 0);
});
document.addEventListener("dragleave", (event) => {
  if (carriesFiles(event)) document.body.classList.toggle("dragging", --depth > 0);
});
document.addEventListener("dragover", (event) => {
  if (carriesFiles(event)) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  depth = 0;
  document.body.classList.remove("dragging");
  if (!carriesFiles(event)) return;
  event.preventDefault();
  searchBy(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  // Office programs copy a text also as a picture of it; into a field, paste the text.
  const words = event.target.matches("input") && event.clipboardData.types.includes("text/plain");
  if (words || !event.clipboardData.files.length) return;
  event.preventDefault();
  searchBy(event.clipboardData.files);
});

// ---- Forms and links -------------------------------------------------------------------------------------------

document.addEventListener("submit", (event) => {
  if (event.target.matches(".theme")) {
    event.preventDefault();
    paint(event.submitter.value);
  } else if (event.target === form()) {
    event.preventDefault();
    submit();
  }
});

document.addEventListener("change", (event) => {
  const field = event.target;
  if (field.id === "file") searchBy(field.files);
  else if (field.id === "shortcuts") localStorage.setItem("shortcuts", field.checked ? "on" : "off");
  else if (field.id === "slider") submit({ how: "replace", scroll: scrollY });
  // A text is searched for when the form is sent; numbers, choices and dates take effect at once.
  else if (field.form === form() && field.matches("select, [type=number], [type=checkbox], [type=range], [type=date]"))
    submit({ scroll: scrollY });
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.defaultPrevented) return;
  const address = new URL(link.href);
  if (address.origin !== location.origin || link.target || link.hasAttribute("download")) return;
  if (address.pathname.startsWith("/pictures/")) {
    event.preventDefault();
    open(link.href);
  } else if (address.pathname === "/") {
    event.preventDefault();
    const fromKeys = event.detail === 0 && link.closest(".card");
    // From the lightbox, replace its entry in the history, so that going back leads to the grid.
    const how = history.state?.above ? "replace" : "push";
    shut();
    go(link.href, { how, focus: fromKeys ? ".open" : "" });
  }
});

addEventListener("popstate", () => {
  if (history.state?.above) return open(location.href, "none");
  shut();
  if (location.href !== underneath) go(location.href, { how: "none", scroll: history.state?.scroll ?? 0 });
});

// ---- Light and dark --------------------------------------------------------------------------------------------

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  find("meta[name=color-scheme]").content = theme;
  // A cookie, so that the server can send the next page in the right colours.
  document.cookie = `diptych_theme=${theme}; path=/; max-age=31536000; samesite=strict`;
  find(theme === "dark" ? ".light-on" : ".dark-on").focus();
}

// ---- The threshold ---------------------------------------------------------------------------------------------

document.addEventListener("input", (event) => {
  if (event.target.id !== "slider") return;
  const slider = event.target;
  const least = Number(slider.value) > Number(slider.min) ? Number(slider.value) : null;
  find("#least").value = least ?? "";
  divide(least);
});

function divide(least) {
  find("#divider")?.remove();
  const cards = all(".card");
  for (const card of cards) card.classList.toggle("weak", least !== null && Number(card.dataset.score) < least);
  const first = cards.findIndex((card) => card.classList.contains("weak"));
  // With variety, weak matches may be anywhere; then the server sorts them when the slider is released.
  if (first < 0 || !cards.slice(first).every((card) => card.classList.contains("weak"))) return;
  const divider = Object.assign(document.createElement("li"), { className: "divider", id: "divider" });
  divider.append("Weak matches, below ", Object.assign(document.createElement("span"), { textContent: least }));
  cards[first].before(divider);
}

// ---- Keyboard control of the grid ------------------------------------------------------------------------------

// The Tab key stops at one card, the last one used; arrow keys move between cards (a "roving tabindex").
function makeCurrent(card) {
  for (const link of all("#grid a, #grid summary")) link.tabIndex = card.contains(link) ? 0 : -1;
}

function neighbour(card, key) {
  const cards = all(".card");
  const place = cards.indexOf(card);
  if (key === "Home") return cards[0];
  if (key === "End") return cards.at(-1);
  if (key === "ArrowLeft") return cards[place - 1];
  if (key === "ArrowRight") return cards[place + 1];
  const sign = key === "ArrowDown" ? 1 : -1;
  const distance = (other) => sign * (other.offsetTop - card.offsetTop);
  const beyond = cards.filter((other) => distance(other) > 0);
  const row = Math.min(...beyond.map(distance));
  const sideways = (other) => Math.abs(other.offsetLeft - card.offsetLeft);
  return beyond.filter((other) => distance(other) === row).sort((a, b) => sideways(a) - sideways(b))[0];
}

document.addEventListener("focusin", (event) => {
  const card = event.target.closest(".card");
  if (card) makeCurrent(card);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (lightbox.open) return keyInLightbox(event);
  const typing = event.target.matches("input:not([type=checkbox], [type=range]), select, textarea");
  if (event.key === "Escape") return event.target.closest("details[open]")?.removeAttribute("open");
  if (typing) return;
  const shortcuts = localStorage.getItem("shortcuts") !== "off";
  if (event.key === "/" && shortcuts && find("#q")) {
    event.preventDefault();
    find("#q").select();
    return find("#q").focus();
  }
  const card = event.target.closest(".card");
  if (!card) return;
  if (/^(Arrow|Home$|End$)/.test(event.key)) {
    const next = neighbour(card, event.key);
    event.preventDefault();
    find(".open", next ?? card).focus();
  } else if (shortcuts && event.key === "s") find(".similar", card).click();
  else if (shortcuts && event.key === "x") find(".exclude", card).click();
});

// ---- The lightbox ----------------------------------------------------------------------------------------------

let showing = ""; // the address of the picture in the lightbox

async function open(address, how = lightbox.open ? "replace" : "push") {
  const before = showing;
  showing = address; // set at once: a second step during loading continues from here
  let found;
  try {
    found = await fetched(address);
  } catch (error) {
    if (error.name === "AbortError") return;
    showing = before;
    return complain(error.message);
  }
  const picture = find("#picture", found.page);
  if (!picture) {
    showing = before;
    return complain(find("#heading", found.page)?.textContent ?? "This picture cannot be shown.");
  }
  if (how === "push") {
    history.replaceState({ scroll: scrollY }, "");
    history.pushState({ above: true }, "", address);
  } else if (how === "replace") history.replaceState(history.state, "", address);
  find("#lightbox-content").replaceChildren(document.adoptNode(picture));
  find("#lightbox-previous").hidden = !beside(-1);
  find("#lightbox-next").hidden = !beside(1);
  if (!lightbox.open) lightbox.showModal();
  lightbox.scrollTop = 0;
}

function beside(step) {
  const path = (address) => new URL(address, location.href).pathname;
  const links = all("#grid .open");
  const place = links.findIndex((link) => path(link.href) === path(showing));
  return place < 0 ? undefined : links[place + step];
}

// Closes the dialog and focuses the picture that was shown last. The caller sets the address.
function shut() {
  if (!lightbox.open) return;
  const link = beside(0);
  lightbox.close();
  (link ?? find("#heading"))?.focus();
}

// Opening added an entry to the history. Go back; then `popstate` closes the dialog.
const close = () => history.back();

function turn(step) {
  const link = beside(step);
  if (link) open(link.href);
}

function keyInLightbox(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) turn(step);
  else if (event.key === "s" || event.key === "x") {
    if (localStorage.getItem("shortcuts") === "off") return;
    all(".do a", lightbox)[event.key === "s" ? 0 : 1].click();
  }
}

find("#lightbox-previous").addEventListener("click", () => turn(-1));
find("#lightbox-next").addEventListener("click", () => turn(1));
find("#lightbox-close").addEventListener("click", close);
lightbox.addEventListener("cancel", (event) => {
  event.preventDefault();
  close();
});
lightbox.addEventListener("click", (event) => {
  if (event.target === lightbox) close(); // the backdrop
});

// If a file is gone since it was indexed, show its small copy.
document.addEventListener(
  "error",
  ({ target }) => {
    const copy = target.dataset?.fallback;
    if (copy && target.getAttribute("src") !== copy) target.src = copy;
  },
  true,
);

// ---- Whenever a page is shown ----------------------------------------------------------------------------------

function prepare() {
  const first = find(".card");
  if (first) makeCurrent(first);
  const shortcuts = find("#shortcuts");
  if (shortcuts) shortcuts.checked = localStorage.getItem("shortcuts") !== "off";
}

prepare();
