"""All nodes of a graph, those in the bodies of its loops included."""

from collections.abc import Iterator

import onnx


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, a loop before its body."""
    for node in graph.node:
        yield node
        for body in bodies_of(node):
            yield from nodes_of(body)


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that a node reads, in the bodies of loops, too."""
    for node in nodes_of(graph):
        yield from node.input


def attributes_of(node: onnx.NodeProto) -> dict[str, object]:
    """A node's attributes by name; text is bytes."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
