// Filters and sorting for the table of claims. Without this script it is a plain table.
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.claims-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const text = (row, column) => row.cells[column].textContent.trim();
  const [CLAIM, CHAPTER, MEASURED, VERDICT] = [0, 2, 3, 4];
  const part = (row) => row.querySelector(".claim-id").textContent.split("-")[0];

  const bar = document.createElement("form");
  bar.className = "ledger-filters";
  bar.setAttribute("role", "search");
  bar.addEventListener("submit", (event) => event.preventDefault());
  const status = document.createElement("p");
  status.setAttribute("role", "status");
  const filters = [];

  const labelled = (name, field) => {
    const label = document.createElement("label");
    label.append(name, field);
    field.addEventListener("input", show);
    bar.append(label);
  };
  const choice = (name, of) => {
    const select = document.createElement("select");
    select.append(new Option("all", ""));
    for (const value of new Set(rows.map(of))) select.append(new Option(value, value));
    filters.push((row) => !select.value || of(row) === select.value);
    labelled(name, select);
  };
  const words = document.createElement("input");
  words.type = "text";
  filters.push((row) =>
    words.value.toLowerCase().split(/\s+/).every((word) => row.textContent.toLowerCase().includes(word)),
  );

  function show() {
    let shown = 0;
    for (const row of rows) {
      row.hidden = !filters.every((passes) => passes(row));
      shown += !row.hidden;
    }
    status.textContent = `${shown} of ${rows.length} claims`;
  }

  labelled("Text", words);
  choice("Verdict", (row) => text(row, VERDICT));
  choice("Chapter", (row) => text(row, CHAPTER));
  choice("Row", part);
  bar.append(status);
  (table.closest(".pst-scrollable-table-container") ?? table).before(bar);

  const number = (cell) => parseFloat(cell.replace(/^[^\d.-]+/, ""));
  const order = (column) => (a, b) => {
    const [x, y] = [text(a, column), text(b, column)];
    if (column === MEASURED) return (number(x) || 0) - (number(y) || 0);
    return x.localeCompare(y);
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.querySelector("p")?.childNodes ?? head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      // The claims as they stand in the book are in the order of the first column.
      const sorted = column === CLAIM ? [...rows] : [...rows].sort(order(column));
      body.append(...(ascending ? sorted : sorted.reverse()));
    });
  });
  show();
});
