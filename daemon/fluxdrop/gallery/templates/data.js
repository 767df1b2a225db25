// The results, read a page at a time. Each file calls window.fluxdrop with what it holds: a page opened from a folder
// may load scripts from beside it, but fetch nothing.
const AT_ONCE = 8;
const arrived = new Map();
window.fluxdrop = {
  summary: (found) => arrived.set("summary", found),
  page: (edition, number, entries) => arrived.set(`${edition}/${number}`, entries),
};

function load(url, key) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.onload = () => {
      script.remove();
      if (arrived.has(key)) resolve(arrived.get(key));
      else reject(new Error(`${url} is not whole`));
      arrived.delete(key);
    };
    script.onerror = () => {
      script.remove();
      reject(new Error(`${url} cannot be read`));
    };
    document.head.append(script);
  });
}

class Results {
  #folder;
  #pages = new Map();
  summary = null;

  constructor(folder) {
    this.#folder = folder;
  }

  get total() {
    return this.summary.total;
  }

  // Reads the summary again; whether it has changed.
  async refresh() {
    const before = this.summary;
    this.summary = await load(`${this.#folder}/summary.js?${Date.now()}`, "summary");
    if (before?.edition !== this.summary.edition) this.#pages.clear();
    return before?.edition !== this.summary.edition || before.total !== this.total;
  }

  // `count` entries from the `first` newest of `total` on, the newest first.
  async newest(first, count, total = this.total) {
    const end = Math.max(0, total - first);
    const begin = Math.max(0, end - count);
    const size = this.summary.page;
    const low = Math.floor(begin / size);
    const numbers = [];
    for (let number = low; number * size < end; number++) numbers.push(number);
    const pages = await Promise.all(numbers.map((number) => this.#page(number)));
    return pages.flat().slice(begin - low * size, end - low * size).reverse();
  }

  // All entries, the newest first, a few pages at once. The next ones are read while a caller looks through these.
  async *all() {
    const { total, page } = this.summary;
    const newest = total % page;
    let next = this.newest(0, newest, total);
    for (let at = newest; at < total; at += AT_ONCE * page) {
      const entries = await next;
      next = this.newest(at, AT_ONCE * page, total);
      // If nobody asks for the rest, nobody asks why it could not be read.
      next.catch(() => {});
      yield entries;
    }
    yield await next;
  }

  #page(number) {
    const { edition, page: size } = this.summary;
    const count = Math.min(size, this.total - number * size);
    // The last page grows, so its length is a part of its name.
    const key = `${number}:${count}`;
    if (!this.#pages.has(key)) {
      const file = `${edition}/${String(number).padStart(5, "0")}.js?${count}`;
      const entries = load(`${this.#folder}/${file}`, `${edition}/${number}`);
      this.#pages.set(key, entries.then((found) => found.slice(0, count)));
      entries.catch(() => this.#pages.delete(key));
    }
    return this.#pages.get(key);
  }
}
