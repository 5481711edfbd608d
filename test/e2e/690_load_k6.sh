#!/bin/sh
# scripts/load-k6.js asks the exercise as k6 would have it: node runs it, with modules of k6's names.
# shellcheck source=test/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
needs node curl
mkdir -p "$TMP/node_modules/k6"
cat >"$TMP/node_modules/k6/package.json" <<'END'
{"name": "k6", "type": "module", "exports": {".": "./index.js", "./http": "./http.js"}}
END
cat >"$TMP/node_modules/k6/index.js" <<'END'
export const check = (value, claims) => {
  for (const [name, holds] of Object.entries(claims)) console.log(name + ": " + holds(value));
};
END
cat >"$TMP/node_modules/k6/http.js" <<'END'
import { spawnSync } from "node:child_process";
const get = (url) => {
  const curl = spawnSync("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", url]);
  return { status: Number(curl.stdout), url };
};
export default { get };
END
cp "$ROOT/scripts/load-k6.js" "$TMP/load.mjs"
cat >"$TMP/run.mjs" <<'END'
globalThis.__ENV = process.env;
const load = await import("./load.mjs");
console.log(JSON.stringify(load.options));
load.default();
END
port=$(free_port)
"$O/test/prog/exercise" "$port" >/dev/null 2>&1 &
started="$started $!"
check "the exercise answers" within 10 answers "http://127.0.0.1:$port/data?n=1"
is "its options, and a request" "$(PORT=$port node "$TMP/run.mjs" 2>&1)" \
    '{"vus":12,"duration":"30s","thresholds":{"checks":["rate>0.99"]}}
status is 200: true'
is "options from the environment; nobody there" \
    "$(PORT=1 CLIENTS=3 DURATION=2s node "$TMP/run.mjs" 2>&1)" \
    '{"vus":3,"duration":"2s","thresholds":{"checks":["rate>0.99"]}}
status is 200: false'
done_testing
