"""asyncssh: a file there and back by sftp."""
import asyncio
import sys

import asyncssh

host, port, user, key, known, up, down = sys.argv[1:]


async def main():
    async with asyncssh.connect(host, int(port), username=user, client_keys=[key], known_hosts=known, agent_path=None, config=None, login_timeout=60, family=2) as c:
        async with c.start_sftp_client() as f:
            await f.put(up, "/workspace/asyncssh.bin")
            await f.get("/workspace/asyncssh.bin", down)
            await f.remove("/workspace/asyncssh.bin")
            assert not await f.exists("/workspace/asyncssh.bin")


asyncio.run(main())
