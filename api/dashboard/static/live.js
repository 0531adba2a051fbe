// Keeps a page fresh: fetches it again, and changes only what differs, so that nothing jumps and no selection is lost.

const banner = document.getElementById("connection");
const HIDDEN_MS = 30_000;
const PATIENCE_MS = 10_000;
const RETRY_MS = [1_000, 2_000, 5_000, 10_000];
let revision = null;
let failures = 0;
let seenAt = new Date();

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.dataset?.key || node.id || "" : "";
}

function copyAttributes(from, to) {
  for (const { name } of [...to.attributes]) {
    if (!from.hasAttribute(name) && name !== "open" && name !== "checked") to.removeAttribute(name);
  }
  for (const { name, value } of from.attributes) {
    if (to.getAttribute(name) !== value && name !== "open" && name !== "checked") to.setAttribute(name, value);
  }
}

/** Makes `old` what `fresh` is; elements keep their identity by `data-key` or `id`, and people keep what they typed. */
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.matches("input:not([type=hidden]), select, textarea")) return;
  copyAttributes(fresh, old);
  const keyed = new Map([...old.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  let place = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child);
    let match = key ? keyed.get(key) : place;
    if (!key) while (match && keyOf(match)) match = match.nextSibling;
    if (!match) {
      old.insertBefore(child, place);
      continue;
    }
    if (match !== place) old.insertBefore(match, place);
    place = match.nextSibling;
    morph(match, child);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-clock])")) {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.valueOf())) {
      time.title = time.dateTime;
      time.textContent = moment.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
    }
  }
}

function showConnection(isThere) {
  banner.hidden = isThere;
  document.body.classList.toggle("stale", !isThere);
  if (!isThere) document.getElementById("last-seen").textContent = seenAt.toLocaleTimeString();
}

async function refresh() {
  const headers = revision ? { "If-None-Match": revision } : {};
  const response = await fetch(location.href, { headers, cache: "no-store", redirect: "manual", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (response.type === "opaqueredirect") {
    location.reload(); // the session is over: to the log-in
    return;
  }
  // A page whose filter is wrong is 400, and stays as it is.
  if (![200, 304, 400].includes(response.status)) throw new Error(`status ${response.status}`);
  if (response.status === 200) {
    revision = response.headers.get("ETag");
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    showTimes(fresh.body);
    morph(document.getElementById("main"), fresh.getElementById("main"));
    document.title = fresh.title;
    if (fresh.body.dataset.pollMs) document.body.dataset.pollMs = fresh.body.dataset.pollMs;
    else delete document.body.dataset.pollMs;
    countSelected();
  }
  seenAt = new Date();
}

async function keepFresh() {
  for (;;) {
    const pollMs = Number(document.body.dataset.pollMs);
    if (!pollMs) return;
    const pause = failures ? RETRY_MS[Math.min(failures, RETRY_MS.length) - 1] : document.hidden ? HIDDEN_MS : pollMs;
    const over = new AbortController();
    await new Promise((done) => {
      setTimeout(done, pause);
      document.addEventListener("visibilitychange", done, { signal: over.signal });
    });
    over.abort();
    try {
      await refresh();
      failures = 0;
    } catch {
      failures += 1;
    }
    showConnection(failures === 0);
  }
}

function countSelected() {
  const count = document.querySelectorAll("td.pick input:checked").length;
  const label = document.getElementById("selected-count");
  if (label) label.textContent = count ? `${count} selected:` : label.dataset.empty;
  for (const button of document.querySelectorAll("[data-needs-selection]")) button.disabled = count === 0;
}

const label = document.getElementById("selected-count");
if (label) label.dataset.empty = label.textContent;
document.addEventListener("change", ({ target }) => {
  const scope = target.id === "select-page" ? document : target.dataset.selectGroup === "" ? target.closest("section") : null;
  if (scope) for (const box of scope.querySelectorAll("td.pick input")) box.checked = target.checked;
  countSelected();
});
showTimes(document);
countSelected();
keepFresh();
