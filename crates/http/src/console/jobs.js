// Imports, watches and exports: how they stand, and what can be done with them.
"use strict";
// The page is told here that it is shown.
let refreshJobs;
{
  const JOBS_SHOWN = 500, ADDRESSES_SHOWN = 100, STREAMS_OFFERED = 1000;
  // The kinds, and their paths.
  const PATHS = { import: "imports", watch: "watches", export: "exports" };
  const STATES = { running: "", paused: "quiet", done: "good", failed: "bad" };
  let jobs = [], kind = "all", chosen = null, asked = 0, isActing = false;
  const drawn = new Map();

  const kindOf = (job) => Object.keys(job.work)[0];
  const specOf = (job) => job.work[kindOf(job)];
  const pathOf = (job) => "/v1/" + PATHS[kindOf(job)] + "/" + encodeURIComponent(job.id);
  const addressesOf = (job) => specOf(job).urls || [specOf(job).url];
  const isWatch = (job) => kindOf(job) === "watch";
  const isRunning = (job) => job.state === "running";
  // A watch that rests or was given up goes on when it is resumed.
  const isOpen = (job) => isRunning(job) || isWatch(job);
  const time = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ") + "Z";
  const counted = (n, noun) => count(n) + " " + noun + (n === 1 ? "" : "s");
  const titleOf = (job) =>
    kindOf(job) + (kindOf(job) === "export" ? " of " : " into ") + specOf(job).stream;

  // What is the same is not written anew: a selection in it stays.
  function put(element, text, name = "") {
    if (element.textContent !== String(text)) element.textContent = text;
    if (element.className !== name) element.className = name;
  }
  function fill(body, table) {
    while (body.rows.length > table.length) body.deleteRow(-1);
    table.forEach((cells, at) => {
      const row = body.rows[at] || body.insertRow();
      cells.forEach(([text, name], place) =>
        put(row.cells[place] || row.insertCell(), text, name));
    });
  }

  // What failed, or what it waits for: the text and its class.
  function trouble(job) {
    if (job.failure) return [job.failure, "bad"];
    if (job.now.last_error && isOpen(job)) return [job.now.last_error, "bad"];
    if (job.now.waiting && isRunning(job)) return ["waits: " + job.now.waiting, "quiet"];
    return null;
  }
  // The part of an import's objects that is done, where it is known.
  function part(job) {
    const { found, behind } = job.now;
    return isRunning(job) && found > 0 && behind > 0 ? Math.max(0, found - behind) / found : null;
  }
  function doing(job) {
    const { found, behind, object, rows } = job.now;
    const parts = [];
    if (job.state === "done" && kindOf(job) === "import" && found > job.objects) {
      parts.push(job.objects === 0 ? "all of it was imported before" :
        count(found - job.objects) + " of " + counted(found, "object") + " were imported before");
    }
    if (isOpen(job) && behind > 0) parts.push(counted(behind, "object") + " behind");
    if (isRunning(job) && object) {
      parts.push(object + (rows > 0 ? ", row " + count(rows) : ""));
    }
    return parts.join(" · ");
  }

  // The list.
  function newRow(id) {
    const row = document.createElement("tr");
    const open = document.createElement("button");
    open.className = "link";
    open.addEventListener("click", () => choose(id));
    row.insertCell().append(open);
    for (let at = 0; at < 8; at++) row.insertCell();
    row.cells[3].append(document.createElement("div"), document.createElement("div"));
    return row;
  }
  function draw(job) {
    if (!drawn.has(job.id)) drawn.set(job.id, newRow(job.id));
    const row = drawn.get(job.id);
    const [open, state, stream, address, ...numbers] = row.cells;
    row.className = job.id === chosen ? "chosen" : "";
    put(open.firstChild, kindOf(job), "link");
    const addresses = addressesOf(job);
    const others = addresses.length > 1 ? " and " + count(addresses.length - 1) + " more" : "";
    open.firstChild.setAttribute("aria-label", titleOf(job) + ", " + addresses[0] + others);
    put(state, job.state, STATES[job.state]);
    put(stream, specOf(job).stream);
    address.className = "address";
    put(address.children[0], text(addresses[0]) + others);
    const [what, name] = trouble(job) || [doing(job), "quiet"];
    put(address.children[1], what, name);
    const done = part(job);
    let bar = address.children[2];
    if (done === null) {
      if (bar) bar.remove();
    } else {
      if (!bar) {
        bar = document.createElement("progress");
        bar.setAttribute("aria-label", "Objects");
        address.append(bar);
      }
      bar.value = done;
    }
    put(numbers[0], count(job.objects), "number");
    put(numbers[1], count(job.records), "number");
    put(numbers[2], bytes(job.bytes), "number");
    put(numbers[3], count(job.bad_rows), job.bad_rows > 0 ? "number bad" : "number");
    put(numbers[4], time(job.created), "quiet");
    return row;
  }
  function drawAll() {
    const of = jobs.filter((job) => kind === "all" || kindOf(job) === kind);
    const rows = of.slice(0, JOBS_SHOWN).map(draw);
    const body = byId("job-rows");
    // Rows that stay where they are keep the focus.
    if (rows.length !== body.rows.length || rows.some((row, at) => row !== body.rows[at])) {
      const focused = document.activeElement;
      body.replaceChildren(...rows);
      if (body.contains(focused)) focused.focus({ preventScroll: true });
    }
    const isThere = new Set(jobs.map((job) => job.id));
    for (const id of drawn.keys()) if (!isThere.has(id)) drawn.delete(id);
    byId("no-jobs").hidden = jobs.length > 0;
    byId("no-such-jobs").hidden = jobs.length === 0 || of.length > 0;
    byId("jobs").hidden = of.length === 0;
    put(byId("jobs-said"), of.length > JOBS_SHOWN ?
      "the first " + count(JOBS_SHOWN) + " of " + count(of.length) : "", "quiet");
  }

  // One of them in full.
  function choose(id) {
    chosen = id;
    drawAll();
    drawChosen();
    byId("job-title").focus();
    byId("job").scrollIntoView({ block: "nearest" });
  }
  function close() {
    const row = drawn.get(chosen);
    chosen = null;
    drawAll();
    drawChosen();
    (row && row.isConnected ? row.cells[0].firstChild : byId("job-new")).focus();
  }
  function facts(job) {
    // What is shown elsewhere, or says nothing (an export's bounds), is left out.
    const words = Object.entries(specOf(job)).map(([name, value]) =>
      [name, typeof value === "string" ? value : JSON.stringify(value)]);
    const given = words.filter(([name, value]) =>
      !["stream", "urls", "url"].includes(name) && value !== "{}");
    const { found, behind, object, rows, waiting, last_error: lastError, looked } = job.now;
    const table = [];
    const fact = (name, value, more = "") => {
      if (value) table.push([[name, "quiet"], [value, ("value " + more).trim()]]);
    };
    const lines = (all, max) => all.slice(0, max).join("\n") +
      (all.length > max ? "\nand " + count(all.length - max) + " more" : "");
    fact("Failed", job.failure, "bad");
    if (lastError !== job.failure) fact("Last error", lastError, "bad");
    fact("Waits", isRunning(job) && waiting);
    fact("Id", job.id);
    const addresses = addressesOf(job);
    fact(addresses.length === 1 ? "Address" : "Addresses", lines(addresses, ADDRESSES_SHOWN));
    fact("Asked for", given.map(([name, value]) => name + " = " + value).join(", "));
    fact("Begun", time(job.created));
    fact("Ended", job.ended && time(job.ended));
    fact("Looked last", looked && time(looked));
    fact("Found", found > 0 && counted(found, "object") + " at the last look" +
      (behind > 0 ? ", " + count(behind) + " still to be imported" : ""));
    fact("Done", counted(job.objects, "object") + ", " + counted(job.records, "record") + ", " +
      bytes(job.bytes));
    fact("Still to write", isRunning(job) && lines((job.cut || []).map((cut) =>
      "partition " + cut.partition + ", offsets " + count(cut.next) + " to " + count(cut.end)),
    PARTITIONS_SHOWN));
    fact("Now", isRunning(job) && object && object + (rows > 0 ? ", row " + count(rows) : ""));
    fact("Bad rows", job.bad_rows > 0 && count(job.bad_rows));
    return table;
  }
  function drawChosen() {
    const job = jobs.find((each) => each.id === chosen);
    byId("job").hidden = !job;
    if (!job) return;
    put(byId("job-title"), titleOf(job) + ": " + job.state);
    byId("job-pause").hidden = !isWatch(job);
    put(byId("job-pause"), isRunning(job) ? "Pause" : "Go on");
    put(byId("job-delete"), isOpen(job) ? "Stop" : "Forget");
    fill(byId("job-facts"), facts(job));
    const errors = job.errors || [];
    byId("job-errors").hidden = errors.length === 0;
    put(byId("job-errors-title"), errors.length < job.bad_rows ?
      "The first " + count(errors.length) + " of " + counted(job.bad_rows, "bad row") :
      "Bad rows");
    fill(byId("job-error-rows"), errors.map((error) =>
      [[error.object, "value"], [count(error.row), "number"], [error.why, "value"]]));
  }

  refreshJobs = async () => {
    const mine = ++asked;
    try {
      const kinds = Object.values(PATHS);
      const answers = await Promise.all(kinds.map((path) => get("/v1/" + path)));
      // What was asked for before something was changed is old.
      if (mine !== asked) return;
      jobs = answers.flatMap((answer, at) => answer[kinds[at]]);
      // What goes on, or can, stands first; then the newest.
      jobs.sort((a, b) => isOpen(b) - isOpen(a) || b.created - a.created);
      byId("jobs-problem").textContent = "";
      drawAll();
      drawChosen();
    } catch (error) {
      if (mine === asked) byId("jobs-problem").textContent = error.message;
    }
  };
  async function jobsForever() {
    if (!document.hidden && !byId("jobs-page").hidden) await refreshJobs();
    setTimeout(jobsForever, REFRESH_MS);
  }

  // What can be done.
  function refused(error) {
    const shown = byId("job-refused");
    shown.hidden = !error;
    if (!error) return;
    const next = error.problem && error.problem.next;
    shown.textContent = error.message + (next ? "\n" + next : "");
    shown.scrollIntoView({ block: "nearest" });
  }
  // One thing at a time: a button that is pressed twice does it once.
  async function act(what) {
    if (isActing) return;
    isActing = true;
    refused(null);
    try {
      await what();
    } catch (error) {
      refused(error);
    }
    isActing = false;
    await refreshJobs();
  }
  byId("job-pause").addEventListener("click", () => {
    const job = jobs.find((each) => each.id === chosen);
    if (job) act(() => call("PATCH", pathOf(job), { paused: isRunning(job) }));
  });
  byId("job-delete").addEventListener("click", () => {
    const job = jobs.find((each) => each.id === chosen);
    if (!job) return;
    const question = (isOpen(job) ? "Stop and forget" : "Forget") + " the " + titleOf(job) +
      "?\n" + text(addressesOf(job)[0]) + "\n\nWhat it did stays.";
    if (!confirm(question)) return;
    act(async () => {
      await call("DELETE", pathOf(job));
      jobs = jobs.filter((each) => each.id !== job.id);
      close();
    });
  });
  byId("job-close").addEventListener("click", close);
  byId("job").addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  for (const each of ["all", ...Object.keys(PATHS)]) {
    byId("jobs-" + each).addEventListener("click", () => {
      kind = each;
      for (const other of ["all", ...Object.keys(PATHS)]) {
        byId("jobs-" + other).setAttribute("aria-pressed", String(other === kind));
      }
      drawAll();
    });
  }

  // A new one.
  function showForm(isShown) {
    byId("job-form").hidden = !isShown;
    byId("job-new").setAttribute("aria-expanded", String(isShown));
    refused(null);
    if (!isShown) return;
    const names = [...before.values()].slice(0, STREAMS_OFFERED).map((stream) => stream.name);
    byId("job-streams").replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.length === 1 && !byId("job-stream").value) byId("job-stream").value = names[0];
    byId("job-address").focus();
  }
  byId("job-new").addEventListener("click", () => showForm(byId("job-form").hidden));
  byId("job-form").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    showForm(false);
    byId("job-new").focus();
  });
  byId("job-form").addEventListener("submit", (event) => {
    event.preventDefault();
    act(async () => {
      const job = await call("POST", "/v1/" + byId("job-kind").value, {
        stream: byId("job-stream").value.trim(), urls: [byId("job-address").value.trim()],
        format: byId("job-format").value, on_error: byId("job-on-error").value });
      byId("job-address").value = "";
      showForm(false);
      jobs.unshift(job);
      if (kind !== "all" && kind !== kindOf(job)) byId("jobs-all").click();
      choose(job.id);
    });
  });
  jobsForever();
}
