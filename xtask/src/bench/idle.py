import resource, socket, sys, time

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
request = b"GET /empty HTTP/1.1\r\nHost: idle\r\n\r\n"
connections = []
try:
    for _ in range(count):
        connection = socket.create_connection((host, port), timeout=10)
        connection.sendall(request)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            piece = connection.recv(4096)
            if not piece:
                raise OSError("ended")
            answer += piece
        connections.append(connection)
except OSError as error:
    print(error, file=sys.stderr)
print(len(connections), flush=True)
time.sleep(3600)
