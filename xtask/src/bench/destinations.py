import ipaddress, json, socket, sys, time

first, count, port = ipaddress.IPv4Address(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
request = b"GET /empty HTTP/1.1\r\nHost: many\r\nConnection: close\r\n\r\n"
tenth = count // 10
marks = []
for number in range(count):
    if number % tenth == 0:
        marks.append(time.monotonic())
    with socket.create_connection((str(first + number), port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 204"), answer
marks.append(time.monotonic())
print(json.dumps([tenth / (marks[1] - marks[0]), tenth / (marks[-1] - marks[-2])]))
