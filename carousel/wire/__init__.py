"""The wire format: code generated from `protos/` (`make protos`) and the columnar frames over it."""
