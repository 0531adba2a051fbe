// Plays with the client that @hey-api/openapi-ts makes.
import { client } from "./generated/hey-api/client.gen";
import { getExecutionLogsExecutionId, postRunBasket } from "./generated/hey-api/sdk.gen";
import type { Execution } from "./generated/hey-api/types.gen";

client.setConfig({ baseUrl: process.argv[2] });

async function submit(basket_name: string, input_data: Record<string, unknown>) {
  return postRunBasket({
    headers: { "Idempotency-Key": `play-${Math.random()}` },
    body: { basket_name, input_data, tags: ["generated"] },
  });
}

async function waitFor(basket: string, input: Record<string, unknown>): Promise<Execution> {
  const { data: accepted, error } = await submit(basket, input);
  if (!accepted) throw new Error(error?.detail);
  let etag = "";
  for (;;) {
    const { data, response } = await getExecutionLogsExecutionId({
      path: { execution_id: accepted.execution_id },
      query: { wait: 2 },
      headers: etag ? { "If-None-Match": etag } : {},
    });
    if (data?.done) return data as Execution;
    if (data) etag = response?.headers.get("etag") ?? "";
    await new Promise((done) => setTimeout(done, Number(response?.headers.get("retry-after")) * 1000));
  }
}

async function main() {
  const income = { transactions: [{ id: 1, amount: 1000, description: "Income" }] };
  const completed = await waitFor("working_test", income);
  console.log(completed.status, (completed.result as { analysis: { total: number } }).analysis.total);
  const failed = await waitFor("simulate", { script: ["failed:card_declined"] });
  console.log(failed.status, failed.error?.error_code);
  console.log("refused", (await submit("no_such_basket", {})).error?.error_code);
}

main();
