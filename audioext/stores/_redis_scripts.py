"""What happens at the server in one step: each script is atomic, and harmless when it is sent again.

`KEYS` names all keys that a call may touch, as a cluster wants it; the scripts build the names themselves, from the
first one. All keys share one hash tag, so they are one slot of a cluster. With `{p}` for that tag, there are:

    {p}:meta             hash: the layout's version, and the numbers last given to a job and to a webhook
    {p}:changes          stream: "COUNT REF" of every create and append
    {p}:job:REF          hash: `m` what scripts must know, `i` the index, `ids` of the entries in their order, `u` until
                         when handlers hold it, and the entries by number (0 is a request that came by `create`)
    {p}:jobs, :open      sorted sets of refs by the job's number
    {p}:closed           sorted set of the refs that are not open, by the time of their newest entry
    {p}:webhooks         sorted set of "REF NUMBER", by the webhook's own number
    {p}:polls:PROVIDER, :handlers:PROVIDER    sorted sets of refs by when they can be claimed
    {p}:occupied:ACCOUNT    sorted set of refs by until when they count as open for the limits
    {p}:submits:ACCOUNT     sorted set of refs by when they were answered, else by minus when they were created
    {p}:key:KEY          the ref that holds the key
    {p}:task:PROVIDER:TASK    list of the refs with this task id, the newest last
    {p}:secret:NAME      a named value
    {p}:providers        set of the providers that ever had a job

`m` is packed as `FACTS` says: the numbers of the first and the last entry, whether the request is known, whether the
job is open, the bytes of all bodies, the repeats, the time of the newest entry, when handlers may have work (-1:
never), and who created it. An entry starts with its time as a big-endian double and one letter for its kind, so that
no script unpacks it. Within a script the first write is one that the engine may refuse (no memory, no disk), so that
nothing is half applied. The largest script is in `_redis_write`.

Redis' own pages, read 2026-11-21: redis.io/docs/latest/develop/interact/programmability/eval-intro (keys in `KEYS`,
effects, atomicity) and /develop/reference/cluster-spec (hash tags). Valkey's are the same in this.
"""

from __future__ import annotations

import hashlib
from typing import Final

from attrs import field, frozen

from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, POST_SECONDS
from audioext.stores.base import LONGEST_HOLD_SECONDS

LAYOUT = 2
"""Release 0.1 wrote layout 1 under the same name, and refuses this one."""
MAX_CHANGES = 10_000
"""About so many changes stay in the stream; who is further behind looks at everything again."""
FACTS = ">I4I4BBdI4dd"
CREATOR_BYTES = 8
_NUMBERS = {
    "LAYOUT": LAYOUT,
    "MAX_CHANGES": MAX_CHANGES,
    "FACTS": f"'{FACTS}'",
    "CREATOR_BYTES": CREATOR_BYTES,
    "MAX_ENTRIES": MAX_ENTRIES,
    "MAX_JOURNAL_BYTES": MAX_JOURNAL_BYTES,
    "POST_SECONDS": POST_SECONDS,
    "LONGEST_HOLD_SECONDS": LONGEST_HOLD_SECONDS,
}

_COMMON = """
local call, pack = redis.call, struct.pack
local base, ttl = string.sub(KEYS[1], 1, -5), tonumber(ARGV[1])
-- The index, without its due times.
local PROVIDER, ACCOUNT, CREATED, KEY, TASK, ANSWERED, IS_OPEN, OCCUPIES = 1, 2, 3, 4, 5, 6, 7, 8
local function key_of(index)
  return index[KEY] and base .. 'key:' .. index[KEY]
end
local function task_of(index)
  return index[TASK] and base .. 'task:' .. #index[PROVIDER] .. ':' .. index[PROVIDER] .. ':' .. index[TASK]
end
"""


@frozen
class Script:
    """A script, and the digest by which the server may know it already."""

    text: str = field(repr=False)
    digest: str


def make_script(text: str) -> Script:
    """Return the script whose own part is *text*, with the numbers in their places."""
    text = _COMMON + text
    for name, number in _NUMBERS.items():
        text = text.replace(name, str(number))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


BEGIN: Final = make_script("""
local layout = call('HGET', KEYS[1], 'layout')
if layout and layout ~= 'LAYOUT' then return {layout} end
local last = call('XREVRANGE', base .. 'changes', '+', '-', 'COUNT', 1)[1]
if not layout then call('HSET', KEYS[1], 'layout', 'LAYOUT') end
if not last then
  call('XADD', base .. 'changes', '*', 'j', '')
  last = call('XREVRANGE', base .. 'changes', '+', '-', 'COUNT', 1)[1]
end
return {'LAYOUT', last}
""")

READ: Final = make_script("""
local job = base .. 'job:' .. ARGV[2]
local held = call('HMGET', job, 'm', 'i')
if not held[1] then return false end
local first, last = struct.unpack(FACTS, held[1])
local numbers = {}
for number = first + ARGV[3], last do numbers[#numbers + 1] = number end
local entries = numbers[1] and call('HMGET', job, unpack(numbers)) or {}
local _, provider = cmsgpack.unpack_one(held[2], 1)
return {held[1], held[2], call('ZSCORE', base .. 'polls:' .. provider, ARGV[2]) or '', unpack(entries)}
""")

