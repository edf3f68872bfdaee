"""paramiko: a file there and back by sftp, and what one does with files."""
import stat
import sys

import paramiko

host, port, user, key, known, up, down = sys.argv[1:]
c = paramiko.SSHClient()
c.load_host_keys(known)
c.connect(host, int(port), user, key_filename=key, allow_agent=False, look_for_keys=False, timeout=60, banner_timeout=60, auth_timeout=60)
f = c.open_sftp()
f.mkdir("/workspace/p")
f.put(up, "/workspace/p/a")
f.rename("/workspace/p/a", "/workspace/p/b")
f.chmod("/workspace/p/b", 0o600)
assert stat.S_IMODE(f.stat("/workspace/p/b").st_mode) == 0o600
f.symlink("/workspace/p/b", "/workspace/p/l")
assert f.readlink("/workspace/p/l") == "/workspace/p/b", f.readlink("/workspace/p/l")
assert sorted(f.listdir("/workspace/p")) == ["b", "l"]
f.get("/workspace/p/b", down)
f.remove("/workspace/p/l")
f.remove("/workspace/p/b")
f.rmdir("/workspace/p")
try:
    f.stat("/workspace/p")
    sys.exit("it is still there")
except FileNotFoundError:
    pass
c.close()
