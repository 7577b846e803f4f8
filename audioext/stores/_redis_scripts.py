"""What happens at the server in one step: each script is atomic, and harmless when it is sent again.

`KEYS` names all keys that a call may touch, as a cluster wants it; the scripts build most names themselves, from the
first one. All keys share one hash tag, so they are one slot of a cluster. With `{p}` for that tag, there are:

    {p}:meta             hash: the layout's version, and the numbers last given to a job and to a webhook
    {p}:changes          stream: "COUNT REF" of every create and append
    {p}:job:REF          hash: `m` what scripts must know, `i` the index, `ids` of the entries in their order, `u` until
                         when handlers hold it, and the entries by number (0 is a request that came by `create`)
    {p}:jobs, :open      sorted sets of refs by the job's number
    {p}:closed           sorted set of the refs that are not open, by the time of their newest entry
    {p}:webhooks         sorted set of "REF NUMBER", by the webhook's own number
    {p}:polls:PROVIDER, :handlers:PROVIDER    sorted sets of refs by when they can be claimed
    {p}:occupied:ACCOUNT, :answered:ACCOUNT, :unanswered:ACCOUNT    what the limits count, by time
    {p}:key:KEY          the ref that holds the key
    {p}:task:PROVIDER:TASK    list of the refs with this task id, the newest last
    {p}:providers        set of the providers that ever had a job

`m` is packed as `FACTS` says: the numbers of the first and the last entry, whether the request is known, whether the
job is open, the bytes of all bodies, the repeats, the time of the newest entry, when handlers may have work (-1:
never), and who created it. An entry starts with its time as a big-endian double and one letter for its kind, so that
no script unpacks it. Within a script the first write is one that the engine may refuse (no memory, no disk), so that
nothing is half applied. What several scripts do is text that is put into each: Lua makes functions anew in each call.

Redis' own pages, read 2026-11-21: redis.io/docs/latest/develop/interact/programmability/eval-intro (keys in `KEYS`,
effects, atomicity) and /develop/reference/cluster-spec (hash tags). Valkey's are the same in this.
"""

from __future__ import annotations

import hashlib
from typing import Final

from attrs import field, frozen

from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES, POST_SECONDS

LAYOUT = 2
"""Release 0.1 wrote layout 1 under the same name, and refuses this one."""
MAX_CHANGES = 10_000
"""About so many changes stay in the stream; who is further behind looks at everything again."""

FACTS = ">I4I4BBdI4dd"
CREATOR_BYTES = 8

_BEGIN = """
local call, pack = redis.call, struct.pack
local base = string.sub(KEYS[1], 1, -5)
local ttl = tonumber(ARGV[1])
-- The index, without its due times.
local PROVIDER, ACCOUNT, CREATED, KEY, TASK, ANSWERED, IS_OPEN, OCCUPIES = 1, 2, 3, 4, 5, 6, 7, 8
local function task_key(index)
  return base .. 'task:' .. #index[PROVIDER] .. ':' .. index[PROVIDER] .. ':' .. index[TASK]
end
"""

# Let key, task id and account of `ref` lead to `new` instead of `old`.
_RELINK = """
if old[KEY] ~= new[KEY] then
  if old[KEY] and call('GET', base .. 'key:' .. old[KEY]) == ref then call('DEL', base .. 'key:' .. old[KEY]) end
  if new[KEY] then call('SET', base .. 'key:' .. new[KEY], ref) end
end
if old[TASK] ~= new[TASK] then
  if old[TASK] then call('LREM', task_key(old), 0, ref) end
  if new[TASK] then call('RPUSH', task_key(new), ref) end
end
if old[ACCOUNT] ~= new[ACCOUNT] then
  if old[ACCOUNT] then
    for _, name in ipairs({'occupied:', 'answered:', 'unanswered:'}) do
      call('ZREM', base .. name .. old[ACCOUNT], ref)
    end
  end
  old = {}
end
if new[OCCUPIES] > 0 and new[OCCUPIES] ~= old[OCCUPIES] then
  call('ZADD', base .. 'occupied:' .. new[ACCOUNT], new[OCCUPIES], ref)
elseif old[OCCUPIES] and new[OCCUPIES] <= 0 then
  call('ZREM', base .. 'occupied:' .. new[ACCOUNT], ref)
end
if new[ANSWERED] ~= old[ANSWERED] then
  if old[ACCOUNT] then
    call('ZREM', base .. (old[ANSWERED] and 'answered:' or 'unanswered:') .. new[ACCOUNT], ref)
  end
  if new[ANSWERED] then
    call('ZADD', base .. 'answered:' .. new[ACCOUNT], new[ANSWERED], ref)
  else
    call('ZADD', base .. 'unanswered:' .. new[ACCOUNT], new[CREATED], ref)
  end
end
"""

