"""What sshj does for JetBrains Gateway, by paramiko: a command with a terminal
and joined output, a worker uploaded by sftp, a port forwarded to it."""
import sys

import paramiko

host, port, user, key, known = sys.argv[1:]
c = paramiko.SSHClient()
c.load_host_keys(known)
c.connect(host, int(port), user, key_filename=key, allow_agent=False, look_for_keys=False, timeout=60, banner_timeout=60, auth_timeout=60)
t = c.get_transport()

ch = t.open_session()
ch.get_pty("vt100", 80, 24)
ch.set_combine_stderr(True)
ch.exec_command("uname -sm")
out = b""
while data := ch.recv(4096):
    out += data
assert ch.recv_exit_status() == 0 and out.startswith(b"Linux "), out

worker = b"""import http.server
s = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(s.server_port, flush=True)
s.serve_forever()
"""
f = c.open_sftp()
with f.open("/workspace/worker.py", "wb") as w:
    w.write(worker)
run = t.open_session()
run.exec_command("cd /workspace && exec python3 worker.py")
line = b""
while not line.endswith(b"\n"):
    data = run.recv(100)
    assert data, run.recv_stderr(4096)
    line += data
inner = int(line)
for _ in range(4):
    fwd = t.open_channel("direct-tcpip", ("127.0.0.1", inner), ("127.0.0.1", 40000))
    fwd.sendall(b"GET /worker.py HTTP/1.0\r\n\r\n")
    got = b""
    while data := fwd.recv(65536):
        got += data
    assert got.endswith(worker), got[-200:]
run.close()
f.remove("/workspace/worker.py")
c.close()
