// usage: node cache.mjs node-redis|valkey-glide    (CLUSTER_NODE=host:port)
// Keeps a client-side cache while another connection writes, for as long as standard input is open, whatever happens to
// the cluster. Prints `running`, and at the end, when the writer has been quiet for a while, one line of JSON:
// {reads, hits, stale: [text]}.
import { setTimeout as sleep } from "node:timers/promises";
import { clients } from "./clients.mjs";

const KEYS = Array.from({ length: 200 }, (_, n) => `near:${process.argv[2]}:${n}`);
const READERS = 2;
const READ_EVERY_MS = 1;
const WRITE_EVERY_MS = 10;
const QUIET_MS = 2_000;

let writing = true;
let reading = true;
let reads = 0;

/** A call that is tried again while the cluster mends itself. */
async function patiently(call, tries = 200) {
  for (; tries > 0; tries--) {
    try {
      return await call();
    } catch {
      await sleep(20);
    }
  }
}

async function write(client) {
  for (let n = 1; writing; n++) {
    await patiently(() => client.set(KEYS[n % KEYS.length], String(n)));
    await sleep(WRITE_EVERY_MS);
  }
}

/** Some keys are read more than others, or nothing would stay cached until it is read again. */
async function read(client) {
  for (let n = 1; reading; n++) {
    await patiently(() => client.get(KEYS[(n * n) % KEYS.length]));
    reads++;
    await sleep(READ_EVERY_MS);
  }
}

const { plain, cached, hits, close } = await clients[process.argv[2]]();
const writer = write(plain);
const readers = Array.from({ length: READERS }, () => read(cached));
console.log("running");
for await (const _ of process.stdin);
writing = false;
await writer;
await sleep(QUIET_MS);
reading = false;
await Promise.all(readers);
const stale = [];
for (const key of KEYS) {
  const held = await patiently(() => cached.get(key));
  const truth = await patiently(() => plain.get(key));
  if (held !== truth) stale.push(`${key}: cached ${held}, is ${truth}`);
}
console.log(JSON.stringify({ reads, hits: await hits(), stale }));
close();
process.exit(0);
