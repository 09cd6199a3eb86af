"use strict";
(function () {
  const sheet = document.querySelector(".sheet");
  const cards = Array.from(sheet.children);
  const words = document.getElementById("words");
  const flag = document.getElementById("flag");
  const order = document.getElementById("order");
  function filter() {
    const wanted = words.value.trim().toLowerCase();
    let count = 0;
    cards.forEach((card) => {
      const fits = card.getAttribute("data-text").toLowerCase().includes(wanted)
        && (flag.value === "" || card.getAttribute("data-flag") === flag.value);
      card.hidden = !fits;
      count += fits ? 1 : 0;
    });
    document.querySelector(".count").textContent = count + " shown";
  }
  function sort() {
    const score = (card) => Number(card.getAttribute("data-score"));
    const compare = {
      high: (a, b) => score(b) - score(a),
      low: (a, b) => score(a) - score(b),
      path: (a, b) => a.getAttribute("data-path").localeCompare(b.getAttribute("data-path")),
    };
    cards.sort(compare[order.value]);
    cards.forEach((card) => sheet.appendChild(card));
  }
  words.addEventListener("input", filter);
  flag.addEventListener("change", filter);
  order.addEventListener("change", sort);
  // A browser may keep what was chosen when a page is loaded again.
  filter();
  sort();
})();