_ENLIST = """
call('ZADD', base .. 'jobs', call('HINCRBY', KEYS[1], 'jobs', 1), ref)
call('SADD', base .. 'providers', new[PROVIDER])
"""

# Open jobs never expire; others do, with what leads to them.
_KEEP = """
local names = {job}
if new[KEY] then names[#names + 1] = base .. 'key:' .. new[KEY] end
if new[TASK] then names[#names + 1] = task_key(new) end
if is_open == 0 then
  if was_open == 1 then call('ZREM', base .. 'open', ref) end
  call('ZADD', base .. 'closed', newest, ref)
  for _, name in ipairs(names) do call('EXPIRE', name, ttl) end
else
  call('ZADD', base .. 'open', call('ZSCORE', base .. 'jobs', ref), ref)
  if held[1] then
    call('ZREM', base .. 'closed', ref)
    for _, name in ipairs(names) do call('PERSIST', name) end
  end
end
"""

_ANNOUNCE = """
call('XADD', base .. 'changes', 'MAXLEN', '~', MAX_CHANGES, '*', 'j', (last - first + 1) .. ' ' .. ref)
"""


@frozen(slots=False)
class Script:
    """A script, and the digest by which the server may know it already."""

    body: str = field(repr=False)
    text: str = field(init=False, repr=False)
    digest: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Put the parts and the numbers in their places, and work out the digest."""
        text = _BEGIN + self.body
        words = {
            "--RELINK": _RELINK,
            "--ENLIST": _ENLIST,
            "--KEEP": _KEEP,
            "--ANNOUNCE": _ANNOUNCE,
            "MAX_CHANGES": MAX_CHANGES,
            "MAX_ENTRIES": MAX_ENTRIES,
            "MAX_JOURNAL_BYTES": MAX_JOURNAL_BYTES,
            "POST_SECONDS": POST_SECONDS,
            "LAYOUT": LAYOUT,
            "FACTS": f"'{FACTS}'",
            "CREATOR_BYTES": CREATOR_BYTES,
        }
        for name, word in words.items():
            text = text.replace(name, str(word))
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "digest", hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


BEGIN: Final = Script("""
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

CREATE: Final = Script("""
local ref, creator, now, per, submits, parallel, index, poll, handle, id, size, entry = unpack(ARGV, 2)
local job = base .. 'job:' .. ref
local held = call('HMGET', job, 'm', 'ids')
local first, last, was_known, was_open, bytes, repeats, newest = 0, 0, 0, 0, 0, 0, 0
local _
if held[1] then
  _, last, was_known, was_open, bytes, repeats, newest = struct.unpack(FACTS, held[1])
  if string.sub(held[1], -CREATOR_BYTES) == creator then return {'created'} end
end
local old, new = {}, cmsgpack.unpack(index)
local holder = new[KEY] and call('GET', base .. 'key:' .. new[KEY])
if holder then return {'existing', holder} end
if was_known == 1 then return {'existing', ref} end

local account = new[ACCOUNT]
if submits ~= '' then
  local count, til = 0, math.huge
  for _, one in ipairs({{'answered:', tonumber(per)}, {'unanswered:', POST_SECONDS}}) do
    local from, to = string.format('(%.17g', now - one[2]), string.format('(%.17g', now + one[2])
    count = count + call('ZCOUNT', base .. one[1] .. account, from, to)
    local oldest = call('ZRANGEBYSCORE', base .. one[1] .. account, from, to, 'WITHSCORES', 'LIMIT', 0, 1)
    if oldest[2] then til = math.min(til, oldest[2] + one[2]) end
  end
  if count >= tonumber(submits) then
    return {'full', string.format('%.17g', til < math.huge and til or now + per)}
  end
end
if parallel ~= '' and call('ZCOUNT', base .. 'occupied:' .. account, '(' .. now, '+inf') >= tonumber(parallel) then
  return {'full', string.format('%.17g', now + 1)}
end

local is_open = new[IS_OPEN] and 1 or 0
newest = math.max(newest, (struct.unpack('>d', entry)))
local handle_at = handle == '' and -1 or handle
local facts = pack(FACTS, first, last, 1, is_open, bytes + size, repeats, newest, handle_at) .. creator
-- What came before its request stays behind it.
call('HSET', job, 'm', facts, 'i', index, 'ids', ' ' .. id .. (held[2] or ' '), '0', entry)
--ENLIST
--RELINK
--KEEP
if poll ~= '' then call('ZADD', base .. 'polls:' .. new[PROVIDER], poll, ref) end
if handle ~= '' then call('ZADD', base .. 'handlers:' .. new[PROVIDER], handle, ref) end
if submits ~= '' then  -- what purges do not reach, since it expired
  call('ZREMRANGEBYSCORE', base .. 'answered:' .. account, '-inf', now - per - ttl)
  call('ZREMRANGEBYSCORE', base .. 'unanswered:' .. account, '-inf', now - POST_SECONDS - ttl)
end
--ANNOUNCE
return {'created'}
""")

