// Follows the sandbox. Without this script the page is as it was when it was loaded, and every link and button works.
"use strict";

(() => {
  const ROWS = 100; // of the log, at most
  const REFRESH = 500; // milliseconds between two refreshes
  const ANNOUNCE = 10000; // and between two announcements of requests

  const find = (id) => document.getElementById(id);
  const pause = find("pause");
  const follows = document.body.dataset.events;

  // --- what is said aloud -------------------------------------------------------------------------------------------

  const announce = (text) => {
    find("announcer").textContent = text;
  };

  let unsaid = 0;
  let unsaidFailed = 0;
  let lastSaid = Date.now();

  const sayRequests = () => {
    if (unsaid > 0 && Date.now() - lastSaid >= ANNOUNCE) {
      const failed = unsaidFailed ? `, ${unsaidFailed} of them failed` : "";
      announce(`${unsaid} new requests${failed}.`);
      unsaid = unsaidFailed = 0;
      lastSaid = Date.now();
    }
  };

  // --- parts of the page that change --------------------------------------------------------------------------------

  // Takes over what is different in a newer version of the page, and leaves the focus and the scrolling where they are.
  const takeOver = (text, also = []) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const focused = document.activeElement && document.activeElement.id;
    const ids = [...document.querySelectorAll("[data-live]")].map((part) => part.id).concat(also);
    for (const id of ids) {
      const old = find(id);
      const next = fresh.getElementById(id);
      if (!old || !next || old.outerHTML === next.outerHTML) continue;
      const scrolled = [...old.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
      const taken = document.importNode(next, true);
      old.replaceWith(taken);
      [...taken.querySelectorAll(".scroll")].forEach((box, index) => {
        box.scrollLeft = scrolled[index] || 0;
      });
    }
    if (focused && document.activeElement === document.body && find(focused)) {
      find(focused).focus({ preventScroll: true });
    }
    return fresh;
  };

  const ask = async (options = {}) => {
    const { url = location.pathname + location.search, headers = {}, ...more } = options;
    const answer = await fetch(url, { headers: { Accept: "text/html", ...headers }, ...more });
    // What this page is about is there no more: its own words say so, once it is loaded.
    if (answer.status === 404) location.reload();
    return answer.text();
  };

  let refreshing = false;
  let again = false;

  const refresh = async () => {
    if (refreshing) {
      again = true;
      return;
    }
    refreshing = true;
    try {
      takeOver(await ask({ headers: { "x-sandbox-without-log": "yes" } }));
    } catch {
      // The sandbox has stopped: the stream says so.
    }
    setTimeout(() => {
      refreshing = false;
      if (again) {
        again = false;
        refresh();
      }
    }, REFRESH);
  };

  // --- the log ------------------------------------------------------------------------------------------------------

  let paused = false;
  let waiting = 0;

  const showPause = () => {
    pause.textContent = paused ? `Resume the log (${waiting} new)` : "Pause the log";
  };

  const log = (news) => {
    unsaid += news.count;
    unsaidFailed += news.failed;
    sayRequests();
    if (paused) {
      waiting += news.count;
      showPause();
      return;
    }
    const made = document.createElement("template");
    made.innerHTML = news.rows;
    const rows = find("log-rows");
    rows.prepend(made.content);
    while (rows.children.length > ROWS) rows.lastElementChild.remove();
    find("log-empty").hidden = true;
    if (news.skipped > 0) {
      const note = find("log-skipped");
      note.textContent = `${news.skipped} requests came too fast to be listed here.`;
      note.hidden = false;
    }
  };

  if (pause && follows) {
    pause.hidden = false;
    pause.addEventListener("click", async () => {
      paused = !paused;
      waiting = 0;
      showPause();
      announce(paused ? "The log is paused." : "The log follows again.");
      if (paused) return;
      // What the page has in its list then, the stream must not tell again.
      disconnect();
      try {
        position = takeOver(await ask(), ["log-rows", "log-empty"]).body.dataset.events || position;
      } catch {
        // The sandbox has stopped: the stream says so.
      }
      if (!document.hidden) connect();
    });
  }

  // --- forms --------------------------------------------------------------------------------------------------------

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.method !== "post" || !follows) return;
    event.preventDefault();
    const button = event.submitter;
    let text;
    try {
      text = await ask({ url: form.action, method: "POST", body: new URLSearchParams(new FormData(form)) });
    } catch {
      announce("The sandbox does not answer.");
      return;
    }
    const fresh = takeOver(text, ["faults-error"]);
    const error = find("faults-error");
    if (!fresh.getElementById("faults-error")) {
      error.textContent = fresh.querySelector("main").innerText; // a refusal, which is a page of its own
    }
    announce(error.textContent.trim() || "Done.");
    if (button && button.id && !find(button.id)) find("active-title").focus();
  });

  // --- the stream ---------------------------------------------------------------------------------------------------

  const connection = find("connection");
  const AGAIN = 2000; // milliseconds until another try, where the browser makes none
  let source = null;
  let retry = 0;
  let position = follows;

  const say = (state, text) => {
    connection.hidden = false;
    connection.dataset.state = state;
    connection.textContent = text;
  };

  const disconnect = () => {
    clearTimeout(retry);
    if (source) source.close();
  };

  const connect = () => {
    disconnect();
    const stream = new EventSource(`/_sandbox/events?after=${encodeURIComponent(position)}&log=${pause ? 1 : 0}`);
    const on = (name, work) =>
      stream.addEventListener(name, (event) => {
        position = event.lastEventId;
        work(event);
      });
    source = stream;
    stream.addEventListener("open", () => say("live", "Live"));
    stream.addEventListener("error", () => {
      say("lost", "Not connected; trying again");
      // A refusal (too many pages follow, or a proxy has nobody behind it) ends the stream for the browser.
      if (stream === source && stream.readyState === EventSource.CLOSED) {
        clearTimeout(retry);
        retry = setTimeout(connect, AGAIN);
      }
    });
    on("log", (event) => log(JSON.parse(event.data)));
    on("change", refresh);
    on("restart", () => location.reload());
  };

  if (follows && "EventSource" in window) {
    connect();
    // What nobody sees follows nothing, and catches up afterwards.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) {
        disconnect();
      } else if (source.readyState === EventSource.CLOSED) {
        connect();
      }
    });
    window.addEventListener("pagehide", disconnect);
    window.addEventListener("pageshow", (event) => event.persisted && connect());
  }
})();
