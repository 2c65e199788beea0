// Each client as its documentation shows it, one node known: `cached` keeps a cache, `plain` doesn't. `hits` counts the
// reads that were answered from the cache.

const [host, port] = process.env.CLUSTER_NODE.split(":");

async function nodeRedis() {
  const { createCluster } = await import("redis");
  const connect = async (options) => {
    const cluster = createCluster({ rootNodes: [{ url: `redis://${host}:${port}` }], RESP: 3, ...options });
    cluster.on("error", () => {});
    return await cluster.connect();
  };
  const plain = await connect({});
  const cached = await connect({ clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: "LRU" } });
  const hits = () => cached.clientSideCache.stats().hitCount;
  return { plain, cached, hits, close: () => [plain, cached].forEach((cluster) => cluster.destroy()) };
}

async function glide() {
  const { ClientSideCache, GlideClusterClient, Logger, ProtocolVersion } = await import("@valkey/valkey-glide");
  Logger.setLoggerConfig("off");
  const options = { addresses: [{ host, port: Number(port) }], requestTimeout: 2000, protocol: ProtocolVersion.RESP3 };
  const clientSideCache = new ClientSideCache({ maxCacheKb: 4096, entryTtlMs: 0, enableMetrics: true, serverAssisted: true });
  const plain = await GlideClusterClient.createClient(options);
  const cached = await GlideClusterClient.createClient({ ...options, clientSideCache });
  const hits = async () => Math.round((await cached.getCacheHitRate()) * (await cached.getCacheTotalLookups()));
  return { plain, cached, hits, close: () => [plain, cached].forEach((client) => client.close()) };
}

/** By name: `node-redis` or `valkey-glide`. */
export const clients = { "node-redis": nodeRedis, "valkey-glide": glide };
