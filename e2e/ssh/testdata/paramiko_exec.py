"""paramiko: one command, stdin passed on, its exit code ours."""
import sys
import threading

import paramiko

host, port, user, key, known, command = sys.argv[1:]
c = paramiko.SSHClient()
c.load_host_keys(known)
c.connect(host, int(port), user, key_filename=key, allow_agent=False, look_for_keys=False, timeout=60, banner_timeout=60, auth_timeout=60)
ch = c.get_transport().open_session()
ch.exec_command(command)


def feed():
    while data := sys.stdin.buffer.read1(32768):
        ch.sendall(data)
    ch.shutdown_write()


def drain(read, out):
    while data := read(32768):
        out.write(data)
    out.flush()


threads = [
    threading.Thread(target=feed, daemon=True),
    threading.Thread(target=drain, args=(ch.recv, sys.stdout.buffer)),
    threading.Thread(target=drain, args=(ch.recv_stderr, sys.stderr.buffer)),
]
for t in threads:
    t.start()
for t in threads[1:]:
    t.join()
code = ch.recv_exit_status()
c.close()
sys.exit(code)
