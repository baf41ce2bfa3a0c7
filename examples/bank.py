"""A bank that loses no cent: `python examples/bank.py [--address auto] [--transfers 200]`.

Accounts are durable actors: the state of each is stored in the same step as the result of each call. Meanwhile their
processes are killed, again and again. Every call takes effect exactly once, so the sum stays what it was.
"""

from __future__ import annotations

import argparse
import os
import random
import signal

import rabbitry

NAMES = ("Ada", "Grace", "Alan", "Edsger")
START = 1000


@rabbitry.remote(durable=True, max_restarts=-1, max_task_retries=-1, num_cpus=0.1)
class Account:
    """The money of one customer."""

    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.calls = 0

    def change(self, amount: int) -> int:
        """Pay in, or out if the amount is negative; return the balance."""
        self.balance += amount
        self.calls += 1
        return self.balance

    def crash(self, once: str) -> None:
        """Kill this process in the middle of a call. The call is repeated in the next process, and then returns."""
        if rabbitry.get(rabbitry.get_actor("referee").first.remote(once)):
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(self) -> tuple[int, int]:
        """Return the balance and the number of changes."""
        return self.balance, self.calls


@rabbitry.remote(num_cpus=0)
class Referee:
    """Remembers which crashes there have been: a call that is repeated must not crash again."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def first(self, once: str) -> bool:
        """Return True if `once` is new."""
        new = once not in self.seen
        self.seen.add(once)
        return new

    def count(self) -> int:
        """Return how many crashes there were."""
        return len(self.seen)


def main() -> None:
    """Transfer money at random while processes die; add up."""
    parser = argparse.ArgumentParser(description="Durable accounts whose processes are killed.")
    parser.add_argument("--address", help="of a cluster (default: one on this machine)")
    parser.add_argument("--transfers", type=int, default=200, help="between accounts chosen at random")
    parser.add_argument("--crashes", type=int, default=5, help="of processes meanwhile")
    options = parser.parse_args()
    at_random = random.Random(3)
    expected = dict.fromkeys(NAMES, START)
    with rabbitry.init(options.address):
        referee = Referee.options(name="referee").remote()
        accounts = {name: Account.remote(START) for name in NAMES}
        calls = []
        for number in range(options.transfers):
            source, target = at_random.sample(NAMES, 2)
            amount = at_random.randrange(1, 50)
            expected[source] -= amount
            expected[target] += amount
            calls += [accounts[source].change.remote(-amount), accounts[target].change.remote(amount)]
            if number % max(1, options.transfers // options.crashes) == 0:
                calls.append(accounts[source].crash.remote(f"crash {number}"))
        rabbitry.get(calls)
        crashes = rabbitry.get(referee.count.remote())
        statements = {name: rabbitry.get(account.statement.remote()) for name, account in accounts.items()}

    print(f"{options.transfers} transfers, {crashes} processes killed\n")
    print(f"{'account':<10}{'changes':>9}{'balance':>9}{'expected':>10}")
    for name, (balance, changes) in statements.items():
        print(f"{name:<10}{changes:>9}{balance:>9}{expected[name]:>10}")
    total = sum(balance for balance, _ in statements.values())
    print(f"{'all':<10}{sum(changes for _, changes in statements.values()):>9}{total:>9}{START * len(NAMES):>10}")
    if {name: balance for name, (balance, _) in statements.items()} != expected:
        raise SystemExit("money was lost or made")


if __name__ == "__main__":
    main()
