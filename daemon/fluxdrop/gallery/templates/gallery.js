// The page itself: shows what is wished, a screenful of cards at a time, and looks now and then for news.
const LOOK_EVERY_MS = 10_000;
const TYPING_MS = 150;
const NOTHING = ["Nothing here yet", "Drop a .txt prompt or a picture into inbox/. What comes of it appears here."];
const NO_MATCH = ["Nothing matches", "No result has all that the filters ask for."];

const $ = (id) => document.getElementById(id);
const filters = document.querySelector("form");
const results = new Results(FOLDER);
let wish = Wish.fromAddress();
let turn = 0;
let shown = [];
let opened = -1;

const counted = (count, word) => `${number.format(count)} ${word}${count === 1 ? "" : "s"}`;

function showOverview() {
  const { total, states } = results.summary;
  const failed = states.failed ?? 0;
  $("overview").textContent = total ? `${counted(total, "result")}, ${number.format(failed)} failed` : "";
}

function showCards(entries) {
  shown = entries;
  const fragment = document.createDocumentFragment();
  for (const entry of entries) fragment.append(cardOf(entry));
  $("grid").replaceChildren(fragment);
}

function showEmpty(texts) {
  $("empty").hidden = !texts;
  if (!texts) return;
  setText($("empty"), "h2", texts[0]);
  setText($("empty"), "p", texts[1]);
}

function showPager(total) {
  const pages = Math.max(1, Math.ceil(total / results.summary.page));
  $("pager").hidden = pages === 1;
  setText($("pager"), "p", `Page ${number.format(wish.page)} of ${number.format(pages)}`);
  $("newer").disabled = wish.page <= 1;
  $("older").disabled = wish.page >= pages;
}

function showChoices(counts) {
  for (const input of filters.querySelectorAll("[name=state]")) {
    const all = [...counts.state.values()].reduce((sum, count) => sum + count, 0);
    const count = input.value ? (counts.state.get(input.value) ?? 0) : all;
    input.checked = input.value === wish.state;
    input.nextElementSibling.querySelector("data").textContent = number.format(count);
  }
  for (const facet of ["label", "model", "folder"]) {
    const names = new Set([...Object.keys(results.summary[`${facet}s`] ?? {}), ...(wish[facet] ? [wish[facet]] : [])]);
    const choices = [...names].sort((one, other) => one.localeCompare(other)).map((name) => {
      return new Option(`${name} (${number.format(counts[facet].get(name) ?? 0)})`, name);
    });
    filters.elements[facet].replaceChildren(new Option(`All ${facet}s`, ""), ...choices);
    filters.elements[facet].value = wish[facet];
    filters.elements[facet].closest("label").hidden = facet === "folder" && names.size === 0;
  }
  $("clear").hidden = wish.isOpen;
}

function noCounts() {
  return Object.fromEntries(FACETS.map((facet) => [facet, new Map()]));
}

function allCounts() {
  const { states, labels, models, folders } = results.summary;
  return {
    state: new Map(Object.entries(states)),
    label: new Map(Object.entries(labels)),
    model: new Map(Object.entries(models)),
    folder: new Map(Object.entries(folders ?? {})),
  };
}

function showRange(total, what) {
  const first = (wish.page - 1) * results.summary.page;
  const range = `${number.format(first + 1)} to ${number.format(first + shown.length)}`;
  $("status").textContent = shown.length ? `${range} of ${counted(total, what)}` : "";
}

async function showNewest(isOurs) {
  const size = results.summary.page;
  wish.page = Math.min(wish.page, Math.max(1, Math.ceil(results.total / size)));
  const entries = await results.newest((wish.page - 1) * size, size);
  if (!isOurs()) return;
  showCards(entries);
  showChoices(allCounts());
  showEmpty(results.total ? null : NOTHING);
  showRange(results.total, "result");
  showPager(results.total);
}

