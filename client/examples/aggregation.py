"""Aggregation: one basket for each account, all at the same time, and one sum of their results."""

from __future__ import annotations

from bucket_client import Bucket, BucketError

ACCOUNTS = {"current": [1000, -400, -50], "savings": [200, 200], "card": [-80, -20, -10]}


def main() -> None:
    """Submit all accounts in one request, wait for all of them, and print each total and the sum."""
    items = [
        {
            "basket_name": "working_test",
            "input_data": {"transactions": [{"id": n, "amount": amount} for n, amount in enumerate(amounts)]},
            "reference": account,
        }
        for account, amounts in ACCOUNTS.items()
    ]
    with Bucket() as bucket:
        submitted = []
        for account, outcome in zip(ACCOUNTS, bucket.submit_many(items), strict=True):
            if isinstance(outcome, BucketError):  # one that was refused does not stop the others
                print(account, "refused:", outcome)
            else:
                submitted.append(outcome.execution_id)
        total = 0
        for run in bucket.wait_many(submitted, timeout=60):
            if run.is_completed:
                print(run.reference, run.result["analysis"]["total"])
                total += run.result["analysis"]["total"]
            else:
                print(run.reference, "failed:", run.error)
    print("sum", total)


if __name__ == "__main__":
    main()
