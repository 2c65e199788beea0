// usage: node src/server.js     (CACHE: see cache.js; PORT, default 3000; DATABASE, default products.db)
import { createApp } from "./app.js";
import { openCache } from "./cache.js";
import { openDatabase } from "./database.js";

const database = openDatabase(process.env.DATABASE ?? "products.db");
const cache = openCache();
const server = createApp(database, cache).listen(Number(process.env.PORT ?? 3000), "127.0.0.1", (error) => {
  if (error) throw error;
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});

function stop() {
  server.close();
  server.closeAllConnections();
  cache.close();
  database.close();
}

process.on("SIGTERM", stop);
process.on("SIGINT", stop);