CLAIM: Final = make_script("""
local work, now, til, limit = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local latest, names = ARGV[6], {unpack(ARGV, 7)}
-- Whether a clock that was ahead put it down: what `is_too_late` says.
local function is_too_late(ref)
  if work == 'polls' then return true end
  local held = redis.pcall('HMGET', base .. 'job:' .. ref, 'm', 'u')
  local facts = held[1] and {pcall(struct.unpack, FACTS, held[1])}
  if not facts or not facts[1] then return true end  -- it expired, or is damaged
  local handle_at, held_until = facts[9], tonumber(held[2]) or 0
  return held_until <= tonumber(now) and handle_at > tonumber(latest)
    or held_until > latest + LONGEST_HOLD_SECONDS
end
if not names[1] then names = call('SMEMBERS', base .. 'providers') end
local found, claimed = {}, {}
for _, name in ipairs(names) do
  local due = base .. work .. ':' .. name
  local refs = call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
  for at = 1, #refs, 2 do found[#found + 1] = {tonumber(refs[at + 1]), refs[at], due} end
  local late = call('ZREVRANGEBYSCORE', due, '+inf', '(' .. latest, 'WITHSCORES', 'LIMIT', 0, limit)
  for at = 1, #late, 2 do
    if is_too_late(late[at]) then found[#found + 1] = {tonumber(late[at + 1]), late[at], due} end
  end
end
table.sort(found, function(one, other) return one[1] < other[1] end)
for at = 1, math.min(limit, #found) do
  local _, ref, due = unpack(found[at])
  local there = redis.pcall('HEXISTS', base .. 'job:' .. ref, 'm')
  if there == 0 then  -- it expired
    call('ZREM', due, ref)
  elseif there ~= 1 then  -- no job of ours lies there: it keeps no other
    call('ZADD', due, til, ref)
  else
    call('ZADD', due, til, ref)
    if work == 'handlers' then call('HSET', base .. 'job:' .. ref, 'u', til) end
    claimed[#claimed + 1] = ref
  end
end
return claimed
""")

NEXT_DUE: Final = make_script("""
local work, names, first = ARGV[2], {unpack(ARGV, 3)}, math.huge
if not names[1] then names = call('SMEMBERS', base .. 'providers') end
for _, name in ipairs(names) do
  first = math.min(first, call('ZRANGE', base .. work .. ':' .. name, 0, 0, 'WITHSCORES')[2] or math.huge)
end
return first < math.huge and string.format('%.17g', first)
""")

RESCHEDULE: Final = make_script("""
local ref, work, at = ARGV[2], ARGV[3], tonumber(ARGV[4])
local job = base .. 'job:' .. ref
local held = call('HMGET', job, 'm', 'i')
if not held[1] then return 0 end
local first, last, is_known, is_open, bytes, repeats, newest, handle_at = struct.unpack(FACTS, held[1])
local _, provider = cmsgpack.unpack_one(held[2], 1)
local due = base .. work .. ':' .. provider
if work == 'polls' then return call('ZADD', due, 'XX', 'LT', at, ref) end
if handle_at >= 0 then
  handle_at = math.min(handle_at, at)
  local facts = pack(FACTS, first, last, is_known, is_open, bytes, repeats, newest, handle_at)
  call('HSET', job, 'm', facts .. string.sub(held[1], -CREATOR_BYTES))
  call('ZADD', due, handle_at, ref)
end
return call('HDEL', job, 'u')
""")

PURGE: Final = make_script("""
local before, kept, portion = tonumber(ARGV[2]) or call('TIME')[1] - ttl, tonumber(ARGV[3]), tonumber(ARGV[4])
local oldest = call('ZRANGE', base .. 'closed', 0, portion - 1, 'WITHSCORES')
local went, existed = 0, 0
for at = 1, #oldest, 2 do
  local ref = oldest[at]
  if tonumber(oldest[at + 1]) >= before and call('ZCARD', base .. 'webhooks') <= kept then break end
  local job = base .. 'job:' .. ref
  local held = redis.pcall('HMGET', job, 'm', 'i')
  local first, last = 0, MAX_ENTRIES  -- an expired or damaged one may have had so many
  local is_whole, from, to = pcall(struct.unpack, FACTS, held[1] or '')
  if is_whole then first, last = from, to end
  local webhooks = {}
  for number = first, last do webhooks[#webhooks + 1] = ref .. ' ' .. number end
  if webhooks[1] then call('ZREM', base .. 'webhooks', unpack(webhooks)) end
  local sets = {'jobs', 'closed'}
  local is_read, index = pcall(cmsgpack.unpack, held[2] or '')
  if is_whole and is_read and type(index) == 'table' and index[PROVIDER] and index[ACCOUNT] then
    if index[KEY] and call('GET', key_of(index)) == ref then call('DEL', key_of(index)) end
    if index[TASK] then call('LREM', task_of(index), 0, ref) end
    for _, name in ipairs({'occupied:', 'submits:'}) do sets[#sets + 1] = name .. index[ACCOUNT] end
    for _, name in ipairs({'polls:', 'handlers:'}) do sets[#sets + 1] = name .. index[PROVIDER] end
  end
  existed = existed + call('UNLINK', job)
  for _, name in ipairs(sets) do call('ZREM', base .. name, ref) end
  went = went + 1
end
return {went, existed}
""")
