"""A caller that knows nothing of bearerd but its address: what it needs to know it asks by reflection.

It tells what it saw as one JSON document a line, and does what it is told to by its arguments:

    client.py ADDRESS get
    client.py ADDRESS watch NUMBER [STREAMS]    so many messages; further streams beside it, read and not told
    client.py ADDRESS report                    watches, reports what comes first, and goes on until its successor is there
    client.py ADDRESS health                    watches until it is serving
    client.py ADDRESS errors
"""

import json
import sys
import threading

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

SERVICE = "bearerd.v1.TokenService"


def tell(**what):
    print(json.dumps(what), flush=True)


class Tokens:
    """The methods of the service, as reflection describes them."""

    def __init__(self, channel):
        database = ProtoReflectionDescriptorDatabase(channel)
        tell(services=sorted(database.get_services()))
        self.channel = channel
        self.service = DescriptorPool(database).FindServiceByName(SERVICE)

    def call(self, name, **fields):
        method = self.service.FindMethodByName(name)
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = kind(
            f"/{SERVICE}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request(**fields), timeout=240)

    def outcome(self, response):
        field = response.DESCRIPTOR.fields_by_name["outcome"]
        return field.enum_type.values_by_number[response.outcome].name


def shown(token):
    life = token.expires_at.ToNanoseconds() - token.issued_at.ToNanoseconds()
    return {
        "token": token.access_token,
        "generation": token.generation,
        "life": life / 1e9,
        "suspect": token.suspect,
    }


def watch(tokens, number, streams):
    beside = []
    for _ in range(streams - 1):
        stream = tokens.call("WatchToken")
        next(stream)
        drained = threading.Thread(target=lambda it=stream: [None for _ in it], daemon=True)
        drained.start()
        beside.append(drained)
    stream = tokens.call("WatchToken")
    for seen, message in enumerate(stream, 1):
        tell(**shown(message.token))
        if seen == number:
            stream.cancel()
            return


def report(tokens):
    reported = None
    for message in tokens.call("WatchToken"):
        tell(**shown(message.token))
        if reported is None:
            reported = message.token.generation
            response = tokens.call("ReportRejected", generation=reported, status=401)
            tell(outcome=tokens.outcome(response))
        elif message.token.generation > reported:
            return


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    for answer in stub.Watch(request, timeout=120):
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        tell(health=name)
        if name == "SERVING":
            return


def errors(tokens, channel):
    stub = health_pb2_grpc.HealthStub(channel)
    no_such = channel.unary_unary(f"/{SERVICE}/No", request_serializer=bytes)
    packed = channel.unary_unary(f"/{SERVICE}/GetToken", request_serializer=bytes)
    long = "x" * 9000
    for attempt in (
        lambda: tokens.call("GetToken"),
        lambda: tokens.call("ReportRejected", generation=1, status=4),
        lambda: tokens.call("ReportRejected", generation=1, status=401, message=long),
        lambda: stub.Check(health_pb2.HealthCheckRequest(service="no")),
        lambda: no_such(b""),
        lambda: channel.unary_unary("/no.Such/No", request_serializer=bytes)(b""),
        lambda: packed(b"", compression=grpc.Compression.Gzip),
        lambda: no_such(b"", metadata=[("x-forwarded-for", "192.0.2.1")]),
    ):
        try:
            attempt()
            tell(code="OK")
        except grpc.RpcError as error:
            told = {"code": error.code().name, "message": error.details()}
            for detail in rpc_status.from_call(error).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    told.update(domain=info.domain, reason=info.reason)
                if detail.Unpack(retry):
                    told.update(retry=retry.retry_delay.ToSeconds())
            tell(**told)


def main():
    address, what, *numbers = sys.argv[1:]
    numbers = [int(it) for it in numbers]
    # grpcio would name the socket's path in :authority, which is none: h2 refuses the call before bearerd sees it.
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(address, options) as channel:
        if what == "health":
            return health(channel)
        tokens = Tokens(channel)
        if what == "get":
            tell(**shown(tokens.call("GetToken").token))
        elif what == "watch":
            watch(tokens, *(numbers + [1])[:2])
        elif what == "report":
            report(tokens)
        elif what == "errors":
            errors(tokens, channel)


main()
