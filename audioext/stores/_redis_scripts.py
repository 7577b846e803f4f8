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
nothing is half applied.

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
_NUMBERS = {
    "LAYOUT": LAYOUT,
    "MAX_CHANGES": MAX_CHANGES,
    "FACTS": f"'{FACTS}'",
    "CREATOR_BYTES": CREATOR_BYTES,
    "MAX_ENTRIES": MAX_ENTRIES,
    "MAX_JOURNAL_BYTES": MAX_JOURNAL_BYTES,
    "POST_SECONDS": POST_SECONDS,
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


def _script(text: str) -> Script:
    text = _COMMON + text
    for name, number in _NUMBERS.items():
        text = text.replace(name, str(number))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


BEGIN: Final = _script("""
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

WRITE: Final = _script("""
local ref, provider, known, look_at, release, index, poll, handle, creator = unpack(ARGV, 2, 10)
known, look_at = tonumber(known), tonumber(look_at)
local job = base .. 'job:' .. ref
local held = call('HMGET', job, 'm', 'ids', 'i', 'u')
local first, last, was_known, was_open, bytes, repeats, newest, handle_at = 1, 0, 0, 0, 0, 0, 0, -1
local made_by, begin = string.rep('-', CREATOR_BYTES), 11
if held[1] then
  first, last, was_known, was_open, bytes, repeats, newest, handle_at = struct.unpack(FACTS, held[1])
  made_by = string.sub(held[1], -CREATOR_BYTES)
end
local before, count, is_known, is_open, new = last, last - first + 1, was_known, was_open, nil

if creator ~= '' then
  if made_by == creator then return {'created'} end
  made_by, begin, new = creator, 15, cmsgpack.unpack(index)
  local holder = new[KEY] and call('GET', key_of(new))
  if holder then return {'existing', holder} end
  if was_known == 1 then return {'existing', ref} end
  local now, per, submits, parallel = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
  if submits then
    local taken, til = 0, math.huge
    for _, span in ipairs({{now - per, now + per, per}, {-now - POST_SECONDS, -now + POST_SECONDS, POST_SECONDS}}) do
      local from, to = string.format('(%.17g', span[1]), string.format('(%.17g', span[2])
      local found = call('ZRANGEBYSCORE', base .. 'submits:' .. new[ACCOUNT], from, to, 'WITHSCORES')
      for at = 2, #found, 2 do til = math.min(til, math.abs(found[at]) + span[3]) end
      taken = taken + #found / 2
    end
    if taken >= submits then return {'full', string.format('%.17g', taken > 0 and til or now + per)} end
  end
  if parallel and call('ZCOUNT', base .. 'occupied:' .. new[ACCOUNT], '(' .. ARGV[11], '+inf') >= parallel then
    return {'full', string.format('%.17g', now + 1)}
  end
else
  local is_lost = known > count
  if not is_lost and index ~= '' and was_known == 0 and known > 0 then  -- its request is lost, unless it comes now
    is_lost = true
    for at = begin + 2, #ARGV, 3 do is_lost = is_lost and string.sub(ARGV[at], 9, 9) ~= 'r' end
  end
  if is_lost then return {count, 0, 1, 0} end
  if not held[1] and not ARGV[begin] then return {0, 0, 0, 0} end
end

local ids, fields, webhooks, again, is_full = held[2] or ' ', {}, {}, false, false
for at = begin, #ARGV, 3 do
  local id, size, entry = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local kind, number = string.sub(entry, 9, 9), last + 1
  local is_bounded = kind == 'w' or kind == 's'
  if string.find(ids, ' ' .. id .. ' ', 1, true) then
    if is_bounded then repeats = repeats + 1 end
    again = again or {}
    again[id] = true
  elseif is_bounded and (last - first + 1 >= MAX_ENTRIES or bytes + size > MAX_JOURNAL_BYTES) then
    repeats = repeats + 1
    is_full = true
  else
    if creator ~= '' then  -- what came before its request stays behind it
      first, number, ids = 0, 0, ' ' .. id .. ids
    else
      last, ids = number, ids .. id .. ' '
    end
    bytes = bytes + size
    newest = math.max(newest, (struct.unpack('>d', entry)))
    fields[#fields + 1] = number
    fields[#fields + 1] = entry
    if kind == 'r' then is_known = 1 end
    if kind == 'w' then webhooks[#webhooks + 1] = ref .. ' ' .. number end
  end
end

local missed = {}
if creator == '' and (known < count or again) then
  local number = first
  for id in string.gmatch(held[2] or '', '%S+') do
    if number - first >= known or (again and again[id]) then missed[#missed + 1] = number end
    number = number + 1
  end
  if missed[1] then missed = call('HMGET', job, unpack(missed)) end
end

local is_changed = #fields > 0
local is_taken = creator ~= '' or (index ~= '' and is_known == 1 and known == count and not is_full)
local is_used = is_taken or (index ~= '' and is_known == 1 and was_known == 0)
local following, old = held[3], {}
if is_used then
  following, handle_at = index, tonumber(handle) or -1
  if index ~= held[3] then
    new = new or cmsgpack.unpack(index)
    is_open = new[IS_OPEN] and 1 or 0
    local holder = new[KEY] and call('GET', key_of(new))
    if holder and holder ~= ref then  -- another job took it while it was free
      new[KEY] = false
      following = cmsgpack.pack(new)
    end
  end
elseif not following then
  new = {provider, '', (struct.unpack('>d', ARGV[begin + 2])), false, false, false, false, 0}
  following = cmsgpack.pack(new)
end
local is_moved = is_changed and not is_taken and is_known == 1
if is_moved and (handle_at < 0 or handle_at > look_at) then handle_at = look_at end

fields[#fields + 1] = 'm'
fields[#fields + 1] = pack(FACTS, first, last, is_known, is_open, bytes, repeats, newest, handle_at) .. made_by
fields[#fields + 1] = 'ids'
fields[#fields + 1] = ids
if following ~= held[3] then
  fields[#fields + 1] = 'i'
  fields[#fields + 1] = following
end
call('HSET', job, unpack(fields))
if release == '1' and held[4] then call('HDEL', job, 'u') end

if is_known == 1 then
  if was_known == 0 then
    new = new or cmsgpack.unpack(following)
    call('ZADD', base .. 'jobs', call('HINCRBY', KEYS[1], 'jobs', 1), ref)
    call('SADD', base .. 'providers', provider)
  elseif new then
    old = cmsgpack.unpack(held[3])
  end
  if new then  -- let its key, task id and account lead to it
    if old[KEY] ~= new[KEY] then
      if old[KEY] and call('GET', key_of(old)) == ref then call('DEL', key_of(old)) end
      if new[KEY] then call('SET', key_of(new), ref) end
    end
    if old[TASK] ~= new[TASK] then
      if old[TASK] then call('LREM', task_of(old), 0, ref) end
      if new[TASK] then call('RPUSH', task_of(new), ref) end
    end
    local account = new[ACCOUNT]
    if old[ACCOUNT] and old[ACCOUNT] ~= account then
      for _, name in ipairs({'occupied:', 'submits:'}) do call('ZREM', base .. name .. old[ACCOUNT], ref) end
      old = {}
    end
    if new[OCCUPIES] > 0 then
      call('ZADD', base .. 'occupied:' .. account, new[OCCUPIES], ref)
    elseif old[OCCUPIES] then
      call('ZREM', base .. 'occupied:' .. account, ref)
    end
    if old[ANSWERED] ~= new[ANSWERED] then
      call('ZADD', base .. 'submits:' .. account, new[ANSWERED] or -new[CREATED], ref)
    end
    if creator ~= '' then  -- forget submits that no purge reaches, since their jobs expired
      local old_enough = ARGV[11] - math.max(ARGV[12], POST_SECONDS) - ttl
      call('ZREMRANGEBYSCORE', base .. 'submits:' .. account, -old_enough, old_enough)
    end
  end
  local polls, handlers = base .. 'polls:' .. provider, base .. 'handlers:' .. provider
  if is_used and poll ~= '' then
    call('ZADD', polls, poll, ref)
  elseif is_used and was_known == 1 then
    call('ZREM', polls, ref)
  end
  if is_moved then call('ZADD', polls, 'LT', look_at, ref) end
  if handle_at >= 0 then
    call('ZADD', handlers, math.max(handle_at, release == '0' and tonumber(held[4]) or 0), ref)
  elseif is_used and was_known == 1 then
    call('ZREM', handlers, ref)
  end
end

if is_open ~= was_open or (is_open == 0 and (is_changed or new)) then  -- open jobs never expire, others do
  new = new or cmsgpack.unpack(following)
  local names = {job, key_of(new), task_of(new)}
  if is_open == 0 then
    if was_open == 1 then call('ZREM', base .. 'open', ref) end
    call('ZADD', base .. 'closed', newest, ref)
    for _, name in ipairs(names) do if name then call('EXPIRE', name, ttl) end end
  else
    call('ZADD', base .. 'open', call('ZSCORE', base .. 'jobs', ref), ref)
    if held[1] then
      call('ZREM', base .. 'closed', ref)
      for _, name in ipairs(names) do if name then call('PERSIST', name) end end
    end
  end
end
for _, webhook in ipairs(webhooks) do
  call('ZADD', base .. 'webhooks', call('HINCRBY', KEYS[1], 'webhooks', 1), webhook)
end
count = last - first + 1
if is_changed then call('XADD', base .. 'changes', 'MAXLEN', '~', MAX_CHANGES, '*', 'j', count .. ' ' .. ref) end
if creator ~= '' then return {'created'} end
return {count, is_taken and 1 or 0, 0, is_full and 1 or 0, unpack(missed)}
""")

READ: Final = _script("""
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

CLAIM: Final = _script("""
local work, now, til, limit, names = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), {unpack(ARGV, 6)}
if not names[1] then names = call('SMEMBERS', base .. 'providers') end
local found, claimed = {}, {}
for _, name in ipairs(names) do
  local due = base .. work .. ':' .. name
  local refs = call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
  for at = 1, #refs, 2 do found[#found + 1] = {tonumber(refs[at + 1]), refs[at], due} end
end
table.sort(found, function(one, other) return one[1] < other[1] end)
for at = 1, math.min(limit, #found) do
  local _, ref, due = unpack(found[at])
  if call('HEXISTS', base .. 'job:' .. ref, 'm') == 0 then  -- it expired
    call('ZREM', due, ref)
  else
    call('ZADD', due, til, ref)
    if work == 'handlers' then call('HSET', base .. 'job:' .. ref, 'u', til) end
    claimed[#claimed + 1] = ref
  end
end
return claimed
""")

NEXT_DUE: Final = _script("""
local work, names, first = ARGV[2], {unpack(ARGV, 3)}, math.huge
if not names[1] then names = call('SMEMBERS', base .. 'providers') end
for _, name in ipairs(names) do
  first = math.min(first, call('ZRANGE', base .. work .. ':' .. name, 0, 0, 'WITHSCORES')[2] or math.huge)
end
return first < math.huge and string.format('%.17g', first)
""")

RESCHEDULE: Final = _script("""
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

PURGE: Final = _script("""
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
  local sets = {'jobs', 'closed'}
  if held[1] then
    local index = cmsgpack.unpack(held[2])
    if index[KEY] and call('GET', key_of(index)) == ref then call('DEL', key_of(index)) end
    if index[TASK] then call('LREM', task_of(index), 0, ref) end
    for _, name in ipairs({'occupied:', 'submits:'}) do sets[#sets + 1] = name .. index[ACCOUNT] end
    for _, name in ipairs({'polls:', 'handlers:'}) do sets[#sets + 1] = name .. index[PROVIDER] end
    call('UNLINK', job)
    existed = existed + 1
  end
  for _, name in ipairs(sets) do call('ZREM', base .. name, ref) end
  went = went + 1
end
return {went, existed}
""")
