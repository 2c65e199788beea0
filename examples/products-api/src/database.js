// The products' home: an SQLite file. Everything here is the truth; the cache only repeats it.
import sqlite from "node-sqlite3-wasm";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS categories (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, category_id INTEGER NOT NULL REFERENCES categories,
    name TEXT NOT NULL, description TEXT NOT NULL, price_cents INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS stock (product_id INTEGER NOT NULL, warehouse TEXT NOT NULL, pieces INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS reviews (id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL, stars INTEGER NOT NULL, text TEXT NOT NULL);
  CREATE INDEX IF NOT EXISTS stock_by_product ON stock (product_id);
  CREATE INDEX IF NOT EXISTS reviews_by_product ON reviews (product_id);
  CREATE INDEX IF NOT EXISTS products_by_category ON products (category_id, price_cents);`;

// What a product page shows. Similar products are those nearest in price, so the whole category is read: the kind of query
// one caches.
const PRODUCT_PAGE = `
  SELECT p.id, p.name, p.description, p.price_cents, c.name AS category,
    (SELECT SUM(pieces) FROM stock WHERE product_id = p.id) AS in_stock,
    (SELECT COUNT(*) FROM reviews WHERE product_id = p.id) AS reviews,
    (SELECT ROUND(AVG(stars), 2) FROM reviews WHERE product_id = p.id) AS stars,
    (SELECT COUNT(*) FROM products o WHERE o.category_id = p.category_id AND o.price_cents < p.price_cents) AS cheaper_ones,
    (SELECT json_group_array(name) FROM (SELECT o.name FROM products o WHERE o.category_id = p.category_id AND o.id <> p.id
      ORDER BY ABS(o.price_cents - p.price_cents) LIMIT 5)) AS similar
  FROM products p JOIN categories c ON c.id = p.category_id WHERE p.id = ?`;

/** Opens (or makes) the database file. `queries` counts what was asked of it. */
export function openDatabase(file) {
  const database = new sqlite.Database(file);
  database.exec(SCHEMA);
  const page = database.prepare(PRODUCT_PAGE);
  let queries = 0;
  return {
    get queries() {
      return queries;
    },

    /** The product's page, or null. */
    findProduct(id) {
      queries++;
      const row = page.get([id]);
      return row ? { ...row, similar: JSON.parse(row.similar) } : null;
    },

    /** Changes name and price; false if there is no such product. */
    updateProduct(id, { name, price_cents }) {
      queries++;
      const { changes } = database.run("UPDATE products SET name = ?, price_cents = ? WHERE id = ?", [name, price_cents, id]);
      return changes === 1;
    },

    countProducts() {
      return Number(database.get("SELECT COUNT(*) AS n FROM products").n);
    },

    /** Runs `body(insert)` as one transaction; `insert(table, row)` adds a row. */
    fill(body) {
      const statements = new Map();
      const insert = (table, row) => {
        if (!statements.has(table)) {
          statements.set(table, database.prepare(`INSERT INTO ${table} VALUES (${row.map(() => "?").join(", ")})`));
        }
        statements.get(table).run(row);
      };
      database.exec("BEGIN");
      body(insert);
      database.exec("COMMIT");
      for (const statement of statements.values()) statement.finalize();
    },

    close() {
      page.finalize();
      database.close();
    },
  };
}
