// The same load for k6 (k6.io): PORT=8080 k6 run scripts/load-k6.js
import http from "k6/http";
import { check } from "k6";

const port = __ENV.PORT || 8080;
const orders = __ENV.N || 500;

export const options = {
  vus: Number(__ENV.CLIENTS || 12),
  duration: __ENV.DURATION || "30s",
  thresholds: { checks: ["rate>0.99"] },
};

export default function () {
  const answer = http.get(`http://127.0.0.1:${port}/data?n=${orders}`);
  check(answer, { "status is 200": (r) => r.status === 200 });
}
