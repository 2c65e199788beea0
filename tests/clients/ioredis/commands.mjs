// usage: node commands.mjs 5|6    (CLUSTER_NODE=host:port)
// What an application does with ioredis on a cluster; prints one line a test (TAP), exits 1 if one failed.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, load, startNode } from "./client.mjs";

const ioredis = await load(process.argv[2]);
const cluster = connect(ioredis);
const DEADLINE_MS = 15_000;
const tests = [];
const test = (name, body) => tests.push({ name, body });

/** Polls until `condition()` holds; for what a server does in its own time (expiry, topology). */
async function eventually(condition, what, withinMs = 5_000) {
  const end = Date.now() + withinMs;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `not within ${withinMs} ms: ${what}`);
    await sleep(20);
  }
}

async function eachMaster(body) {
  return Promise.all(cluster.nodes("master").map(body));
}

/** A connection to one node that follows no redirect. */
function single(options) {
  return new ioredis.Redis({ ...options, lazyConnect: false, maxRetriesPerRequest: 1 });
}

test("finds three masters from one address", async () => {
  await cluster.set("first", "command");
  assert.equal(cluster.nodes("master").length, 3);
});

test("strings", async () => {
  assert.equal(await cluster.set("s", "one"), "OK");
  assert.equal(await cluster.get("s"), "one");
  assert.equal(await cluster.get("s:missing"), null);
  assert.equal(await cluster.append("s", "+two"), 7);
  assert.equal(await cluster.strlen("s"), 7);
  assert.equal(await cluster.getrange("s", 0, 2), "one");
  assert.equal(await cluster.setrange("s", 4, "TWO"), 7);
  assert.equal(await cluster.getset("s", "new"), "one+TWO");
  assert.equal(await cluster.getdel("s"), "new");
  assert.equal(await cluster.exists("s"), 0);
  assert.equal(await cluster.setnx("s:nx", "1"), 1);
  assert.equal(await cluster.setnx("s:nx", "2"), 0);
});

test("SET with its options", async () => {
  assert.equal(await cluster.set("opt", "a", "NX"), "OK");
  assert.equal(await cluster.set("opt", "b", "NX"), null);
  assert.equal(await cluster.set("opt", "b", "XX", "GET"), "a");
  assert.equal(await cluster.set("opt", "c", "EX", 100), "OK");
  assert.equal(await cluster.set("opt", "d", "KEEPTTL"), "OK");
  const ttl = await cluster.ttl("opt");
  assert.ok(ttl > 90 && ttl <= 100, `ttl ${ttl}`);
  assert.equal(await cluster.set("opt", "e"), "OK");
  assert.equal(await cluster.ttl("opt"), -1);
});

test("counters", async () => {
  assert.equal(await cluster.incr("n"), 1);
  assert.equal(await cluster.incrby("n", 41), 42);
  assert.equal(await cluster.decr("n"), 41);
  assert.equal(await cluster.decrby("n", 40), 1);
  assert.equal(await cluster.incrbyfloat("n", "0.5"), "1.5");
  await assert.rejects(cluster.incr("n"), /value is not an integer or out of range/);
  const sums = await Promise.all(Array.from({ length: 100 }, () => cluster.incr("n:many")));
  assert.deepEqual(sums, Array.from({ length: 100 }, (_, i) => i + 1));
});

test("several keys of one slot", async () => {
  assert.equal(await cluster.mset("{m}a", "1", "{m}b", "2"), "OK");
  assert.deepEqual(await cluster.mget("{m}a", "{m}none", "{m}b"), ["1", null, "2"]);
  assert.equal(await cluster.msetnx("{m}c", "3", "{m}a", "x"), 0);
  assert.equal(await cluster.exists("{m}a", "{m}b", "{m}c"), 2);
  assert.equal(await cluster.touch("{m}a", "{m}b", "{m}c"), 2);
  assert.equal(await cluster.del("{m}a", "{m}c"), 1);
  assert.equal(await cluster.unlink("{m}b"), 1);
});

test("keys of different slots are refused", async () => {
  await assert.rejects(cluster.mget("x1", "x2"), /CROSSSLOT/);
});

test("binary and large values", async () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  await cluster.set("bin", bytes);
  assert.deepEqual(await cluster.getBuffer("bin"), bytes);
  const large = Buffer.alloc(4 << 20, "slotcast");
  await cluster.set("large", large);
  assert.ok(large.equals(await cluster.getBuffer("large")));
  await cluster.set("empty", "");
  assert.equal(await cluster.get("empty"), "");
  await cluster.set("", "empty key");
  assert.equal(await cluster.get(""), "empty key");
});

