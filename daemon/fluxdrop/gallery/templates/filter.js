// What is asked for: a text, a state, a label, a model, a folder and a page, kept in the address behind the # so that it can be
// reloaded and passed on.
const FACETS = ["state", "label", "model", "folder"];
// What an entry has of each: a list, as several labels can be found in one picture.
const facetOf = {
  state: (entry) => [entry.state],
  label: (entry) => entry.labels ?? (entry.top?.length ? [entry.top[0][0]] : []),
  model: (entry) => (entry.model ? [entry.model] : []),
  folder: (entry) => (entry.folder ? [entry.folder] : []),
};

const haystacks = new WeakMap();

function haystack(entry) {
  if (!haystacks.has(entry)) {
    const { name, source, prompt, model, made, value, error } = entry;
    const texts = [name, source, prompt, model, made, value, ...facetOf.label(entry), error?.message, error?.kind];
    haystacks.set(entry, texts.join("\n").toLowerCase());
  }
  return haystacks.get(entry);
}

class Wish {
  constructor(values) {
    this.text = values.text ?? "";
    this.state = values.state ?? "";
    this.label = values.label ?? "";
    this.model = values.model ?? "";
    this.folder = values.folder ?? "";
    this.page = Math.max(1, Math.trunc(Number(values.page)) || 1);
    this.words = this.text.toLowerCase().split(/\s+/).filter(Boolean);
  }

  static fromAddress() {
    return new Wish(Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
  }

  toAddress() {
    const parameters = new URLSearchParams();
    for (const key of ["text", ...FACETS]) if (this[key]) parameters.set(key, this[key]);
    if (this.page > 1) parameters.set("page", this.page);
    return `#${parameters}`;
  }

  get isOpen() {
    return !this.words.length && FACETS.every((facet) => !this[facet]);
  }

  #has(entry, facet) {
    return !this[facet] || facetOf[facet](entry).includes(this[facet]);
  }

  // Adds what of `entries` matches to `matches`, and to `counts` how many there would be with each other choice.
  sift(entries, matches, counts) {
    for (const entry of entries) {
      if (!this.words.every((word) => haystack(entry).includes(word))) continue;
      const missed = FACETS.filter((facet) => !this.#has(entry, facet));
      if (!missed.length) matches.push(entry);
      for (const facet of FACETS) {
        if (missed.every((other) => other === facet)) {
          for (const value of facetOf[facet](entry)) {
            counts[facet].set(value, (counts[facet].get(value) ?? 0) + 1);
          }
        }
      }
    }
  }
}
