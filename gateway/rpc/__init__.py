"""The Open Inference Protocol v2 over gRPC: `inference.GRPCInferenceService`, on the server's loop.

Messages come from `tritonclient.grpc`, which carries them compiled. Nothing outside this package
imports it or `grpc`, and this package is imported only where the port is opened: the extra `grpc`
may not be installed.

    calls       the frame of every call: who calls, its message in time and within its limit, errors
    messages    requests and answers between protobuf and the values that REST reads too
    long_messages  long requests, whose tensors are views
    infer       one infer request: message in, message out
    stream      ModelStreamInfer: many of them, answered in order
    models      what is not inference: health, metadata, statistics, the repository
    problems    our errors as gRPC statuses
    server      the port
"""