test("hashes", async () => {
  assert.equal(await cluster.hset("h", { a: "1", b: "2" }), 2);
  assert.equal(await cluster.hset("h", "b", "3", "c", "4"), 1);
  assert.deepEqual(await cluster.hgetall("h"), { a: "1", b: "3", c: "4" });
  assert.deepEqual(await cluster.hgetall("h:missing"), {});
  assert.equal(await cluster.hget("h", "a"), "1");
  assert.deepEqual(await cluster.hmget("h", "a", "none", "c"), ["1", null, "4"]);
  assert.equal(await cluster.hincrby("h", "a", 9), 10);
  assert.equal(await cluster.hexists("h", "a"), 1);
  assert.equal(await cluster.hlen("h"), 3);
  assert.deepEqual((await cluster.hkeys("h")).sort(), ["a", "b", "c"]);
  assert.deepEqual((await cluster.hvals("h")).sort(), ["10", "3", "4"]);
  assert.equal(await cluster.hdel("h", "a", "b", "none"), 2);
  const [cursor, flat] = await cluster.hscan("h", 0);
  assert.equal(cursor, "0");
  assert.deepEqual(flat, ["c", "4"]);
  assert.equal(await cluster.hdel("h", "c"), 1);
  assert.equal(await cluster.exists("h"), 0);
});

test("types are kept apart", async () => {
  await cluster.hset("t:hash", "f", "v");
  await cluster.set("t:string", "v");
  assert.equal(await cluster.type("t:hash"), "hash");
  assert.equal(await cluster.type("t:string"), "string");
  assert.equal(await cluster.type("t:none"), "none");
  await assert.rejects(cluster.get("t:hash"), /^ReplyError: WRONGTYPE/);
  await assert.rejects(cluster.hget("t:string", "f"), /^ReplyError: WRONGTYPE/);
});

test("deadlines", async () => {
  await cluster.set("ttl", "v");
  assert.equal(await cluster.ttl("ttl"), -1);
  assert.equal(await cluster.ttl("ttl:none"), -2);
  assert.equal(await cluster.expire("ttl", 100), 1);
  assert.equal(await cluster.expire("ttl", 200, "NX"), 0);
  assert.equal(await cluster.expire("ttl", 50, "GT"), 0);
  assert.equal(await cluster.expire("ttl", 50, "LT"), 1);
  assert.equal(await cluster.expire("ttl", 60, "XX"), 1);
  const left = await cluster.pttl("ttl");
  assert.ok(left > 55_000 && left <= 60_000, `pttl ${left}`);
  const at = Math.floor(Date.now() / 1000) + 500;
  assert.equal(await cluster.expireat("ttl", at), 1);
  assert.equal(await cluster.expiretime("ttl"), at);
  assert.equal(await cluster.persist("ttl"), 1);
  assert.equal(await cluster.ttl("ttl"), -1);
  assert.equal(await cluster.getex("ttl", "EX", 10), "v");
  assert.ok((await cluster.ttl("ttl")) > 0);
  await cluster.setex("ttl:ex", 20, "v");
  await cluster.psetex("ttl:px", 20_000, "v");
  assert.ok((await cluster.ttl("ttl:ex")) > 15 && (await cluster.ttl("ttl:px")) > 15);
});

test("a key is gone after its deadline", async () => {
  await cluster.set("brief", "v", "PX", 60);
  assert.equal(await cluster.get("brief"), "v");
  await eventually(async () => (await cluster.get("brief")) === null, "expired");
  assert.equal(await cluster.ttl("brief"), -2);
  assert.equal(await cluster.set("brief", "again", "NX"), "OK");
});

test("rename and copy within a slot", async () => {
  await cluster.set("{r}a", "v", "EX", 100);
  assert.equal(await cluster.rename("{r}a", "{r}b"), "OK");
  assert.ok((await cluster.ttl("{r}b")) > 0);
  assert.equal(await cluster.copy("{r}b", "{r}c"), 1);
  assert.equal(await cluster.renamenx("{r}b", "{r}c"), 0);
  await assert.rejects(cluster.rename("{r}none", "{r}x"), /no such key/);
});

