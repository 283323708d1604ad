from millrace.relay.load.counters import MAX_REFUSALS, REFUSALS, Counters


def refusals(counters: Counters) -> dict[str, int]:
    return {name: value for name, value in counters.values.items() if name.startswith("millrace_http_refusals_total{")}


def test_refusals_are_counted_by_status_and_reason() -> None:
    counters = Counters()
    counters.refused(503, "sessions-full")
    counters.refused(400, "no-media")
    counters.refused(400, "no-media")
    found = refusals(counters)
    assert found['millrace_http_refusals_total{status="503",reason="sessions-full"}'] == 1
    assert found['millrace_http_refusals_total{status="400",reason="no-media"}'] == 2
    assert found['millrace_http_refusals_total{status="503",reason="overloaded"}'] == 0, "a rate needs its zero"


def test_kinds_of_refusals_are_bounded() -> None:
    counters = Counters()
    for number in range(MAX_REFUSALS + 10):
        counters.refused(400, f"reason-{number}")
    found = refusals(counters)
    assert len(found) == MAX_REFUSALS + 1
    assert found['millrace_http_refusals_total{status="400",reason="other"}'] == 10 + len(REFUSALS)
