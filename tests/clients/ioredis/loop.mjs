// usage: node loop.mjs 5|6    (CLUSTER_NODE=host:port)
// Writes and reads back one key after another for as long as standard input is open, whatever happens to the cluster.
// Prints `running`, and at the end one line of JSON (see ../failover.py for its fields).
import { setTimeout as sleep } from "node:timers/promises";
import { connect, load } from "./client.mjs";

const EVERY_MS = 20;
const KEYS = 300;
const NOTABLE_MS = 100;
const MAX_EVENTS = 2_000;
const LAST_ANSWER_MS = 20_000;

const ioredis = await load(process.argv[2]);
const cluster = connect(ioredis);
const report = { calls: 0, events: [], stale: [], lost: [], longest_ms: 0 };
const prefix = `loop:ioredis${process.argv[2]}`;
/** key -> { acked: last acknowledged value, maybe: values of writes that failed since then, busy } */
const keys = new Map();
const unanswered = new Set();
let open = true;

/** What a subscriber of the same application hears of the channel that every step publishes to. */
const channel = `${prefix}:news`;
const heard = new Set();
const messages = { heard: 0, twice: 0, silent_ms: 0 };
let last_heard = performance.now();
function silence() {
  const now = performance.now();
  messages.silent_ms = Math.max(messages.silent_ms, now - last_heard);
  last_heard = now;
}
const subscriber = connect(ioredis);
subscriber.on("message", (_, message) => {
  silence();
  messages.heard++;
  if (heard.has(message)) messages.twice++;
  heard.add(message);
});

/** One call, timed; failures and slow calls become events. Gives { reply } or { error }. */
async function timed(call) {
  const at = Date.now();
  const start = performance.now();
  const mark = { at, start };
  unanswered.add(mark);
  let outcome;
  try {
    outcome = { reply: await call() };
  } catch (error) {
    outcome = { error: String(error.message) };
  }
  unanswered.delete(mark);
  const took_ms = performance.now() - start;
  report.calls++;
  report.longest_ms = Math.max(report.longest_ms, took_ms);
  if ((outcome.error || took_ms > NOTABLE_MS) && report.events.length < MAX_EVENTS) {
    report.events.push({ at, took_ms, error: outcome.error ?? null });
  }
  return outcome;
}

async function writeAndReadBack(key, value) {
  const state = keys.get(key) ?? { acked: null, maybe: [], busy: false };
  keys.set(key, state);
  if (state.busy) return;
  state.busy = true;
  const written = await timed(() => cluster.set(key, value));
  if (written.error) state.maybe.push(value);
  else Object.assign(state, { acked: value, maybe: [] });
  const read = await timed(() => cluster.get(key));
  if (!read.error && read.reply !== state.acked && !state.maybe.includes(read.reply)) {
    report.stale.push(`${key}: read ${read.reply}, acknowledged ${state.acked} (${Date.now()})`);
  }
  state.busy = false;
}

process.stdin.on("end", () => (open = false)).resume();
await writeAndReadBack(`${prefix}:first`, "0");
await subscriber.subscribe(channel);
last_heard = performance.now();
console.log("running");
const pending = new Set();
for (let i = 0; open; i++) {
  const one = writeAndReadBack(`${prefix}:${i % KEYS}`, String(i)).finally(() => pending.delete(one));
  pending.add(one);
  cluster.publish(channel, String(i)).catch(() => {});
  await sleep(EVERY_MS);
}
silence();
await Promise.race([Promise.all(pending), sleep(LAST_ANSWER_MS)]);
for (const { at, start } of unanswered) {
  report.events.push({ at, took_ms: performance.now() - start, error: "never answered" });
}
for (const [key, { acked, maybe }] of keys) {
  const found = await cluster.get(key);
  if (found !== acked && !maybe.includes(found)) report.lost.push(`${key}: found ${found}, acknowledged ${acked}`);
}
subscriber.disconnect();
cluster.disconnect();
report.messages = messages;
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