APPEND: Final = Script("""
local ref, provider, known, look_at, release, index, poll, handle = unpack(ARGV, 2, 9)
known = tonumber(known)
local job = base .. 'job:' .. ref
local held = call('HMGET', job, 'm', 'ids', 'i', 'u')
local first, last, was_known, was_open, bytes, repeats, newest, handle_at = 1, 0, 0, 0, 0, 0, 0, -1
local creator = string.rep('-', CREATOR_BYTES)
if held[1] then
  first, last, was_known, was_open, bytes, repeats, newest, handle_at = struct.unpack(FACTS, held[1])
  creator = string.sub(held[1], -CREATOR_BYTES)
end
local before, count, is_known, is_open = last, last - first + 1, was_known, was_open
local is_lost = known > count
if not is_lost and index ~= '' and was_known == 0 and known > 0 then  -- its request is lost, unless it comes now
  is_lost = true
  for at = 12, #ARGV, 3 do is_lost = is_lost and string.sub(ARGV[at], 9, 9) ~= 'r' end
end
if is_lost then return {count, 0, 1, 0} end
if not held[1] and not ARGV[10] then return {0, 0, 0, 0} end

local ids, fields, webhooks, again, is_full = held[2] or ' ', {}, {}, false, false
for at = 10, #ARGV, 3 do
  local id, size, entry = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local kind = string.sub(entry, 9, 9)
  local is_bounded = kind == 'w' or kind == 's'
  if string.find(ids, ' ' .. id .. ' ', 1, true) then
    if is_bounded then repeats = repeats + 1 end
    again = again or {}
    again[id] = true
  elseif is_bounded and (last - first + 1 >= MAX_ENTRIES or bytes + size > MAX_JOURNAL_BYTES) then
    repeats = repeats + 1
    is_full = true
  else
    last = last + 1
    bytes = bytes + size
    newest = math.max(newest, (struct.unpack('>d', entry)))
    ids = ids .. id .. ' '
    fields[#fields + 1] = last
    fields[#fields + 1] = entry
    if kind == 'r' then is_known = 1 end
    if kind == 'w' then webhooks[#webhooks + 1] = ref .. ' ' .. last end
  end
end

local missed = {}
if known < count or again then
  local number = first
  for id in string.gmatch(held[2] or '', '%S+') do
    if number - first >= known or (again and again[id]) then missed[#missed + 1] = number end
    number = number + 1
  end
  if missed[1] then missed = call('HMGET', job, unpack(missed)) end
end

local is_changed = last > before
local is_taken = index ~= '' and is_known == 1 and known == count and not is_full
local is_used = is_taken or (index ~= '' and is_known == 1 and was_known == 0)
local following, old, new = held[3], {}, false
if is_used then
  following = index
  if handle == '' then handle_at = -1 else handle_at = tonumber(handle) end
  if index ~= held[3] then
    new = cmsgpack.unpack(index)
    is_open = new[IS_OPEN] and 1 or 0
    local holder = new[KEY] and call('GET', base .. 'key:' .. new[KEY])
    if holder and holder ~= ref then  -- another job took it while it was free
      new[KEY] = false
      following = cmsgpack.pack(new)
    end
  end
elseif not following then
  new = {provider, '', (struct.unpack('>d', ARGV[12])), false, false, false, false, 0}
  following = cmsgpack.pack(new)
end
local is_moved = is_changed and not is_taken and is_known == 1
if is_moved and (handle_at < 0 or handle_at > tonumber(look_at)) then handle_at = tonumber(look_at) end

local facts = pack(FACTS, first, last, is_known, is_open, bytes, repeats, newest, handle_at) .. creator
for _, word in ipairs(following == held[3] and {'ids', ids, 'm', facts} or {'ids', ids, 'm', facts, 'i', following}) do
  fields[#fields + 1] = word
end
call('HSET', job, unpack(fields))
if release == '1' and held[4] then call('HDEL', job, 'u') end
if is_known == 1 then
  if was_known == 0 or (is_used and new) then
    new = new or cmsgpack.unpack(following)
    if was_known == 0 then
      --ENLIST
    else
      old = cmsgpack.unpack(held[3])
    end
    --RELINK
  end
  local polls, handlers = base .. 'polls:' .. provider, base .. 'handlers:' .. provider
  if is_used and poll ~= '' then call('ZADD', polls, poll, ref) elseif is_used then call('ZREM', polls, ref) end
  if is_moved then call('ZADD', polls, 'LT', look_at, ref) end
  if handle_at >= 0 then
    call('ZADD', handlers, math.max(handle_at, release == '0' and tonumber(held[4]) or 0), ref)
  elseif is_used then
    call('ZREM', handlers, ref)
  end
end
if is_open ~= was_open or (is_open == 0 and (is_changed or new)) then
  new = new or cmsgpack.unpack(following)
  --KEEP
end
for _, webhook in ipairs(webhooks) do
  call('ZADD', base .. 'webhooks', call('HINCRBY', KEYS[1], 'webhooks', 1), webhook)
end
if is_changed then
  --ANNOUNCE
end
return {last - first + 1, is_taken and 1 or 0, 0, is_full and 1 or 0, unpack(missed)}
""")