test("MULTI / EXEC / DISCARD", async () => {
  const replies = await cluster.multi().set("{tx}a", "1").incr("{tx}a").hset("{tx}h", "f", "v").get("{tx}a").exec();
  assert.deepEqual(replies, [[null, "OK"], [null, 2], [null, 1], [null, "2"]]);
  const failing = await cluster.multi().set("{tx}s", "text").incr("{tx}s").get("{tx}s").exec();
  assert.equal(failing[0][1], "OK");
  assert.match(String(failing[1][0]), /not an integer/);
  assert.equal(failing[2][1], "text");
  await assert.rejects(cluster.multi().set("{tx}a", "9").call("hset", "{tx}h").exec(), /EXECABORT/);
  assert.equal(await cluster.get("{tx}a"), "2");
});

test("WATCH notices another client's write", async () => {
  const other = connect(ioredis);
  try {
    await cluster.set("{w}k", "1");
    await cluster.watch("{w}k");
    await other.set("{w}k", "2");
    assert.equal(await cluster.multi().set("{w}k", "mine").exec(), null);
    assert.equal(await cluster.get("{w}k"), "2");
    await cluster.watch("{w}k");
    assert.deepEqual(await cluster.multi().set("{w}k", "mine").exec(), [[null, "OK"]]);
  } finally {
    other.disconnect();
  }
});

test("a pipeline within one slot", async () => {
  const pipeline = cluster.pipeline();
  for (let i = 0; i < 500; i++) pipeline.set(`{p}${i}`, String(i)).get(`{p}${i}`);
  const replies = await pipeline.exec();
  assert.equal(replies.length, 1000);
  replies.forEach(([error, reply], i) => {
    assert.equal(error, null);
    assert.equal(reply, i % 2 ? String((i - 1) / 2) : "OK");
  });
});

test("an error in the middle of a pipeline stays there", async () => {
  const replies = await cluster.pipeline().set("{pe}a", "x").incr("{pe}a").get("{pe}a").exec();
  assert.equal(replies[0][1], "OK");
  assert.match(String(replies[1][0]), /not an integer/);
  assert.equal(replies[2][1], "x");
});

test("2,000 commands at once over all slots, automatic pipelining", async () => {
  const piped = connect(ioredis, { enableAutoPipelining: true });
  try {
    const ids = Array.from({ length: 2_000 }, (_, i) => i);
    await Promise.all(ids.map((i) => piped.set(`auto:${i}`, String(i))));
    assert.deepEqual(await Promise.all(ids.map((i) => piped.get(`auto:${i}`))), ids.map(String));
  } finally {
    piped.disconnect();
  }
});

test("SCAN over all masters sees every key once", async () => {
  await eachMaster((node) => node.flushall());
  await Promise.all(Array.from({ length: 1_000 }, (_, i) => cluster.set(`scan:${i}`, "v")));
  await cluster.hset("other", "f", "v");
  const found = [];
  for (const node of cluster.nodes("master")) {
    for await (const keys of node.scanStream({ match: "scan:*", count: 100 })) found.push(...keys);
  }
  assert.equal(new Set(found).size, 1_000);
  assert.equal(found.length, 1_000);
  const sizes = await eachMaster((node) => node.dbsize());
  assert.equal(sizes.reduce((a, b) => a + b), 1_001);
  assert.ok(sizes.every((size) => size > 200), `keys are spread: ${sizes}`);
});

test("SCAN TYPE, KEYS, RANDOMKEY", async () => {
  const hashes = await eachMaster(async (node) => {
    const keys = [];
    for await (const some of node.scanStream({ type: "hash", count: 500 })) keys.push(...some);
    return keys;
  });
  assert.deepEqual(hashes.flat(), ["other"]);
  const named = await eachMaster((node) => node.keys("scan:99*"));
  assert.equal(named.flat().length, 11);
  for (const key of await eachMaster((node) => node.randomkey())) assert.match(key, /^(scan:|other)/);
});

test("FLUSHALL on every master empties the cluster", async () => {
  assert.deepEqual(await eachMaster((node) => node.flushall()), ["OK", "OK", "OK"]);
  assert.deepEqual(await eachMaster((node) => node.dbsize()), [0, 0, 0]);
});

