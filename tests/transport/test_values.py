"""The values of the seam."""

from nudgescribe_async.transport import Headers, Request


def test_headers_are_equal_whatever_the_case_of_their_names() -> None:
    one, other = Headers({"X-One": "1", "Two": "2"}), Headers([("two", "2"), ("x-one", "1")])
    assert one == other
    assert hash(one) == hash(other)
    assert one != Headers({"X-One": "1"})
    assert one != {"X-One": "1", "Two": "2"}


def test_requests_with_equal_headers_are_equal_and_hash_alike() -> None:
    one = Request(method="GET", url="https://example.com", headers={"A": "1"})
    other = Request(method="GET", url="https://example.com", headers={"a": "1"})
    assert one == other
    assert hash(one) == hash(other)
