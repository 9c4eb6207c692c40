"""Sessions that begin with what a priming graph makes of an input: decoders, with what their encoder has read."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from service.beginning import Beginning, Begun, Planes, begin_one
from service.engine import Engine
from service.errors import InvalidInputError, ModelDiffersError, StateNotFiniteError
from service.finite import all_finite
from service.repository import ServedModel
from service.tombstones import Key
from service.whole_inputs import WholeInputs, whole_inputs

if TYPE_CHECKING:
    from carousel.wire import carousel_pb2 as pb


def primed_inputs(model: ServedModel, given: "Sequence[pb.Array]") -> WholeInputs | None:
    """The inputs of a model's priming graph; None: it has no such graph, and nothing came.

    Raises:
        ModelDiffersError: it has none and something came, or it has one and nothing came.
        InvalidInputError: the inputs do not fit the contract, or are those of several sessions.
    """
    if model.priming is None:
        if given:
            raise ModelDiffersError(f"priming: expected none, for model {model.key!r} has no priming graph")
        return None
    contract = model.priming.contract
    if not given:
        names = ", ".join(port.name for port in contract.inputs)
        raise ModelDiffersError(
            f"model {model.key!r} needs priming inputs ({names}) or a snapshot, came neither"
        )
    inputs = whole_inputs(contract, given, contract.max_steps)
    if inputs.sizes["batch"] != 1:
        raise InvalidInputError(f"priming: expected one sequence, came {inputs.sizes['batch']}")
    return inputs


async def open_primed(
    engine: Engine,
    name: Key,
    ttl_us: int,
    given: "Sequence[pb.Array]",
    find_model: Callable[[], ServedModel],
    *,
    pinned: bool,
) -> Begun:
    """Start a session with what a priming graph makes of its inputs.

    Args:
        engine: Where it is to live.
        name: Its owner and id.
        ttl_us: Its time-to-live.
        given: The inputs, which `primed_inputs` has let pass.
        find_model: Finds the model, also after another version has taken over.
        pinned: Whether it asked for its version.

    Raises:
        ServiceError: its id is taken, there is no room, or the inputs do not fit the version that took over.
        StateNotFiniteError: the graph gives NaN or infinity.
        BackendFailedError: it cannot be run.
    """

    def look_up() -> Beginning:
        model = find_model()
        inputs = primed_inputs(model, given)  # again: it may be another version
        assert inputs is not None
        return Beginning(model, ttl_us, 0, lambda: _planes(model, inputs))

    return await begin_one(engine, name, look_up, find_model, pinned=pinned)


def _planes(model: ServedModel, inputs: WholeInputs) -> Planes:
    """Run the graph; on the thread that owns rows."""
    assert model.priming is not None
    ports, ran = model.priming.contract.outputs, model.priming.run(inputs)
    if not all(map(all_finite, ran.outputs)):
        raise StateNotFiniteError("priming would make the state NaN or infinite; no session was opened")
    made = {port.name: array[0] for port, array in zip(ports, ran.outputs, strict=True)}
    return tuple(made[plane.input] for plane in model.contract.planes)