async function showMatches(isOurs) {
  const size = results.summary.page;
  const matches = [];
  const counts = noCounts();
  const first = (wish.page - 1) * size;
  let read = 0;
  let isFull = false;
  for await (const entries of results.all()) {
    if (!isOurs()) return;
    wish.sift(entries, matches, counts);
    read += entries.length;
    // The first screenful does not wait for the rest.
    if (!isFull && matches.length >= first + size) {
      isFull = true;
      showCards(matches.slice(first, first + size));
    }
    $("status").textContent = `Searched ${number.format(read)} of ${counted(results.total, "result")}`;
  }
  if (!isOurs()) return;
  wish.page = Math.min(wish.page, Math.max(1, Math.ceil(matches.length / size)));
  if (!isFull) showCards(matches.slice((wish.page - 1) * size, wish.page * size));
  showChoices(counts);
  showEmpty(matches.length ? null : NO_MATCH);
  showRange(matches.length, "matching result");
  showPager(matches.length);
}

// Whether what could not be read is gone because `fluxdrop gallery` has made all of it anew.
async function isMadeAnew() {
  const before = results.summary?.edition;
  await results.refresh().catch(() => null);
  return before !== results.summary?.edition;
}

async function show() {
  const mine = ++turn;
  const isOurs = () => mine === turn;
  $("news").hidden = true;
  $("results").setAttribute("aria-busy", "true");
  try {
    if (!results.summary) await results.refresh();
    showOverview();
    await (wish.isOpen ? showNewest(isOurs) : showMatches(isOurs));
  } catch (error) {
    if (await isMadeAnew()) return show();
    if (isOurs()) showEmpty(["The results cannot be read", `${error.message}. Make them anew with: fluxdrop gallery`]);
  } finally {
    if (isOurs()) $("results").removeAttribute("aria-busy");
  }
}

function wishFor(values) {
  const { text, state, label, model, folder } = wish;
  wish = new Wish({ text, state, label, model, folder, ...values });
  history.replaceState(null, "", wish.toAddress());
  show();
}

function turnTo(page) {
  wishFor({ page });
  scrollTo({ top: 0 });
  $("results").focus({ preventScroll: true });
}

function open(index) {
  if (!shown[index]) return;
  opened = index;
  const entry = shown[index];
  setText($("details"), "h2", entry.state === "failed" ? entry.source : entry.name);
  $("details").querySelector(".body").replaceChildren(detailsOf(entry));
  $("previous").disabled = index === 0;
  $("next").disabled = index === shown.length - 1;
  if (!$("details").open) $("details").showModal();
}

async function look() {
  if (document.hidden || $("details").open) return;
  const before = results.summary;
  try {
    if (!(await results.refresh())) return;
  } catch {
    return;
  }
  const isAtTop = wish.isOpen && wish.page === 1 && scrollY < 200;
  if (isAtTop || !before || before.edition !== results.summary.edition) {
    show();
    return;
  }
  $("news").textContent = `Show ${counted(results.total - before.total, "new result")}`;
  $("news").hidden = false;
}

let typing = 0;
filters.elements.text.addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => wishFor({ text: event.target.value }), TYPING_MS);
});
filters.addEventListener("change", (event) => {
  if (event.target.name !== "text") wishFor({ [event.target.name]: event.target.value });
});
filters.addEventListener("submit", (event) => event.preventDefault());
$("clear").addEventListener("click", () => {
  filters.elements.text.value = "";
  wishFor({ text: "", state: "", label: "", model: "", folder: "" });
  filters.elements.text.focus();
});
$("news").addEventListener("click", () => turnTo(1));
$("newer").addEventListener("click", () => turnTo(wish.page - 1));
$("older").addEventListener("click", () => turnTo(wish.page + 1));
$("grid").addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (card) open([...$("grid").children].indexOf(card));
});
$("previous").addEventListener("click", () => open(opened - 1));
$("next").addEventListener("click", () => open(opened + 1));
$("close").addEventListener("click", () => $("details").close());
$("details").addEventListener("click", (event) => {
  if (event.target === $("details")) $("details").close();
});
$("details").addEventListener("close", () => {
  $("grid").children[opened]?.querySelector(".open").focus();
});
$("details").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") open(opened - 1);
  if (event.key === "ArrowRight") open(opened + 1);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, select") || $("details").open) return;
  event.preventDefault();
  filters.elements.text.focus();
});
addEventListener("hashchange", () => {
  wish = Wish.fromAddress();
  filters.elements.text.value = wish.text;
  show();
});

filters.elements.text.value = wish.text;
show();
setInterval(look, LOOK_EVERY_MS);
