// The cache, reached by an ordinary ioredis. CACHE says where it is:
//   cluster:127.0.0.1:7001   any node of a cluster (the default)
//   127.0.0.1:6379           one node
//   none                     no cache: every read goes to the database
import { Cluster, Redis } from "ioredis";

const TTL_SECONDS = 300;

/** An ioredis client for the place `where` names, or null for none. */
function connect(where) {
  if (where === "none") return null;
  const isCluster = where.startsWith("cluster:");
  const [host, port] = where.replace("cluster:", "").split(":");
  const client = isCluster ? new Cluster([{ host, port: Number(port) }]) : new Redis({ host, port: Number(port) });
  let reported = "";
  client.on("error", (error) => {
    if (error.message !== reported) console.error(`cache at ${where}: ${error.message}`);
    reported = error.message;
  });
  return client;
}

/** The three things the service does with its cache. A cache that fails is a slow day, not an outage: reads say null. */
export function openCache(where = process.env.CACHE ?? "cluster:127.0.0.1:7001") {
  const client = connect(where);
  return {
    /** The remembered value, or null. */
    async recall(key) {
      if (!client) return null;
      try {
        const text = await client.get(key);
        return text === null ? null : JSON.parse(text);
      } catch {
        return null;
      }
    },

    /** Keeps a value for five minutes. */
    async remember(key, value) {
      await client?.set(key, JSON.stringify(value), "EX", TTL_SECONDS).catch(() => {});
    },

    /** Drops a value that is no longer true. Fails loudly: an old value would live on for its whole TTL. */
    async forget(key) {
      await client?.del(key);
    },

    /** Waits until the cache answers. */
    async ready() {
      await client?.ping();
    },

    close() {
      client?.disconnect();
    },
  };
}
