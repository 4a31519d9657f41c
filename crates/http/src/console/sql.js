// Statements: their page, what is in the address, and the answer's rows.
"use strict";
{
  // Rows that are kept; more are counted, and an export has all of them.
  const KEPT_ROWS_MAX = 50000, KEPT_CHARS_MAX = 64 << 20;
  const CELL_CHARS_MAX = 300, ROW_CHARS_MAX = 200000, ROW_HEIGHT = 26, OVERSCAN = 20;
  const HISTORY_MAX = 50, HISTORY_CHARS_MAX = 20000;
  let running = null, rows = [], columns = [], keptChars = 0, total = 0, chosen = -1;
  const statement = () => byId("sql").value.trim();

  // Pages and the address.
  function page(name) {
    for (const each of ["streams", "sql", "jobs"]) {
      byId(each + "-page").hidden = each !== name;
      byId("page-" + each).setAttribute("aria-pressed", String(each === name));
    }
    if (name === "sql") byId("sql").focus();
    if (name === "jobs") refreshJobs();
  }
  function toAddress() {
    const place = statement() ? "#sql=" + encodeURIComponent(statement()) : "#sql";
    if (location.hash !== place) history.pushState(null, "", place);
  }
  function ofAddress() {
    if (location.hash === "#jobs") return page("jobs");
    if (!location.hash.startsWith("#sql")) return page("streams");
    let text = "";
    try { text = decodeURIComponent(location.hash.slice(5)); } catch { /* not ours */ }
    if (text) byId("sql").value = text;
    page("sql");
  }
  window.addEventListener("popstate", ofAddress);
  window.addEventListener("hashchange", ofAddress);
  byId("page-streams").addEventListener("click", () => {
    history.pushState(null, "", location.pathname);
    page("streams");
  });
  byId("page-sql").addEventListener("click", () => { toAddress(); page("sql"); });
  byId("page-jobs").addEventListener("click", () => {
    if (location.hash !== "#jobs") history.pushState(null, "", "#jobs");
    page("jobs");
  });
  byId("query-stream").addEventListener("click", () => {
    const name = /^[A-Za-z_][A-Za-z0-9_]*$/.test(selected) ? selected : '"' + selected + '"';
    byId("sql").value = "SELECT *\nFROM " + name + "\nORDER BY _timestamp DESC\nLIMIT 100";
    toAddress();
    page("sql");
    run();
  });

  // Earlier statements.
  function earlier() {
    try { return JSON.parse(localStorage.getItem("statements")) || []; } catch { return []; }
  }
  function showEarlier() {
    const list = byId("history");
    const first = new Option("Earlier statements", "");
    list.replaceChildren(first, ...earlier().map((text, at) =>
      new Option(text.replace(/\s+/g, " ").slice(0, 80), String(at))));
    list.value = "";
  }
  function remember(text) {
    if (text.length > HISTORY_CHARS_MAX) return;
    const list = [text, ...earlier().filter((other) => other !== text)].slice(0, HISTORY_MAX);
    // A browser that keeps nothing is no reason to fail.
    try { localStorage.setItem("statements", JSON.stringify(list)); } catch { /* kept nowhere */ }
    showEarlier();
  }
  byId("history").addEventListener("change", (event) => {
    const text = earlier()[Number(event.target.value)];
    if (event.target.value !== "" && text) byId("sql").value = text;
    showEarlier();
    byId("sql").focus();
  });

  // Numbers of more digits than a number here holds are kept as their text,
  // behind a mark that no text of an answer begins with.
  const MARK = "\u0001#";
  const LONG = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]{14,}/g;
  function parse(line) {
    if (!/\d{16}|\d\.\d{14}/.test(line)) return JSON.parse(line);
    return JSON.parse(line.replace(LONG, (part) =>
      part[0] === '"' ? part : '"\\u0001#' + part + '"'));
  }
  const isNumber = (value) => typeof value === "number" ||
    (typeof value === "string" && value.startsWith(MARK));
  function plain(value, indent) {
    if (value === null) return "∅";
    if (typeof value === "string") return value.startsWith(MARK) ? value.slice(2) : value;
    if (typeof value !== "object") return String(value);
    return JSON.stringify(value, null, indent).replace(/"\\u0001#([^"]*)"/g, "$1");
  }

  // The rows that can be seen.
  function draw() {
    const frame = byId("result"), body = byId("result-rows");
    const first = Math.max(0, Math.floor(frame.scrollTop / ROW_HEIGHT) - OVERSCAN);
    const shown = Math.ceil(frame.clientHeight / ROW_HEIGHT) + 2 * OVERSCAN;
    const last = Math.min(rows.length, first + shown);
    const filler = (count) => {
      const row = document.createElement("tr");
      row.className = "filler";
      row.insertCell().style.height = count * ROW_HEIGHT + "px";
      return row;
    };
    const drawn = [filler(first)];
    for (let at = first; at < last; at++) {
      const row = document.createElement("tr");
      if (at === chosen) row.className = "chosen";
      for (const value of rows[at]) {
        const text = plain(value);
        const shownText = text.length > CELL_CHARS_MAX ?
          text.slice(0, CELL_CHARS_MAX) + "…" : text;
        cell(row, shownText, isNumber(value) ? "number" : value === null ? "quiet" : "");
      }
      row.addEventListener("click", () => choose(at));
      drawn.push(row);
    }
    drawn.push(filler(rows.length - last));
    body.replaceChildren(...drawn);
  }
  let isDrawing = false;
  function drawSoon() {
    if (isDrawing) return;
    isDrawing = true;
    requestAnimationFrame(() => { isDrawing = false; draw(); });
  }
  byId("result").addEventListener("scroll", drawSoon);
  window.addEventListener("resize", drawSoon);

  // One row in full.
  function choose(at) {
    chosen = chosen === at ? -1 : at;
    byId("row").hidden = chosen < 0;
    if (chosen >= 0) {
      const text = columns.map((column, place) => {
        let value = rows[at][place];
        if (typeof value === "string" && /^\s*[[{]/.test(value)) {
          try { value = parse(value); } catch { /* text that looks like JSON */ }
        }
        return column.name + " = " + plain(value, 2);
      }).join("\n");
      byId("row").textContent = text.length > ROW_CHARS_MAX ?
        text.slice(0, ROW_CHARS_MAX) + "…" : text;
      byId("row").scrollIntoView({ block: "nearest" });
    }
    drawSoon();
  }

  function state(text) { byId("sql-state").textContent = text; }
  function fail(problem, text) {
    let shown = problem.detail || String(problem);
    if (problem.position > 0) {
      const before = [...text].slice(0, problem.position - 1).join("");
      const start = before.lastIndexOf("\n") + 1;
      const line = text.slice(start).split("\n")[0].replace(/\t/g, " ");
      shown += "\n\n" + line + "\n" + " ".repeat([...before.slice(start)].length) + "^";
      if (statement() === text) {
        const lead = byId("sql").value.indexOf(text);
        byId("sql").setSelectionRange(lead + before.length, lead + before.length + 1);
      }
    } else if (problem.next) {
      shown += "\n" + problem.next;
    }
    byId("sql-problem").textContent = shown;
    byId("sql-problem").hidden = false;
  }
  function begin() {
    rows = []; columns = []; keptChars = 0; total = 0; chosen = -1;
    byId("sql-problem").hidden = true;
    byId("row").hidden = true;
    byId("result").hidden = true;
    byId("result").scrollTop = 0;
    byId("result-head").replaceChildren();
    byId("result-rows").replaceChildren();
    byId("cancel").disabled = false;
    byId("progress").hidden = false;
    byId("progress").removeAttribute("value");
  }
  function head() {
    const row = document.createElement("tr");
    for (const column of columns) {
      const th = document.createElement("th");
      th.textContent = column.name;
      th.title = column.type;
      row.append(th);
    }
    byId("result-head").replaceChildren(row);
    byId("result").hidden = columns.length === 0;
  }
  function take(lines) {
    for (const line of lines) {
      total++;
      if (rows.length >= KEPT_ROWS_MAX || keptChars > KEPT_CHARS_MAX) continue;
      keptChars += line.length;
      rows.push(parse(line));
    }
    drawSoon();
  }
  function took(spent, ms) {
    let text = count(total) + (total === 1 ? " row" : " rows");
    if (rows.length < total) text += " (the first " + count(rows.length) + " are shown)";
    text += " · " + ms.toFixed(0) + " ms";
    if (spent.chunks > 0) {
      text += " · " + bytes(spent.bytes_read) + " from " +
        count(spent.chunks - spent.chunks_pruned) + " of " + count(spent.chunks) + " files";
    }
    if (spent.tail_bytes_read > 0) text += " · " + bytes(spent.tail_bytes_read) + " of the tail";
    if (spent.spilled_bytes > 0) text += " · " + bytes(spent.spilled_bytes) + " spilled";
    return text;
  }

  async function run() {
    const text = statement().replace(/;\s*$/, "");
    if (!text) return;
    if (running) running.abort();
    const mine = running = new AbortController();
    const begun = performance.now();
    const since = () => performance.now() - begun;
    toAddress();
    remember(statement());
    begin();
    state("waiting…");
    let isDone = false;
    // What a sent event does.
    const on = {
      begin: (data) => { columns = JSON.parse(data).columns; head(); },
      rows: (data) => {
        take(data.split("\n"));
        state(count(total) + " rows · " + (since() / 1000).toFixed(1) + " s");
      },
      progress: (data) => {
        const p = JSON.parse(data);
        if (p.bytes_total > 0) byId("progress").value = Math.min(1, p.bytes_read / p.bytes_total);
        state((since() / 1000).toFixed(1) + " s · " + bytes(p.bytes_read) +
          (p.bytes_total > 0 ? " of " + bytes(p.bytes_total) : "") +
          " · " + count(p.rows_read) + " rows read");
      },
      done: (data) => { isDone = true; state(took(JSON.parse(data), since())); },
      error: (data) => { isDone = true; state("failed"); fail(JSON.parse(data), text); },
    };
    try {
      const answer = await ask(text, "text/event-stream", mine.signal);
      const pieces = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value: piece } = await pieces.read();
        if (done) break;
        const events = (rest + piece).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          let kind = "";
          const data = [];
          for (const line of event.split("\n")) {
            if (line.startsWith("event: ")) kind = line.slice(7);
            else if (line.startsWith("data: ")) data.push(line.slice(6));
          }
          if (on[kind]) on[kind](data.join("\n"));
        }
      }
      if (!isDone) throw new Error("the answer broke off before its end");
    } catch (error) {
      if (running !== mine) return;
      if (mine.signal.aborted) {
        state("cancelled after " + (since() / 1000).toFixed(1) + " s");
      } else {
        state("failed");
        fail(error.problem || { detail: error.message }, text);
      }
    }
    if (running !== mine) return;
    running = null;
    byId("cancel").disabled = true;
    byId("progress").hidden = true;
  }
  async function ask(text, accept, signal) {
    const answer = await fetch("/v1/sql", {
      method: "POST", signal, body: JSON.stringify({ sql: text }),
      headers: headers({ "Content-Type": "application/json", Accept: accept }) });
    if (answer.status === 401) byId("login").hidden = false;
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({ detail: answer.statusText }));
      throw Object.assign(new Error(problem.detail), { problem });
    }
    return answer;
  }

  // Elsewhere.
  const shellQuoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  async function copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
      state(what + " copied");
    } catch {
      // A page that is not on this machine or behind TLS may not write there.
      byId("row").textContent = text;
      byId("row").hidden = false;
    }
  }
  byId("copy-link").addEventListener("click", () => { toAddress(); copy(location.href, "link"); });
  byId("copy-curl").addEventListener("click", () => {
    const secret = token ? ' -H "Authorization: Bearer $AQUIFER_TOKEN"' : "";
    copy("curl -s " + shellQuoted(location.origin + "/v1/sql") + secret +
      " -H 'Content-Type: application/json' -d " +
      shellQuoted(JSON.stringify({ sql: statement() })), "command");
  });
  byId("copy-cli").addEventListener("click", () =>
    copy("aquifer sql --url " + shellQuoted(location.origin) + " " + shellQuoted(statement()),
      "command"));
  byId("export").addEventListener("click", async () => {
    const text = statement().replace(/;\s*$/, "");
    if (!text) return;
    state("exporting…");
    try {
      const whole = await (await ask(text, "text/csv")).blob();
      const link = document.createElement("a");
      link.href = URL.createObjectURL(whole);
      link.download = "aquifer.csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      state("exported " + bytes(whole.size));
    } catch (error) {
      state("failed");
      fail(error.problem || { detail: error.message }, text);
    }
  });
  byId("run").addEventListener("click", run);
  byId("cancel").addEventListener("click", () => { if (running) running.abort(); });
  byId("sql").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    }
  });
  showEarlier();
  ofAddress();
}
