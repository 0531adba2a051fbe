// Plays with the types that openapi-typescript makes and the client openapi-fetch.
import createClient from "openapi-fetch";
import type { components, paths } from "./generated/openapi-typescript";

const client = createClient<paths>({ baseUrl: process.argv[2] });
type Run = components["schemas"]["Execution"];

// `tags` and `wait` have their types, and nothing with a default is required.
async function submit(basket_name: string, input_data: Record<string, unknown>) {
  return client.POST("/run-basket", {
    params: { header: { "Idempotency-Key": `play-${Math.random()}` } },
    body: { basket_name, input_data, tags: ["generated"] },
  });
}

async function waitFor(basket: string, input: Record<string, unknown>): Promise<Run> {
  const { data: accepted, error } = await submit(basket, input);
  if (!accepted) throw new Error(error?.detail);
  let etag = "";
  for (;;) {
    const { data, response } = await client.GET("/execution-logs/{execution_id}", {
      params: {
        path: { execution_id: accepted.execution_id },
        query: { wait: 2 },
        header: etag ? { "If-None-Match": etag } : {},
      },
    });
    if (data?.done) return data as Run;
    if (data) etag = response.headers.get("etag") ?? "";
    await new Promise((done) => setTimeout(done, Number(response.headers.get("retry-after")) * 1000));
  }
}

async function main() {
  const income = { transactions: [{ id: 1, amount: 1000, description: "Income" }] };
  const completed = await waitFor("working_test", income);
  console.log(completed.status, (completed.result as { analysis: { total: number } }).analysis.total);
  const failed = await waitFor("simulate", { script: ["failed:card_declined"] });
  console.log(failed.status, failed.error?.error_code);
  console.log("refused", (await submit("no_such_basket", {})).error?.error_code);
  // Compiled only: what has a default may be left out.
  void (() => client.POST("/create-basket", { body: { name: "daily", agents: ["echo"] } }));
  void (() => client.POST("/run-agent", { body: { agent_name: "echo", input_data: {} } }));
  void (() => client.POST("/executions/poll", { body: { items: [{ execution_id: "" }] } }));
  // @ts-expect-error the name of the key is basket_name
  const misspelt: components["schemas"]["RunBasket"] = { basket_nam: "daily" };
  void misspelt;
}

main();
