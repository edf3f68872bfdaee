"""asyncssh: one command, stdin passed on, its exit code ours."""
import asyncio
import sys

import asyncssh

host, port, user, key, known, command = sys.argv[1:]


async def main():
    async with asyncssh.connect(host, int(port), username=user, client_keys=[key], known_hosts=known, agent_path=None, config=None, login_timeout=60, family=2) as c:
        r = await c.run(command, input=sys.stdin.buffer.read(), encoding=None)
        sys.stdout.buffer.write(r.stdout)
        sys.stdout.flush()
        sys.stderr.buffer.write(r.stderr)
        sys.stderr.flush()
        return r.exit_status


sys.exit(asyncio.run(main()))
