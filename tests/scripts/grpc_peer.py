"""A gRPC server, or a client that makes calls to it and reports how they ended.

    grpc_peer.py server PORT
    grpc_peer.py client ADDRESS:PORT CALLS

Messages are bytes as they are: the first one of a call is the number of the status it shall end with.
"""

import collections
import concurrent.futures
import itertools
import sys
import threading

import grpc

from peer import DEADLINE, report

SERVICE = "shop.Cart"
# As many as wait for their clients at the same time, and more.
SERVERS = 64
CLIENTS = 16
# The client speaks through so many connections.
CHANNELS = 4
# How often a call of each kind is given up by the client, and how often its deadline passes.
GIVEN_UP = 200
LATE = 40
# Long enough for a call to have begun, whatever else this machine does.
PATIENCE = 3
CODES = {code.value[0]: code for code in grpc.StatusCode}


def finish(first, context):
    """Ends a call with the status it asks for."""
    code = CODES[int(first)]
    if code is not grpc.StatusCode.OK:
        context.abort(code, "as asked")


def wait_for_end(context):
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait(DEADLINE)


def add(request, context):
    finish(request, context)
    return b"added"


def fill(requests, context):
    # One that fails does so before its client has said everything.
    finish(next(requests), context)
    return str(sum(len(request) for request in requests)).encode()


def show(request, context):
    yield from [b"an item"] * 3
    finish(request, context)


def sleep(_, context):
    wait_for_end(context)
    return b"too late"


def watch(_, context):
    yield b"the first item"
    wait_for_end(context)


def serve(port):
    handlers = {
        "Add": grpc.unary_unary_rpc_method_handler(add),
        "Fill": grpc.stream_unary_rpc_method_handler(fill),
        "Show": grpc.unary_stream_rpc_method_handler(show),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
    }
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(SERVERS))
    handler = grpc.method_handlers_generic_handler(SERVICE, handlers)
    server.add_generic_rpc_handlers((handler,))
    if not server.add_insecure_port(f"0.0.0.0:{port}"):
        sys.exit(f"port {port} is not free")
    server.start()
    server.wait_for_termination()


class Client:
    """Each method makes one call, and returns how it ended."""

    def __init__(self, address):
        # Else those to the same server share a connection.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        channels = [grpc.insecure_channel(address, options) for _ in range(CHANNELS)]
        self.channels = itertools.cycle(channels)

    def add(self, code):
        call = next(self.channels).unary_unary(f"/{SERVICE}/Add")
        return call.future(code, timeout=DEADLINE).code().name

    def fill(self, code):
        call = next(self.channels).stream_unary(f"/{SERVICE}/Fill")
        requests = [code] + [b"item" * 100] * 20
        return call.future(iter(requests), timeout=DEADLINE).code().name

    def show(self, code):
        items = next(self.channels).unary_stream(f"/{SERVICE}/Show")(code, timeout=DEADLINE)
        try:
            assert list(items) == [b"an item"] * 3
        except grpc.RpcError:
            pass
        return items.code().name

    def sleep(self, _):
        call = next(self.channels).unary_unary(f"/{SERVICE}/Sleep")
        code = call.future(b"0", timeout=PATIENCE).code()
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED, code
        return "late"

    def watch(self, _):
        items = next(self.channels).unary_stream(f"/{SERVICE}/Watch")(b"0", timeout=DEADLINE)
        assert next(items) == b"the first item"
        items.cancel()
        return "given_up"


def ask(address, calls):
    client = Client(address)
    kinds = itertools.cycle([client.add, client.fill, client.show])
    # Half of the calls succeed, and each status has its turn with each kind.
    codes = itertools.cycle(code for other in CODES for code in (other, 0))
    plan = list(zip(itertools.islice(kinds, calls), codes))
    plan += [(client.watch, 0)] * GIVEN_UP + [(client.sleep, 0)] * LATE
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        ends = pool.map(lambda call: call[0](str(call[1]).encode()), plan)
        report(ends=collections.Counter(ends))


role, where, *rest = sys.argv[1:]
if role == "server":
    serve(where)
else:
    ask(where, int(*rest))
