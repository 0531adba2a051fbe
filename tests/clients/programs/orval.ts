// Plays with the client that orval makes; its addresses are relative, so fetch gets the server before them.
import { getExecutionLogsExecutionId, postRunBasket, type Execution } from "./generated/orval";

const send = globalThis.fetch;
globalThis.fetch = (path, options) => send(`${process.argv[2]}${path}`, options);

async function submit(basket_name: string, input_data: Record<string, unknown>) {
  return postRunBasket(
    { basket_name, input_data, tags: ["generated"] },
    { headers: { "Idempotency-Key": `play-${Math.random()}` } },
  );
}

async function waitFor(basket: string, input: Record<string, unknown>): Promise<Execution> {
  const accepted = await submit(basket, input);
  if (accepted.status !== 202) throw new Error(`status ${accepted.status}`);
  let etag = "";
  for (;;) {
    const headers: Record<string, string> = etag ? { "If-None-Match": etag } : {};
    const poll = await getExecutionLogsExecutionId(accepted.data.execution_id, { wait: 2 }, { headers });
    if (poll.status === 200 && poll.data.done) return poll.data as Execution;
    if (poll.status === 200) etag = poll.headers.get("etag") ?? "";
    await new Promise((done) => setTimeout(done, Number(poll.headers.get("retry-after")) * 1000));
  }
}

async function main() {
  const income = { transactions: [{ id: 1, amount: 1000, description: "Income" }] };
  const completed = await waitFor("working_test", income);
  console.log(completed.status, (completed.result as { analysis: { total: number } }).analysis.total);
  const failed = await waitFor("simulate", { script: ["failed:card_declined"] });
  console.log(failed.status, failed.error?.error_code);
  const refused = await submit("no_such_basket", {});
  console.log("refused", refused.status === 404 ? refused.data.error_code : refused.status);
}

main();
