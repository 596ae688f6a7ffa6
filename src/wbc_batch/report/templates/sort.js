"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const order = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        const found = x !== "" && y !== "" && !isNaN(x) && !isNaN(y)
          ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return falls ? -found : found;
      });
      body.append(...order);
    });
  });
}
for (const link of document.querySelectorAll('a[href^="#group-"]')) {
  link.addEventListener("click", () => {
    const target = document.getElementById(link.hash.slice(1));
    if (target) target.open = true;
  });
}
