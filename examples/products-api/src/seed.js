// usage: node src/seed.js     (DATABASE, default products.db)
// Fills an empty database with 10,000 products, their stock and about 60,000 reviews. The same every time.
import { pathToFileURL } from "node:url";
import { openDatabase } from "./database.js";

const PRODUCTS = 10_000;
const CATEGORIES = ["Kitchen", "Garden", "Books", "Lighting", "Tools", "Toys", "Sports", "Music", "Travel", "Office"];
const WAREHOUSES = ["Hamburg", "Lyon", "Porto", "Gdansk"];
const ADJECTIVES = ["Quiet", "Sturdy", "Folding", "Bright", "Portable", "Classic", "Silent", "Large", "Light", "Robust"];
const THINGS = ["Lamp", "Kettle", "Chair", "Tent", "Guitar", "Notebook", "Drill", "Ball", "Suitcase", "Spade"];
const OPINIONS = ["Does what it says.", "Arrived late, works well.", "Would buy again.", "Not quite as pictured.", "My neighbour has one too."];

/** A small repeatable source of numbers in 0..below (mulberry32). */
function numbers(seed) {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** Fills `database` if it has no products yet; gives how many it has. */
export function seed(database) {
  if (database.countProducts() > 0) return database.countProducts();
  const next = numbers(7);
  const oneOf = (list) => list[next(list.length)];
  database.fill((insert) => {
    CATEGORIES.forEach((name, i) => insert("categories", [i + 1, name]));
    for (let id = 1; id <= PRODUCTS; id++) {
      const name = `${oneOf(ADJECTIVES)} ${oneOf(THINGS)} ${id}`;
      insert("products", [id, next(CATEGORIES.length) + 1, name, `${name}. ${`${oneOf(OPINIONS)} `.repeat(6).trim()}`, 99 + next(30_000)]);
      for (const warehouse of WAREHOUSES) insert("stock", [id, warehouse, next(200)]);
      for (let n = next(12); n > 0; n--) insert("reviews", [null, id, next(5) + 1, oneOf(OPINIONS)]);
    }
  });
  return database.countProducts();
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const database = openDatabase(process.env.DATABASE ?? "products.db");
  console.log(`${seed(database).toLocaleString("en")} products`);
  database.close();
}
