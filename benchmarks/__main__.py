"""`make bench`: everything that docs/speed.md quotes, one part after the other; about ten minutes."""

from benchmarks import calls, core, introspect, log_review, memory, token


def main() -> None:
    print("The brokered call, against a plain server that calls the same backend with a static token\n")
    calls.compare(rounds=5, calls=2000)
    print("\nThe core: authenticate, decide, log, mint, verify, spend; all durable\n")
    core.main()
    print("\nExchanges at /token\n")
    token.main()
    print("\nIntrospection that spends\n")
    introspect.main()
    print("\nMemory of `broker serve`\n")
    memory.main()
    print("\nA log of a million records\n")
    log_review.main(1_000_000)


if __name__ == "__main__":
    main()
