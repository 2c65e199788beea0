// Cache-aside: read the cache, else the database, and remember; write the database, then forget.
import express from "express";

const keyOf = (id) => `product:${id}`;

/** The service over a database and a cache. */
export function createApp(database, cache) {
  const app = express();
  app.use(express.json());

  app.param("id", (request, response, next, id) => {
    if (/^[1-9][0-9]{0,8}$/.test(id)) next();
    else response.status(400).json({ error: "a product's id is a number" });
  });

  app.get("/products/:id", async (request, response) => {
    const id = Number(request.params.id);
    const cached = await cache.recall(keyOf(id));
    if (cached) return response.set("X-Cache", "hit").json(cached);

    // Between these two lines nothing is awaited, so a PUT of this process can't slip in and leave the old value behind.
    const product = database.findProduct(id);
    if (product) cache.remember(keyOf(id), product);

    if (!product) return response.status(404).json({ error: `there is no product ${id}` });
    response.set("X-Cache", "miss").json(product);
  });

  app.put("/products/:id", async (request, response) => {
    const id = Number(request.params.id);
    const { name, price_cents } = request.body ?? {};
    if (typeof name !== "string" || !Number.isSafeInteger(price_cents)) {
      return response.status(400).json({ error: 'expected {"name": text, "price_cents": whole number}' });
    }
    if (!database.updateProduct(id, { name, price_cents })) {
      return response.status(404).json({ error: `there is no product ${id}` });
    }
    await cache.forget(keyOf(id));
    response.status(204).end();
  });

  app.get("/stats", (request, response) => {
    response.json({ database_queries: database.queries });
  });

  app.use((error, request, response, next) => {
    if (response.headersSent) return next(error);
    if (!error.expose) console.error(error);
    response.status(error.status ?? 500).json({ error: error.expose ? error.message : "something failed here" });
  });

  return app;
}
