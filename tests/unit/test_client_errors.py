import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from carousel.client.backoff import FIRST_S, LONGEST_S, Backoff
from carousel.client.errors import (
    ERRORS,
    IndexUnexpectedError,
    Refusal,
    ServerFailedError,
    ServerUnreachableError,
)
from carousel.wire.carousel_pb2 import ChunkError, Reason


def test_every_reason_of_the_wire_has_its_error() -> None:
    assert set(ERRORS) == set(Reason.values())


@pytest.mark.parametrize("reason", Reason.values())
def test_every_error_carries_its_reason(reason: int) -> None:
    error = Refusal(13, reason, "why").to_error()
    assert type(error) is ERRORS[reason]
    assert error.reason == reason
    assert str(error) == "why"


def test_a_reason_of_a_newer_server_is_the_servers_failure() -> None:
    assert type(Refusal(13, 999, "new").to_error()) is ServerFailedError


def test_only_what_passes_is_tried_again() -> None:
    passing = {reason for reason in Reason.values() if Refusal(0, reason, "").passing}
    assert passing == {Reason.WINDOW_FULL, Reason.QUEUE_FULL, Reason.DRAINING}
    codes = {code for code in grpc.StatusCode if Refusal(code.value[0], 0, "").passing}
    assert codes == {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_an_error_in_a_frame_keeps_the_index_expected() -> None:
    told = ChunkError(position=3, code=10, reason=Reason.INDEX_UNEXPECTED, message="gap", expected_index=7)
    error = Refusal.of_chunk(told).to_error()
    assert isinstance(error, IndexUnexpectedError)
    assert error.expected_index == 7


def test_a_status_is_read_with_its_trailing_metadata() -> None:
    trailing = Metadata(("carousel-reason", "INDEX_UNEXPECTED"), ("carousel-expected-index", "7"))
    refusal = Refusal.of_call(AioRpcError(grpc.StatusCode.ABORTED, Metadata(), trailing, "gap"))
    assert refusal == (10, Reason.INDEX_UNEXPECTED, "gap", 7)


def test_a_status_that_is_not_ours_is_unreachable_or_a_failure() -> None:
    for code, kind in (
        (grpc.StatusCode.UNAVAILABLE, ServerUnreachableError),
        (grpc.StatusCode.UNIMPLEMENTED, ServerFailedError),
    ):
        refusal = Refusal.of_call(
            AioRpcError(
                code,
                Metadata(),
                Metadata(
                    ("carousel-reason", "NONSENSE"),
                ),
                "",
            )
        )
        assert type(refusal.to_error()) is kind
        assert refusal.message == code.name


def test_delays_double_up_to_a_bound_and_start_anew() -> None:
    backoff = Backoff(lambda: 0.0)
    delays = [backoff.next_s() for _ in range(30)]
    assert delays[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert delays[-1] == LONGEST_S
    backoff.reset()
    assert backoff.next_s() == FIRST_S


def test_chance_shortens_a_delay_by_half_at_most() -> None:
    assert Backoff(lambda: 1.0).next_s() == FIRST_S / 2
