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

An entry starts with its time as a big-endian double and one letter for its kind, so that no script unpacks it. Within
a script the first write is one that the engine may refuse (no memory, no disk), so that nothing is half applied.

Redis' own pages, read 2026-11-21: redis.io/docs/latest/develop/interact/programmability/eval-intro (keys in `KEYS`,
effects, atomicity) and /develop/reference/cluster-spec (hash tags). Valkey's are the same in this.
"""

from __future__ import annotations

import hashlib
from typing import Final

from attrs import field, frozen

from audioext.models.entries import MAX_ENTRIES, MAX_JOURNAL_BYTES
from audioext.stores.base import POST_SECONDS

LAYOUT = 2
"""Release 0.1 wrote layout 1 under the same name, and refuses this one."""
MAX_CHANGES = 10_000
"""About so many changes stay in the stream; who is further behind looks at everything again."""

_COMMON = """
local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack
local base = string.sub(KEYS[1], 1, -5)
local ttl = tonumber(ARGV[1])

-- What scripts must know of a job: the numbers of its first and last entry, whether its request is known, the bytes of
-- its bodies, its repeats, the time of its newest entry, when handlers may have work, who created it, if it is open.
local FIRST, LAST, KNOWN, BYTES, REPEATS, NEWEST, HANDLE, CREATOR, OPEN = 1, 2, 3, 4, 5, 6, 7, 8, 9
-- The index, without its due times.
local PROVIDER, ACCOUNT, CREATED, KEY, TASK, ANSWERED, IS_OPEN, OCCUPIES = 1, 2, 3, 4, 5, 6, 7, 8

local function task_key(index)
  return base .. 'task:' .. #index[PROVIDER] .. ':' .. index[PROVIDER] .. ':' .. index[TASK]
end

local function unlink(ref, old, new)
  if old[KEY] and old[KEY] ~= new[KEY] and call('GET', base .. 'key:' .. old[KEY]) == ref then
    call('DEL', base .. 'key:' .. old[KEY])
  end
  if old[TASK] and old[TASK] ~= new[TASK] then call('LREM', task_key(old), 0, ref) end
  if old[ACCOUNT] and old[ACCOUNT] ~= new[ACCOUNT] then
    for _, name in ipairs({'occupied:', 'answered:', 'unanswered:'}) do
      call('ZREM', base .. name .. old[ACCOUNT], ref)
    end
  end
end

local function link(ref, old, new)
  if new[KEY] and old[KEY] ~= new[KEY] then call('SET', base .. 'key:' .. new[KEY], ref) end
  if new[TASK] and old[TASK] ~= new[TASK] then
    call('LREM', task_key(new), 0, ref)
    call('RPUSH', task_key(new), ref)
  end
  local account = new[ACCOUNT]
  if new[OCCUPIES] > 0 then
    call('ZADD', base .. 'occupied:' .. account, new[OCCUPIES], ref)
  elseif old[OCCUPIES] then
    call('ZREM', base .. 'occupied:' .. account, ref)
  end
  if new[ANSWERED] then
    call('ZADD', base .. 'answered:' .. account, new[ANSWERED], ref)
    if old[ACCOUNT] then call('ZREM', base .. 'unanswered:' .. account, ref) end
  else
    call('ZADD', base .. 'unanswered:' .. account, new[CREATED], ref)
    if old[ANSWERED] then call('ZREM', base .. 'answered:' .. account, ref) end
  end
end

-- Another job may have taken the key while it was free.
local function owned(ref, index)
  local holder = index[KEY] and call('GET', base .. 'key:' .. index[KEY])
  if not holder or holder == ref then return index, false end
  index[KEY] = false
  return index, true
end

local function enlist(ref, provider)
  call('ZADD', base .. 'jobs', call('HINCRBY', KEYS[1], 'jobs', 1), ref)
  call('SADD', base .. 'providers', provider)
end