READ: Final = Script("""
local ref, after = ARGV[2], ARGV[3]
local job = base .. 'job:' .. ref
local held = call('HMGET', job, 'm', 'i')
if not held[1] then return false end
local first, last = struct.unpack(FACTS, held[1])
local numbers = {}
for number = first + after, last do numbers[#numbers + 1] = number end
local entries = numbers[1] and call('HMGET', job, unpack(numbers)) or {}
local _, provider = cmsgpack.unpack_one(held[2], 1)
return {held[1], held[2], call('ZSCORE', base .. 'polls:' .. provider, ref) or '', unpack(entries)}
""")

_NAMES = """
local work, names = ARGV[2], {unpack(ARGV, FROM)}
if not names[1] then names = call('SMEMBERS', base .. 'providers') end
"""

CLAIM: Final = Script(
    _NAMES.replace("FROM", "6")
    + """
local now, til, limit = ARGV[3], ARGV[4], tonumber(ARGV[5])
local found = {}
for _, name in ipairs(names) do
  local due = base .. work .. ':' .. name
  local refs = call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
  for at = 1, #refs, 2 do found[#found + 1] = {tonumber(refs[at + 1]), refs[at], due} end
end
table.sort(found, function(one, other) return one[1] < other[1] end)
local claimed = {}
for at = 1, math.min(limit, #found) do
  local _, ref, due = unpack(found[at])
  local job = base .. 'job:' .. ref
  if call('HEXISTS', job, 'm') == 1 then
    call('ZADD', due, til, ref)
    if work == 'handlers' then call('HSET', job, 'u', til) end
    claimed[#claimed + 1] = ref
  else
    call('ZREM', due, ref)
  end
end
return claimed
"""
)

NEXT_DUE: Final = Script(
    _NAMES.replace("FROM", "3")
    + """
local first
for _, name in ipairs(names) do
  local at = tonumber(call('ZRANGE', base .. work .. ':' .. name, 0, 0, 'WITHSCORES')[2])
  if at and (not first or at < first) then first = at end
end
return first and string.format('%.17g', first)
"""
)

RESCHEDULE: Final = Script("""
local ref, work, at = ARGV[2], ARGV[3], tonumber(ARGV[4])
local job = base .. 'job:' .. ref
local held = call('HMGET', job, 'm', 'i')
if not held[1] then return 0 end
local first, last, is_known, is_open, bytes, repeats, newest, handle_at = struct.unpack(FACTS, held[1])
if is_known == 0 then return 0 end
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

PURGE: Final = Script(
    """
local before, kept, portion = tonumber(ARGV[2]) or call('TIME')[1] - ttl, tonumber(ARGV[3]), tonumber(ARGV[4])
local oldest = call('ZRANGE', base .. 'closed', 0, portion - 1, 'WITHSCORES')
local went, existed = 0, 0
for at = 1, #oldest, 2 do
  local ref = oldest[at]
  if tonumber(oldest[at + 1]) >= before and call('ZCARD', base .. 'webhooks') <= kept then break end
  local job = base .. 'job:' .. ref
  local held = call('HMGET', job, 'm', 'i')
  local first, last = 0, MAX_ENTRIES  -- an expired one may have had so many
  if held[1] then first, last = struct.unpack(FACTS, held[1]) end
  local webhooks = {}
  for number = first, last do webhooks[#webhooks + 1] = ref .. ' ' .. number end
  if webhooks[1] then call('ZREM', base .. 'webhooks', unpack(webhooks)) end
  for _, name in ipairs({'jobs', 'closed'}) do call('ZREM', base .. name, ref) end
  if held[1] then
    local index = cmsgpack.unpack(held[2])
    local key = base .. 'key:' .. (index[KEY] or '')
    if index[KEY] and call('GET', key) == ref then call('DEL', key) end
    if index[TASK] then call('LREM', task_key(index), 0, ref) end
    for _, name in ipairs({'occupied:', 'answered:', 'unanswered:'}) do
      call('ZREM', base .. name .. index[ACCOUNT], ref)
    end
    for _, name in ipairs({'polls:', 'handlers:'}) do call('ZREM', base .. name .. index[PROVIDER], ref) end
    call('UNLINK', job)
    existed = existed + 1
  end
  went = went + 1
end
return {went, existed}
"""
)