test("INFO has what clients parse", async () => {
  for (const text of await eachMaster((node) => node.info())) {
    for (const field of ["redis_version:", "redis_mode:cluster", "role:master", "loading:0", "cluster_enabled:1", "connected_clients:", "process_id:"]) {
      assert.ok(String(text).includes(field), `INFO lacks ${field}`);
    }
  }
  assert.match(String(await cluster.nodes("master")[0].info("server")), /^# Server/);
});

test("CLIENT SETNAME, GETNAME, ID, LIST; ECHO; PING", async () => {
  const node = single(startNode());
  try {
    assert.equal(await node.client("SETNAME", "a-test"), "OK");
    assert.equal(await node.client("GETNAME"), "a-test");
    const id = await node.client("ID");
    assert.match(String(await node.client("LIST")), new RegExp(`id=${id} .*name=a-test`));
    assert.equal(await node.echo("hi"), "hi");
    assert.equal(await node.ping(), "PONG");
    assert.equal(await node.select(0), "OK");
    await assert.rejects(node.select(1), /SELECT is not allowed in cluster mode/);
    await assert.rejects(node.call("NOSUCH", "x"), /unknown command/);
  } finally {
    node.disconnect();
  }
});

/** What a subscriber hears next by an event of ioredis, as the listener gets it. */
const next = (subscriber, event) => new Promise((resolve) => subscriber.once(event, (...said) => resolve(said)));

test("subscriptions hear what is published at any node", async () => {
  const subscriber = connect(ioredis);
  try {
    assert.equal(await subscriber.subscribe("news", "other"), 2);
    assert.equal(await subscriber.psubscribe("n?ws"), 3);
    for (const [i, node] of cluster.nodes("master").entries()) {
      const heard = Promise.all([next(subscriber, "message"), next(subscriber, "pmessage")]);
      await node.publish("news", `message ${i}`);
      assert.deepEqual(await heard, [["news", `message ${i}`], ["n?ws", "news", `message ${i}`]]);
    }
    assert.equal(await subscriber.unsubscribe("news"), 2);
    assert.equal(await subscriber.punsubscribe("n?ws"), 1);
  } finally {
    subscriber.disconnect();
  }
});

test("a connection can subscribe, unsubscribe and go on", async () => {
  const node = single(startNode());
  try {
    await node.subscribe("news");
    const heard = next(node, "message");
    await cluster.publish("news", "hello");
    assert.deepEqual(await heard, ["news", "hello"]);
    assert.equal(await node.unsubscribe("news"), 0);
    assert.equal(await node.echo("free again"), "free again");
  } finally {
    node.disconnect();
  }
});

test("shard channels at their slot's owner", async () => {
  const ranges = await cluster.nodes("master")[0].cluster("SLOTS");
  for (const channel of ["shard:a", "shard:b", "shard:c"]) {
    const slot = await cluster.nodes("master")[0].cluster("KEYSLOT", channel);
    const [host, port] = ranges.find(([from, to]) => from <= slot && slot <= to)[2];
    const node = single({ host, port });
    try {
      assert.equal(await node.ssubscribe(channel), 1);
      const heard = next(node, "smessage");
      assert.equal(await cluster.spublish(channel, "hello"), 1);
      assert.deepEqual(await heard, [channel, "hello"]);
      assert.equal(await node.sunsubscribe(channel), 0);
    } finally {
      node.disconnect();
    }
  }
});

test("a node that isn't the owner says MOVED to the owner", async () => {
  const ranges = await cluster.nodes("master")[0].cluster("SLOTS");
  const slot = await cluster.nodes("master")[0].cluster("KEYSLOT", "moved");
  const owner = ranges.find(([from, to]) => from <= slot && slot <= to)[2];
  const wrong = ranges.find(([from, to]) => slot < from || to < slot)[2];
  const node = single({ host: wrong[0], port: wrong[1] });
  try {
    await assert.rejects(node.get("moved"), new RegExp(`MOVED ${slot} ${owner[0]}:${owner[1]}`));
  } finally {
    node.disconnect();
  }
});

test("a client with a wrong slot table is led right", async () => {
  await cluster.set("lost", "found");
  const misled = connect(ioredis);
  try {
    await misled.ping();
    const owners = misled.slots.slice();
    misled.slots = owners.map((_, slot) => owners[(slot + 6_000) % owners.length]);
    assert.equal(await misled.get("lost"), "found");
    assert.deepEqual(await Promise.all(Array.from({ length: 50 }, (_, i) => misled.set(`lost:${i}`, "v"))), Array(50).fill("OK"));
  } finally {
    misled.disconnect();
  }
});

async function main() {
  await cluster.ping();
  await eachMaster((node) => node.flushall());
  let failed = 0;
  for (const { name, body } of tests) {
    let timer;
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("timed out")), DEADLINE_MS)));
    try {
      await Promise.race([body(), late]);
      console.log(`ok - ${name}`);
    } catch (error) {
      failed++;
      console.log(`not ok - ${name}: ${String(error.message ?? error).split("\n").slice(0, 6).join(" | ")}`);
    } finally {
      clearTimeout(timer);
    }
  }
  cluster.disconnect();
  process.exit(failed ? 1 : 0);
}

await main();
