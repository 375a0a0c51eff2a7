#!/usr/bin/env bash
# Whether a request of a server program, made with undici's fetch (which is Node's own `fetch`), looks like a browser's.
#
# Guess, written before the first run: it sends no Sec-Fetch header at all, since those describe how a page came to ask and there is
# no page; so a server that refuses what carries Sec-Fetch headers refuses browsers alone.
#
# Seen: it sends `sec-fetch-mode: cors`, without the Site, Dest and User that browsers send beside it, and a program that sets the
# header itself, to whatever, gets `cors` all the same. `undici.request` sends none.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --prefix . undici@7.16.0
cat > ask.mjs <<'JS'
import http from "node:http";
import assert from "node:assert";
import { createRequire } from "node:module";
const require = createRequire(process.cwd() + "/");
const { fetch, request } = require("undici");
const server = http.createServer((asked, answer) => {
  const names = Object.keys(asked.headers).filter((name) => name.startsWith("sec-fetch"));
  answer.end(JSON.stringify(names.map((name) => `${name}: ${asked.headers[name]}`)));
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const url = `http://127.0.0.1:${server.address().port}/`;
const plain = await (await fetch(url)).json();
const own = await (await fetch(url, { headers: { "sec-fetch-mode": "navigate" } })).json();
const bare = await (await request(url)).body.json();
server.close();
console.log("undici", require("undici/package.json").version);
console.log("expected: []");
console.log("seen:    ", JSON.stringify(plain), "and with a header of the program's own", JSON.stringify(own));
console.log("undici.request:", JSON.stringify(bare));
assert.deepStrictEqual(plain, ["sec-fetch-mode: cors"]);
assert.deepStrictEqual(own, ["sec-fetch-mode: cors"]);
assert.deepStrictEqual(bare, []);
JS
node ask.mjs
