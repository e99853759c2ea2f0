"use strict";
// All that comes from the rig goes into the page as text, never as markup.
(() => {
  const MAX_ROWS = 2000, MAX_SAMPLES = 720, LEVELS = { DEBUG: 10, INFO: 20, WARNING: 30, ERROR: 40, CRITICAL: 50 };
  const SIGNS = { passed: "✓", skipped: "–", interrupted: "‖", timeout: "⏱", failed: "✗", error: "✗", crashed: "✗", running: "▶", ending: "▶", died: "✗" };
  const PLOTS = [["cpu_percent", "CPU (% of one core)"], ["memory_mb", "Memory (MB)"], ["free_gb", "Free on the session's disk (GB)"]];
  let session = {}, steps = [], samples = [], shownQuestion = "", seen = [0, 0], stopUntil = 0;
  const find = (id) => document.getElementById(id);
  const make = (tag, text, name) => { const made = document.createElement(tag); if (text !== undefined) made.textContent = text; if (name) made.className = name; return made; };
  const fill = (id, children) => find(id).replaceChildren(...children);
  const short = (value) => value == null ? "–" : String(Math.round(value * 10) / 10);
  const clock = (time) => { const at = new Date(time); return isNaN(at) ? "–" : at.toLocaleTimeString("en-GB"); };
  const duration = (seconds) => {
    if (!(seconds >= 0)) return "–";
    if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
    const minutes = Math.floor(seconds / 60);
    return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };
  const over = () => ["ended", "died", "discarded"].includes(session.status);

  async function post(what, body) {
    find("told").textContent = "";
    let problem = "";
    try {
      const answer = await fetch(what, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), credentials: "omit" });
      if (!answer.ok) problem = (await answer.json().catch(() => ({}))).problem || `refused (${answer.status})`;
    } catch (error) { problem = "the page's server does not answer"; }
    if (problem) { find("told").textContent = `Not done: ${problem}`; find("told").className = "bad"; }
    return !problem;
  }

  // -- the session's state
  function showSession() {
    const outcome = (session.outcome || {}).outcome, word = session.status === "ended" || (session.status === "died" && outcome) ? outcome || "ended" : session.status;
    find("status").textContent = `${SIGNS[word] || ""} ${word}`;
    find("status").className = `badge ${word}`;
    find("name").textContent = session.session_uuid || "";
    find("subject").textContent = session.subject_id || "–";
    find("user").textContent = session.user_id || "–";
    find("rig").textContent = session.rig_id || "–";
    find("dry-run").hidden = !session.dry_run;
    find("acquisitions").textContent = (session.acquisitions || []).join(", ") || "–";
    const ending = session.status === "died" ? `The experiment's process has died. Look at the hardware. ${outcome ? `The helper process has finished the session: ${outcome}.` : "The helper process finishes the session."}`
      : session.status === "ended" ? `The session has ended: ${outcome}, exit code ${session.outcome.exit_code}.`
      : session.status === "ending" ? "The session is ending." : "";
    find("ending").textContent = ending;
    find("ending").hidden = !ending;
    find("ending").className = `banner ${session.status === "died" ? "died" : outcome || "odd"}`;
    find("stop").hidden = over();
    find("stop").disabled = Date.now() < stopUntil;
    for (const id of ["note"]) find(id).disabled = over();
    document.title = `${session.question ? "❓" : SIGNS[word] || ""} ${session.session_uuid || "live session"}`;
    showQuestion();
    find("answers").hidden = !(session.answered || []).length;
    fill("answered", (session.answered || []).slice().reverse().map((one) => make("li", one.by ? `${one.question} → ${one.answer} (answered on ${one.by})` : `${one.question} → given up`)));
    find("failures").hidden = !(session.failures || []).length;
    fill("failure-list", (session.failures || []).map((text) => make("li", text)));
    fill("notes", (session.notes || []).map((text) => make("li", text)));
    find("measured").hidden = !(session.measurements || []).length;
    fill("measurements", (session.measurements || []).map((one) => {
      const row = make("tr");
      row.append(make("td", one.name), make("td", `${one.value} ${one.unit || ""}`), make("td", one.minimum == null && one.maximum == null ? "" : `${one.minimum ?? "–"} … ${one.maximum ?? "–"}`), make("td", one.passed ? "✓ yes" : "✗ no", one.passed ? "passed" : "failed"));
      return row;
    }));
    showPictures();
    if (over()) fill("steps", steps.map(stepRow));
  }

  const address = (name) => `picture/${name.split("/").map(encodeURIComponent).join("/")}`;
  function showPictures() {
    const names = session.attachments || [];
    find("pictures-section").hidden = !names.length;
    for (const name of names.slice(find("pictures").childElementCount)) {
      const figure = make("figure"), picture = make("img");
      picture.loading = "lazy"; picture.alt = name; picture.src = address(name);
      figure.append(picture, make("figcaption", name));
      find("pictures").append(figure);
    }
  }

  // -- questions
  function showQuestion() {
    const question = over() ? null : session.question, ident = question ? question.id : "";
    find("question").hidden = !question;
    if (ident === shownQuestion) return;
    shownQuestion = ident;
    if (!question) { find("question-form").replaceChildren(); return; }
    // The buttons say what the terminal's "[y/n]" does.
    find("question-text").textContent = question.kind === "confirm" ? question.text.replace(/ \[y\/n\]$/i, "") : question.text;
    find("question-since").textContent = clock(question.at);
    const picture = find("question-picture");
    picture.hidden = !question.picture;
    if (question.picture) { picture.src = address(question.picture); picture.alt = `Picture of the question: ${question.picture}`; }
    const form = find("question-form");
    form.replaceChildren();
    const buttons = question.kind === "confirm" ? [["Yes", "yes"], ["No", "no"]] : question.kind === "choice" ? question.choices.map((one) => [one, one]) : [];
    for (const [label, value] of buttons) {
      const button = make("button", label);
      button.type = "button";
      button.addEventListener("click", () => answer(ident, value));
      form.append(button);
    }
    if (!buttons.length) {
      const field = make(question.kind === "lines" ? "textarea" : "input"), label = make("label", question.unit ? `Answer (${question.unit}) ` : "Answer ");
      field.id = "answer"; field.autocomplete = "off"; field.maxLength = 10000;
      if (question.kind === "number") {
        field.type = "number"; field.step = "any";
        if (question.minimum != null) field.min = question.minimum;
        if (question.maximum != null) field.max = question.maximum;
      }
      field.value = question.default || "";
      label.append(field);
      const send = make("button", "Answer");
      send.type = "submit";
      form.append(label, " ", send);
    }
    const first = form.querySelector("input, textarea, button");
    if (first && (document.activeElement === document.body || !document.activeElement)) first.focus();
  }
  async function answer(ident, text) { await post("answer", { question: ident, text }); }
  find("question-form").addEventListener("submit", (event) => { event.preventDefault(); const field = find("answer"); if (field) answer(shownQuestion, field.value); });

  // -- stop and notes
  find("stop").addEventListener("click", () => find("stop-dialog").showModal());
  find("stop-not").addEventListener("click", () => find("stop-dialog").close());
  find("stop-now").addEventListener("click", async () => {
    find("stop-dialog").close();
    stopUntil = Date.now() + 3000;
    find("stop").disabled = true;
    await post("stop", { stops: session.stops });
    setTimeout(() => { find("stop").disabled = false; }, 3000);
  });
  find("note-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = find("note"), text = field.value;
    if (text.trim() && await post("note", { text })) field.value = "";
  });

  // -- steps
  function stepRow(step) {
    const row = make("tr"), word = step.outcome || (step.skipped ? "skipped" : step.ended ? "skipped" : over() ? "crashed" : "running");
    row.append(make("td", step.step), make("td", `${step.phase}${step.kind === "fixture" ? " (fixture)" : ""}`), make("td", `${SIGNS[word] || ""} ${word}`, word),
      make("td", step.ended ? duration(step.duration_s) : ""), make("td", String(step.attempts)), make("td", step.skipped || ""));
    return row;
  }
  function showStep(step) {
    const { index, ...rest } = step, body = find("steps");
    steps[index] = rest;
    const row = stepRow(rest);
    if (body.children[index]) body.children[index].replaceWith(row); else body.append(row);
  }
  function showTimes() {
    const now = Date.now(), running = over() ? undefined : [...steps].reverse().find((one) => one && !one.ended);
    if (!over()) find("session-time").textContent = duration((now - new Date(session.started)) / 1000);
    find("step-now").textContent = running ? `${running.phase}: ${running.step}` : "–";
    find("step-time").textContent = running ? duration((now - new Date(running.started)) / 1000) : "–";
  }

  // -- log
  const view = find("log-view");
  function shown(row) {
    const text = find("filter-text").value.toLowerCase();
    return row.level >= Number(find("filter-level").value) && (!text || row.all.includes(text));
  }
  function addRows(log) {
    const added = document.createDocumentFragment();
    for (const [at, level, phase, step, logger, message] of log.rows) {
      const row = make("div", undefined, `row ${LEVELS[level] ? level : ""}`);
      row.level = LEVELS[level] || 20;
      row.all = `${step} ${logger} ${message}`.toLowerCase();
      row.append(make("span", clock(at * 1000), "at"), make("span", level, "level"), make("span", step || phase, "step"), make("span", message, "text"));
      row.hidden = !shown(row);
      if (row.level === 30) seen[0] += 1;
      if (row.level > 30) seen[1] += 1;
      added.append(row);
    }
    view.append(added);
    for (let surplus = view.childElementCount - MAX_ROWS; surplus > 0; surplus -= 1) view.firstElementChild.remove();
    find("counts").textContent = seen.join(", ");
    find("left-out").hidden = !log.left_out;
    find("left-out").textContent = `${(log.left_out / 1e6).toFixed(1)} MB came faster than a page can show them; they are in the log file.`;
    if (find("follow").checked) view.scrollTop = view.scrollHeight;
  }
  function filter() { for (const row of view.children) row.hidden = !shown(row); if (find("follow").checked) view.scrollTop = view.scrollHeight; }
  find("filter-level").addEventListener("change", filter);
  find("filter-text").addEventListener("input", filter);
  find("filters").addEventListener("submit", (event) => event.preventDefault());

  // -- resources
  const SVG = "http://www.w3.org/2000/svg";
  function draw() {
    fill("plots", samples.length ? PLOTS.map(([key, title]) => {
      const values = samples.flatMap((one) => one[key]).filter((one) => typeof one === "number");
      const high = Math.max(...values, 1e-9), start = new Date(samples[0].timestamp), span = Math.max(new Date(samples[samples.length - 1].timestamp) - start, 1);
      const figure = make("figure"), svg = document.createElementNS(SVG, "svg"), last = samples[samples.length - 1][key];
      svg.setAttribute("viewBox", "0 0 100 40"); svg.setAttribute("preserveAspectRatio", "none"); svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", `${title}: ${last[0] ?? "–"} now, ${values.length ? high : "–"} at most`);
      [0, 1].forEach((which) => {
        const line = document.createElementNS(SVG, "polyline");
        line.setAttribute("points", samples.filter((one) => typeof one[key][which] === "number").map((one) => `${((new Date(one.timestamp) - start) / span * 100).toFixed(2)},${(39 - one[key][which] / high * 38).toFixed(2)}`).join(" "));
        if (which) line.setAttribute("class", "second");
        svg.append(line);
      });
      const caption = make("figcaption"), now = last[1] != null ? `experiment ${short(last[0])}, acquisition ${short(last[1])}` : `now ${short(last[0])}`;
      caption.append(make("strong", title), `${now}, at most ${short(values.length ? high : null)}`);
      figure.append(caption, svg);
      return figure;
    }) : []);
  }

  // -- what comes
  const source = new EventSource("events");
  source.addEventListener("reset", (event) => {
    const all = JSON.parse(event.data);
    session = all.session; samples = all.samples; steps = all.steps; seen = [0, 0];
    view.replaceChildren(); find("pictures").replaceChildren();
    fill("steps", steps.map(stepRow));
    showSession(); addRows(all.log); draw(); showTimes();
    document.documentElement.dataset.live = "ready";
  });
  source.addEventListener("session", (event) => { session = JSON.parse(event.data); showSession(); showTimes(); });
  source.addEventListener("step", (event) => { showStep(JSON.parse(event.data)); showTimes(); });
  source.addEventListener("log", (event) => addRows(JSON.parse(event.data)));
  source.addEventListener("samples", (event) => { samples = samples.concat(JSON.parse(event.data)).slice(-MAX_SAMPLES); draw(); });
  source.addEventListener("open", () => { find("connection").hidden = true; });
  source.addEventListener("error", () => {
    if (!find("connection").hidden) return;
    find("connection").textContent = over() ? "The page's server has ended; this is the last that it said." : `No connection to the page's server since ${clock(Date.now())}; trying again …`;
    find("connection").hidden = false;
  });
  setInterval(showTimes, 500);
})();
