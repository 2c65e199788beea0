// Connects the way the ioredis README shows: one node known, every option left at its default.

/** Loads ioredis 5 or 6 (`major` as text), both installed side by side under an alias. */
export async function load(major) {
  return await import(`ioredis${major}`);
}

/** Host and port of the one node a user would configure. */
export function startNode() {
  const [host, port] = process.env.CLUSTER_NODE.split(":");
  return { host, port: Number(port) };
}

/** A Cluster client with default options; its errors go to the commands, not to an unhandled event. */
export function connect({ Cluster }, options = {}) {
  const cluster = new Cluster([startNode()], options);
  cluster.on("error", () => {});
  return cluster;
}
