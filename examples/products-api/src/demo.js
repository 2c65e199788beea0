// usage: node src/demo.js     (CACHE: see cache.js)
// The same visitors with and without the cache: response times and how often the database was asked.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { openCache } from "./cache.js";
import { openDatabase } from "./database.js";
import { seed } from "./seed.js";

const VISITORS = 8;
const WITH_CACHE = process.env.CACHE ?? "cluster:127.0.0.1:7001";
const CACHE_WAIT_MS = 5_000;
const agent = new http.Agent({ keepAlive: true, maxSockets: VISITORS });

/** One HTTP request; gives status, headers, body (parsed JSON or null) and how long it took. */
function request(url, method = "GET", body = null) {
  const start = performance.now();
  return new Promise((resolve, reject) => {
    const sent = http.request(url, { agent, method, headers: body ? { "Content-Type": "application/json" } : {} }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk)).on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        const ms = performance.now() - start;
        resolve({ status: response.statusCode, cache: response.headers["x-cache"], body: text ? JSON.parse(text) : null, ms });
      });
    });
    sent.on("error", reject).end(body ? JSON.stringify(body) : undefined);
  });
}

/** Starts the service as a process of its own, gives `body` its address, and stops it. */
async function withService(database, cache, body) {
  const service = spawn(process.execPath, [new URL("server.js", import.meta.url).pathname], {
    env: { ...process.env, DATABASE: database, CACHE: cache, PORT: "0" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(service, "exit");
  try {
    const [line] = await Promise.race([once(createInterface(service.stdout), "line"), ended.then(() => ["the service did not start"])]);
    const address = line.match(/http:\S+/)?.[0];
    assert.ok(address, line);
    return await body(address);
  } finally {
    service.kill();
    await ended;
  }
}

/** Product ids as shops see them: few are asked for often, most seldom (Zipf). */
function popular(count) {
  const weights = Array.from({ length: count }, (_, i) => 1 / (i + 1));
  let sum = 0;
  const steps = weights.map((weight) => (sum += weight));
  return () => {
    const x = Math.random() * sum;
    let [low, high] = [0, count - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] < x) low = middle + 1;
      else high = middle;
    }
    return ((low * 7919) % count) + 1; // popular ones are spread over the ids
  };
}

/** `total` requests by VISITORS at once; gives a row of the table. */
async function visit(name, address, total, nextId) {
  const before = (await request(`${address}/stats`)).body.database_queries;
  const times = [];
  const start = performance.now();
  let left = total;
  await Promise.all(
    Array.from({ length: VISITORS }, async () => {
      while (left-- > 0) {
        const { status, ms } = await request(`${address}/products/${nextId()}`);
        assert.equal(status, 200);
        times.push(ms);
      }
    }),
  );
  const seconds = (performance.now() - start) / 1000;
  times.sort((a, b) => a - b);
  const queries = (await request(`${address}/stats`)).body.database_queries - before;
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))].toFixed(2);
  return { name, requests: total, "p50 ms": at(0.5), "p99 ms": at(0.99), "requests/s": Math.round(total / seconds), "database queries": queries };
}

/** A changed product must be seen at once, also when its old page was cached. */
async function checkInvalidation(address) {
  const url = `${address}/products/42`;
  const end = performance.now() + CACHE_WAIT_MS;
  while ((await request(url)).cache !== "hit") assert.ok(performance.now() < end, "the cache keeps nothing");
  const price_cents = 100 + Math.floor(Math.random() * 30_000);
  assert.equal((await request(url, "PUT", { name: "Renamed Lamp", price_cents })).status, 204);
  const { body, cache } = await request(url);
  assert.deepEqual([body.name, body.price_cents, cache], ["Renamed Lamp", price_cents, "miss"]);
}

function print(rows) {
  const names = Object.keys(rows[0]);
  const lines = [names.map((name) => (name === "name" ? "" : name)), ...rows.map((row) => names.map((name) => row[name].toLocaleString("en")))];
  const widths = names.map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  for (const line of lines) console.log(line.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join("   "));
}

async function requireCache() {
  const cache = openCache(WITH_CACHE);
  const late = sleep(CACHE_WAIT_MS).then(() => assert.fail(`no cache answers at ${WITH_CACHE}: start one (scripts/cluster up), or set CACHE`));
  await Promise.race([cache.ready(), late]);
  for (let id = 1; id <= 10_000; id += 500) {
    await Promise.all(Array.from({ length: 500 }, (_, i) => cache.forget(`product:${id + i}`))); // begin cold
  }
  cache.close();
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), "products-"));
  const file = join(folder, "products.db");
  try {
    await requireCache();
    const database = openDatabase(file);
    const products = seed(database);
    database.close();
    console.log(`${products.toLocaleString("en")} products in SQLite, ${VISITORS} visitors, cache at ${WITH_CACHE}\n`);
    const rows = [await withService(file, "none", (address) => visit("without the cache", address, 1_000, popular(products)))];
    await withService(file, WITH_CACHE, async (address) => {
      rows.push(await visit("with it, cold", address, 4_000, popular(products)));
      rows.push(await visit("with it, warm", address, 4_000, popular(products)));
      await checkInvalidation(address);
    });
    print(rows);
    console.log("\nA changed product was seen at once.");
  } finally {
    agent.destroy();
    rmSync(folder, { recursive: true, force: true });
  }
}

await main().then(() => process.exit(0), (error) => {
  console.error(error.message);
  process.exit(1);
});
