"use strict";
// What is better with a script, and works without: relative times, keys, and a list that follows the log.
// It writes text and moves elements; it never makes HTML of a string, and the browser is told to refuse that.
(() => {
  const POLL_MS = 2000;
  const SLOWEST_MS = 30000;

  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

  function ago(time) {
    const seconds = (time - Date.now()) / 1000;
    for (const [unit, size] of UNITS) {
      if (Math.abs(seconds) >= size || size === 1) {
        return relative.format(Math.round(seconds / size), unit);
      }
    }
    return "";
  }

  function tellTimes() {
    for (const each of document.querySelectorAll("time[datetime]")) {
      const time = Date.parse(each.dateTime);
      if (Number.isNaN(time)) continue;
      let said = each.nextElementSibling;
      if (!said || said.className !== "ago") {
        said = document.createElement("span");
        said.className = "ago";
        each.after(said);
      }
      const text = ago(time);
      if (said.textContent !== text) said.textContent = text;
    }
  }

  function button(text, pressed, pushed) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-pressed", String(pressed));
    made.addEventListener("click", () => {
      const now = made.getAttribute("aria-pressed") !== "true";
      made.setAttribute("aria-pressed", String(now));
      pushed(now);
    });
    return made;
  }

  // ── the list follows the log ────────────────────────────────────────────────

  function follow() {
    const status = document.getElementById("live");
    if (!status) return;
    let on = true;
    let tag = "";
    let pause = POLL_MS;
    let timer = 0;

    function later() {
      clearTimeout(timer);
      if (on) timer = setTimeout(ask, pause);
    }

    function ask() {
      if (document.hidden) {
        later();
        return;
      }
      const request = new XMLHttpRequest();
      request.open("GET", location.href);
      request.responseType = "document";
      request.timeout = 15000;
      if (tag) request.setRequestHeader("If-None-Match", tag);
      request.onload = () => {
        if (request.status === 200 && request.responseXML) {
          pause = POLL_MS;
          tag = request.getResponseHeader("ETag") || "";
          show(request.responseXML);
        } else if (request.status === 304) {
          pause = POLL_MS;
        } else if (request.status === 401) {
          on = false;
          status.textContent = "You are not logged in any more: the list does not follow the log.";
          return;
        } else {
          slower();
        }
        later();
      };
      request.onerror = request.ontimeout = () => {
        slower();
        later();
      };
      request.send();
    }

    function slower() {
      pause = Math.min(2 * pause, SLOWEST_MS);
      status.textContent = "The log cannot be reached now; trying again.";
    }

    function show(fresh) {
      const old = document.getElementById("rows");
      const rows = fresh.getElementById("rows");
      if (!old || !rows) return;
      const known = new Set(Array.from(old.children, (row) => row.dataset.index));
      const arrived = Array.from(rows.children).filter(
        (row) => row.dataset.index !== undefined && !known.has(row.dataset.index),
      );
      const focused = document.activeElement;
      if (focused && old.contains(focused)) {
        // Nothing is taken away from under somebody who is reading it.
        if (arrived.length) status.textContent = `${arrived.length} new, shown when you leave the list.`;
        tag = "";
        return;
      }
      for (const row of arrived) row.classList.add("new");
      old.replaceWith(document.adoptNode(rows));
      tellTimes();
      if (arrived.length) status.textContent = `${arrived.length} new at ${new Date().toISOString().slice(11, 19)} UTC.`;
    }

    const toggle = button("Follow the log", true, (now) => {
      on = now;
      status.textContent = now ? "The list follows the log." : "The list stays as it is.";
      pause = POLL_MS;
      later();
    });
    status.before(toggle);
    later();
  }

  // ── keys ────────────────────────────────────────────────────────────────────

  const KEYS = "Keys: / filter, j and k down and up, Enter opens, c calls, a agents, q questions, i integrity, o older, r refresh.";

  function rowLinks() {
    return Array.from(document.querySelectorAll("tbody tr"), (row) => row.querySelector("td:last-child a")).filter(Boolean);
  }

  function step(by) {
    const links = rowLinks();
    if (!links.length) return;
    const row = document.activeElement ? document.activeElement.closest("tr") : null;
    const here = links.findIndex((link) => link.closest("tr") === row);
    const next = here < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(here + by, 0), links.length - 1);
    links[next].focus();
  }

  function keys() {
    const place = document.getElementById("keys");
    let on = localStorage.getItem("keys") !== "off";
    const text = document.createElement("span");
    text.textContent = ` ${KEYS}`;
    text.hidden = !on;
    place.append(
      button("Keys", on, (now) => {
        on = now;
        text.hidden = !now;
        localStorage.setItem("keys", now ? "on" : "off");
      }),
      text,
    );
    document.addEventListener("keydown", (event) => {
      if (!on || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (event.target.closest("input, select, textarea")) return;
      if (event.key === "j" || event.key === "k") {
        step(event.key === "j" ? 1 : -1);
      } else if (event.key === "/") {
        const field = document.querySelector("form[role=search] input");
        if (!field) return;
        field.focus();
      } else if (/^[a-z]$/.test(event.key)) {
        const link = document.querySelector(`a[data-key="${event.key}"]`);
        if (!link) return;
        link.click();
      } else {
        return;
      }
      event.preventDefault();
    });
  }

  tellTimes();
  setInterval(tellTimes, 30000);
  follow();
  keys();
})();
