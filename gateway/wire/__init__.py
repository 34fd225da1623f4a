"""The Open Inference Protocol's messages as values, the same for REST and gRPC."""
