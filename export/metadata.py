"""The contract in a model's metadata."""

import onnx
from onnx import helper

from carousel.contract import METADATA_KEY, Contract, ContractError


def set_contract(model: onnx.ModelProto, contract: Contract) -> None:
    """Make `contract` the one the model carries, and its only metadata."""
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})


def contract_of(model: onnx.ModelProto) -> Contract:
    """The contract that a model carries.

    Raises:
        ContractError: it is missing or damaged.
    """
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if len(texts) != 1:
        raise ContractError(f"expected one {METADATA_KEY!r} in the model's metadata, found {len(texts)}")
    return Contract.from_json(texts[0])
