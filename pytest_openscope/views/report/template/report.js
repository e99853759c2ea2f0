"use strict";
(() => {
  const ROW_PX = 20;
  const element = (id) => document.getElementById(id);

  // Plots: bokeh knows nothing of light and dark, so its texts take the page's colour.
  let plots = null;
  const paint = () => {
    if (plots === null) return;
    const text = getComputedStyle(document.body).color;
    for (const model of plots.roots[0].model.document.all_models || plots.roots[0].model.references()) {
      if (model.type === "Title") model.text_color = text;
      if (model.type === "Legend") model.label_text_color = text;
      if (/Axis$/.test(model.type)) {
        model.axis_label_text_color = text; model.major_label_text_color = text; model.axis_line_color = text;
      }
    }
  };
  const draw = async () => {
    const data = element("plot-data");
    if (data === null) return;
    plots = await Bokeh.embed.embed_item(JSON.parse(data.textContent), "plots");
    paint();
    document.documentElement.dataset.plots = "drawn";
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

  // The log: all of it in memory as columns, only the rows in sight in the document.
  const inflate = async (text) => {
    const packed = Uint8Array.from(atob(text.trim()), (sign) => sign.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };
  const start = async () => {
    const log = await inflate(element("log-data").textContent);
    const view = element("log-view"), rows = element("log-rows"), space = element("log-space");
    let lower = null, shown = log.m.map((_, index) => index), chosen = -1;

    const fill = (id, names, label) => {
      names.map((name, index) => [name || label, index]).sort((a, b) => a[0] < b[0] ? -1 : 1).forEach(([name, index]) => {
        const option = document.createElement("option");
        option.textContent = name; option.value = String(index);
        element(id).append(option);
      });
    };
    fill("filter-level", log.levels, "(none)"); fill("filter-phase", log.phases, "(none)"); fill("filter-step", log.steps, "(none)");

    const at = (index) => {
      const time = new Date(log.start * 1000 + log.t[index]);
      const two = (value, width = 2) => String(value).padStart(width, "0");
      return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${two(time.getMilliseconds(), 3)}`;
    };
    const cell = (row, name, text) => {
      const made = document.createElement("span");
      made.className = name; made.textContent = text;
      row.append(made);
    };
    const render = () => {
      const first = Math.max(0, Math.floor(view.scrollTop / ROW_PX) - 10);
      const last = Math.min(shown.length, first + Math.ceil(view.clientHeight / ROW_PX) + 20);
      rows.replaceChildren();
      rows.style.transform = `translateY(${first * ROW_PX}px)`;
      for (let place = first; place < last; place += 1) {
        const index = shown[place], row = document.createElement("div"), level = log.levels[log.l[index]];
        row.className = place === chosen ? "row chosen" : "row";
        row.dataset.place = String(place);
        cell(row, "at", at(index)); cell(row, `level ${/^[A-Z]+$/.test(level) ? level : ""}`, level);
        cell(row, "step", log.steps[log.s[index]]); cell(row, "text", log.m[index].split("\n", 1)[0]);
        rows.append(row);
      }
    };
    const choose = (place) => {
      if (place < 0 || place >= shown.length) return;
      chosen = place;
      const index = shown[place];
      element("log-detail").textContent = `${at(index)} ${log.levels[log.l[index]]} ${log.phases[log.p[index]]} ${log.steps[log.s[index]]} ${log.loggers[log.g[index]]}\n${log.m[index]}`;
      if (place * ROW_PX < view.scrollTop) view.scrollTop = place * ROW_PX;
      if ((place + 1) * ROW_PX > view.scrollTop + view.clientHeight) view.scrollTop = (place + 1) * ROW_PX - view.clientHeight;
      render();
    };
    const filter = () => {
      const begun = performance.now();
      const wanted = ["level", "phase", "step"].map((name) => element(`filter-${name}`).value);
      const [level, phase, step] = wanted.map((value) => value === "" ? -1 : Number(value));
      const text = element("filter-text").value.toLowerCase();
      if (text && lower === null) lower = log.m.map((message) => message.toLowerCase());
      const found = [];
      for (let index = 0; index < log.m.length; index += 1) {
        if ((level < 0 || log.l[index] === level) && (phase < 0 || log.p[index] === phase) && (step < 0 || log.s[index] === step)
            && (!text || lower[index].includes(text))) found.push(index);
      }
      shown = found; chosen = -1;
      space.style.height = `${shown.length * ROW_PX}px`;
      view.scrollTop = 0;
      element("log-count").textContent = `${shown.length} of ${log.m.length} records`;
      element("log-detail").textContent = "";
      render();
      document.documentElement.dataset.filterMs = (performance.now() - begun).toFixed(1);
    };
    element("filters").addEventListener("input", filter);
    element("filters").addEventListener("reset", () => setTimeout(filter));
    element("filters").addEventListener("submit", (event) => event.preventDefault());
    view.addEventListener("scroll", render);
    rows.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) choose(Number(row.dataset.place));
    });
    view.addEventListener("keydown", (event) => {
      const page = Math.floor(view.clientHeight / ROW_PX);
      const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
      if (event.key in moves) { event.preventDefault(); choose(Math.min(shown.length - 1, Math.max(0, chosen + moves[event.key]))); }
      if (event.key === "Home") choose(0);
      if (event.key === "End") choose(shown.length - 1);
    });
    filter();
    if (log.m.length) setTimeout(() => { lower = lower || log.m.map((message) => message.toLowerCase()); });
    document.documentElement.dataset.log = "ready";
  };
  draw().catch((error) => console.error(error));
  start().catch((error) => console.error(error));
})();
