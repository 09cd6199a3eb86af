"use strict";
(function () {
  function cellValue(row, column) {
    const cell = row.cells[column];
    return cell ? cell.getAttribute("data-value") || "" : "";
  }
  function compare(a, b, column, numeric, sign) {
    const x = cellValue(a, column), y = cellValue(b, column);
    if (x === "" || y === "") { return x === y ? 0 : x === "" ? 1 : -1; }
    return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y));
  }
  function sortBy(table, head, column) {
    const numeric = head.getAttribute("data-kind") === "number";
    const first = head.getAttribute("data-better") === "high" ? "descending" : "ascending";
    const now = head.getAttribute("aria-sort");
    const next = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
    table.querySelectorAll("thead th").forEach((th) => th.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", next);
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    rows.sort((a, b) => compare(a, b, column, numeric, next === "ascending" ? 1 : -1));
    rows.forEach((row) => body.appendChild(row));
  }
  function filter(section) {
    const words = section.querySelector("input[type=search]").value.trim().toLowerCase();
    const kinds = new Set(Array.from(section.querySelectorAll("input[type=checkbox]:checked"), (box) => box.value));
    const shown = new Set();
    let count = 0;
    section.querySelectorAll("table.results tbody tr").forEach((row) => {
      const fits = row.getAttribute("data-label").toLowerCase().includes(words) && kinds.has(row.getAttribute("data-kind"));
      row.hidden = !fits;
      if (fits) { shown.add(row.getAttribute("data-label")); count += 1; }
    });
    section.querySelectorAll("table.paper tbody tr").forEach((row) => {
      row.hidden = !shown.has(row.getAttribute("data-label"));
    });
    section.querySelectorAll("[data-key]").forEach((part) => {
      const gone = !shown.has(part.getAttribute("data-key"));
      if (part.namespaceURI === "http://www.w3.org/2000/svg") {
        part.style.display = gone ? "none" : "";
      } else {
        part.hidden = gone;
      }
    });
    section.querySelector(".count").textContent = count + " shown";
  }
  function isolate(section, button) {
    const alone = button.getAttribute("aria-pressed") !== "true";
    const key = button.parentElement.getAttribute("data-key");
    section.querySelectorAll(".key button").forEach((other) => {
      other.setAttribute("aria-pressed", String(alone && other === button));
    });
    section.querySelectorAll(".plot g[data-key]").forEach((part) => {
      part.classList.toggle("faint", alone && part.getAttribute("data-key") !== key);
    });
  }
  function showHints() {
    document.querySelectorAll(".scroll").forEach((box) => {
      box.previousElementSibling.hidden = box.scrollWidth <= box.clientWidth;
    });
  }
  document.querySelectorAll("section.group").forEach((section) => {
    section.querySelectorAll(".key button").forEach((button) => {
      button.addEventListener("click", () => isolate(section, button));
    });
    section.querySelectorAll("table.results").forEach((table) => {
      table.querySelectorAll("thead th").forEach((head, column) => {
        head.querySelector("button").addEventListener("click", () => sortBy(table, head, column));
      });
    });
    section.querySelectorAll(".controls input").forEach((input) => {
      input.addEventListener("input", () => filter(section));
    });
  });
  showHints();
  window.addEventListener("resize", showHints);
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = Array.from(document.querySelectorAll("details:not([open])"));
    opened.forEach((part) => { part.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));
})();