-- Open jobs never expire; others do, with what leads to them.
local function keep(ref, m, index, was_held, was_open)
  local names = {base .. 'job:' .. ref}
  if index[KEY] then names[#names + 1] = base .. 'key:' .. index[KEY] end
  if index[TASK] then names[#names + 1] = task_key(index) end
  if m[OPEN] then
    call('ZADD', base .. 'open', call('ZSCORE', base .. 'jobs', ref), ref)
    if was_held then
      call('ZREM', base .. 'closed', ref)
      for _, name in ipairs(names) do call('PERSIST', name) end
    end
  else
    if was_open then call('ZREM', base .. 'open', ref) end
    call('ZADD', base .. 'closed', m[NEWEST], ref)
    for _, name in ipairs(names) do call('EXPIRE', name, ttl) end
  end
end

local function announce(ref, m)
  local count = m[LAST] - m[FIRST] + 1
  call('XADD', base .. 'changes', 'MAXLEN', '~', MAX_CHANGES, '*', 'j', count .. ' ' .. ref)
end

local function forget(ref)
  local job = base .. 'job:' .. ref
  local held = call('HMGET', job, 'm', 'i')
  local last = held[1] and unpacked(held[1])[LAST] or MAX_ENTRIES  -- an expired one may have had so many
  local webhooks = {}
  for number = 0, last do webhooks[#webhooks + 1] = ref .. ' ' .. number end
  call('ZREM', base .. 'webhooks', unpack(webhooks))
  for _, name in ipairs({'jobs', 'open', 'closed'}) do call('ZREM', base .. name, ref) end
  if not held[1] then return 0 end
  local index = unpacked(held[2])
  unlink(ref, index, {})
  call('ZREM', base .. 'polls:' .. index[PROVIDER], ref)
  call('ZREM', base .. 'handlers:' .. index[PROVIDER], ref)
  call('UNLINK', job)
  return 1
end
"""


@frozen(slots=False)
class Script:
    """A script, and the digest by which the server may know it already."""

    body: str = field(repr=False)
    text: str = field(init=False, repr=False)
    digest: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Join it with what all scripts share, and work out its digest."""
        text = _COMMON + self.body
        numbers = {
            "MAX_CHANGES": MAX_CHANGES,
            "MAX_ENTRIES": MAX_ENTRIES,
            "MAX_JOURNAL_BYTES": MAX_JOURNAL_BYTES,
            "POST_SECONDS": POST_SECONDS,
            "LAYOUT": LAYOUT,
        }
        for name, number in numbers.items():
            text = text.replace(name, str(number))
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
local held = call('HMGET', job, 'm', 'ids', 'i')
local m = held[1] and unpacked(held[1])
if m and m[CREATOR] == creator then return {'created'} end
local i = unpacked(index)
local holder = i[KEY] and call('GET', base .. 'key:' .. i[KEY])
if holder then return {'existing', holder} end
if m and m[KNOWN] then return {'existing', ref} end

local account = i[ACCOUNT]
if submits ~= '' then
  local span = {{'answered:', tonumber(per)}, {'unanswered:', POST_SECONDS}}
  local count, til = 0, math.huge
  for _, one in ipairs(span) do
    local from = string.format('(%.17g', now - one[2])
    local to = string.format('(%.17g', now + one[2])
    count = count + call('ZCOUNT', base .. one[1] .. account, from, to)
    local first = call('ZRANGEBYSCORE', base .. one[1] .. account, from, to, 'WITHSCORES', 'LIMIT', 0, 1)
    if first[2] then til = math.min(til, first[2] + one[2]) end
  end
  if count >= tonumber(submits) then
    return {'full', string.format('%.17g', til < math.huge and til or now + per)}
  end
end
if parallel ~= '' and call('ZCOUNT', base .. 'occupied:' .. account, '(' .. now, '+inf') >= tonumber(parallel) then
  return {'full', string.format('%.17g', now + 1)}
end

m = m or {0, 0, true, 0, 0, 0, false, creator, true}  -- what came before its request stays behind it
m[FIRST], m[KNOWN], m[HANDLE], m[CREATOR], m[OPEN] = 0, true, tonumber(handle) or false, creator, i[IS_OPEN]
m[BYTES] = m[BYTES] + size
m[NEWEST] = math.max(m[NEWEST], (struct.unpack('>d', entry)))
call('HSET', job, 'm', pack(m), 'i', index, 'ids', ' ' .. id .. (held[2] or ' '), '0', entry)
enlist(ref, i[PROVIDER])
link(ref, {}, i)
keep(ref, m, i, held[1], false)
if poll ~= '' then call('ZADD', base .. 'polls:' .. i[PROVIDER], poll, ref) end
if handle ~= '' then call('ZADD', base .. 'handlers:' .. i[PROVIDER], handle, ref) end
if submits ~= '' then  -- what purges do not reach, since it expired
  call('ZREMRANGEBYSCORE', base .. 'answered:' .. account, '-inf', now - per - ttl)
  call('ZREMRANGEBYSCORE', base .. 'unanswered:' .. account, '-inf', now - POST_SECONDS - ttl)
end
announce(ref, m)
return {'created'}
""")

APPEND: Final = Script("""
local ref, provider, known, look_at, release, index, poll, handle = unpack(ARGV, 2, 9)
known, look_at = tonumber(known), tonumber(look_at)
local job = base .. 'job:' .. ref
local held = call('HMGET', job, 'm', 'ids', 'i', 'u')
local m = held[1] and unpacked(held[1]) or {1, 0, false, 0, 0, 0, false, '', false}
local ids, hold = held[2] or ' ', tonumber(held[4]) or 0
local before, count, was_known, was_open = m[LAST], m[LAST] - m[FIRST] + 1, m[KNOWN], m[OPEN]
local is_request = was_known or known == 0
for at = 12, #ARGV, 3 do is_request = is_request or string.byte(ARGV[at], 9) == 114 end
if known > count or (index ~= '' and not is_request) then return {count, 0, 1, 0} end
if not held[1] and #ARGV == 9 then return {0, 0, 0, 0} end

local fields, webhooks, again, is_full = {}, {}, {}, false
local had = ids
for at = 10, #ARGV, 3 do
  local id, size, entry = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local kind = string.sub(entry, 9, 9)
  local is_bounded = kind == 'w' or kind == 's'
  if string.find(ids, ' ' .. id .. ' ', 1, true) then
    if is_bounded then m[REPEATS] = m[REPEATS] + 1 end
    again[id] = true
  elseif is_bounded and (m[LAST] - m[FIRST] + 1 >= MAX_ENTRIES or m[BYTES] + size > MAX_JOURNAL_BYTES) then
    m[REPEATS] = m[REPEATS] + 1
    is_full = true
  else
    m[LAST] = m[LAST] + 1
    m[BYTES] = m[BYTES] + size
    m[NEWEST] = math.max(m[NEWEST], (struct.unpack('>d', entry)))
    m[KNOWN] = m[KNOWN] or kind == 'r'
    ids = ids .. id .. ' '
    fields[#fields + 1] = m[LAST]
    fields[#fields + 1] = entry
    if kind == 'w' then webhooks[#webhooks + 1] = ref .. ' ' .. m[LAST] end
  end
end

local missed = {}
if known < count or next(again) then
  local number = m[FIRST]
  for id in string.gmatch(had, '%S+') do
    if number - m[FIRST] >= known or again[id] then missed[#missed + 1] = number end
    number = number + 1
  end
  if missed[1] then missed = call('HMGET', job, unpack(missed)) end
end

local is_changed = m[LAST] > before
local is_taken = index ~= '' and known == count and not is_full
local old = held[3] and unpacked(held[3])
local new, new_index = old, held[3]
if index ~= '' and (is_taken or not was_known) and m[KNOWN] then
  local is_other
  new, is_other = owned(ref, unpacked(index))
  new_index = is_other and pack(new) or index
  m[OPEN], m[HANDLE] = new[IS_OPEN], tonumber(handle) or false
elseif not old then
  new = {provider, '', (struct.unpack('>d', ARGV[12])), false, false, false, false, 0}
  new_index = pack(new)
end
local is_new = new_index ~= held[3]
if is_changed and not is_taken and m[KNOWN] then m[HANDLE] = m[HANDLE] and math.min(m[HANDLE], look_at) or look_at end

call('HSET', job, 'm', pack(m), 'i', new_index, 'ids', ids, unpack(fields))
if release == '1' and held[4] then
  hold = 0
  call('HDEL', job, 'u')
end
if m[KNOWN] then
  if not was_known then
    enlist(ref, new[PROVIDER])
    old = {}
  end
  if is_new or not was_known then
    unlink(ref, old, new)
    link(ref, old, new)
  end
  local polls, handlers = base .. 'polls:' .. new[PROVIDER], base .. 'handlers:' .. new[PROVIDER]
  if is_taken or (index ~= '' and not was_known) then
    if poll == '' then call('ZREM', polls, ref) else call('ZADD', polls, poll, ref) end
  end
  if is_changed and not is_taken then call('ZADD', polls, 'LT', look_at, ref) end
  if m[HANDLE] then
    call('ZADD', handlers, math.max(m[HANDLE], hold), ref)
  else
    call('ZREM', handlers, ref)
  end
end
if not m[OPEN] or not was_open then keep(ref, m, new, held[1], was_open) end
for _, webhook in ipairs(webhooks) do
  call('ZADD', base .. 'webhooks', call('HINCRBY', KEYS[1], 'webhooks', 1), webhook)
end
if is_changed then announce(ref, m) end
return {m[LAST] - m[FIRST] + 1, is_taken and 1 or 0, 0, is_full and 1 or 0, unpack(missed)}
""")

READ: Final = Script("""
local ref, after = ARGV[2], tonumber(ARGV[3])
local job = base .. 'job:' .. ref
local held = call('HMGET', job, 'm', 'i')
if not held[1] then return false end
local m = unpacked(held[1])
local numbers = {}
for number = m[FIRST] + after, m[LAST] do numbers[#numbers + 1] = number end
local entries = numbers[1] and call('HMGET', job, unpack(numbers)) or {}
return {held[1], held[2], call('ZSCORE', base .. 'polls:' .. unpacked(held[2])[PROVIDER], ref) or '', unpack(entries)}
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
local m = held[1] and unpacked(held[1])
if not m or not m[KNOWN] then return 0 end
local due = base .. work .. ':' .. unpacked(held[2])[PROVIDER]
if work == 'polls' then return call('ZADD', due, 'XX', 'LT', at, ref) end
if m[HANDLE] then
  m[HANDLE] = math.min(m[HANDLE], at)
  call('HSET', job, 'm', pack(m))
  call('ZADD', due, m[HANDLE], ref)
end
return call('HDEL', job, 'u')
""")

PURGE: Final = Script("""
local before, kept, portion = tonumber(ARGV[2]) or call('TIME')[1] - ttl, tonumber(ARGV[3]), tonumber(ARGV[4])
local oldest = call('ZRANGE', base .. 'closed', 0, portion - 1, 'WITHSCORES')
local went, existed = 0, 0
for at = 1, #oldest, 2 do
  if tonumber(oldest[at + 1]) >= before and call('ZCARD', base .. 'webhooks') <= kept then break end
  existed = existed + forget(oldest[at])
  went = went + 1
end
return {went, existed}
""")
