"""What the settings of a Redis server put at risk."""

from __future__ import annotations

from redis.exceptions import ResponseError

from audioext.errors import StoreError
from audioext.stores._redis_pipe import Pipe


async def warnings(pipe: Pipe) -> tuple[str, ...]:
    """Ask the server how it keeps what it acknowledged, and return a sentence for each risk.

    Raises:
        StoreError: it is not there.
    """
    try:
        facts = {**_facts(await pipe.run("INFO", "persistence")), **_facts(await pipe.run("INFO", "memory"))}
    except StoreError as error:
        if not isinstance(error.__cause__, ResponseError):
            raise
        return ("the server does not tell this user how it persists: let it run INFO, or make sure yourself",)
    found: list[str] = []
    if facts.get("aof_enabled", "0") != "1":
        found.append(
            "appendonly is off: a restart of the server loses what came after its last snapshot; "
            "set `appendonly yes` with `appendfsync always` or `everysec`"
        )
    else:
        policy = await _setting(pipe, "appendfsync")
        if policy not in {"", "always", "everysec"}:
            found.append(f"appendfsync is {policy}: a crash of the machine loses more than the last second")
    eviction = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") != "0" and eviction != "noeviction":
        found.append(f"maxmemory_policy is {eviction}: a full server forgets jobs; set noeviction")
    return tuple(found)


async def _setting(pipe: Pipe, name: str) -> str:
    """Return a setting of the server, nothing where a hosted one does not tell."""
    try:
        answer = await pipe.run("CONFIG", "GET", name)
    except StoreError:
        return ""
    return answer[1].decode() if answer else ""


def _facts(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode().splitlines())
    return {name: value.strip() for name, _, value in lines if name and not name.startswith("#")}
