"""Carousel's ground floor: what the service, its clients and the trainers share.

`carousel.contract` is what a model's graph promises, `carousel.wire` the format on the network and
`carousel.client` the Python client. Nothing here needs torch, onnx or onnxruntime.
"""
