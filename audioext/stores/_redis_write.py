"""The scripts behind `create` and `append`, which apply everything that a new entry changes in one step."""

from __future__ import annotations

from typing import Final

from audioext.stores._redis_scripts import INDEX, make_script

_LOAD = """
local ref, provider, index = unpack(ARGV, 1, 3)
local ttl, poll_at, handle_to, known, look_at, is_released, head_at = struct.unpack(JOB, ARGV[4])
is_released = is_released == 1
local job, ENTRIES, MANY = base .. 'job:' .. ref, 5, 99
local held, held_index, held_until = unpack(call('HMGET', job, 'm', 'i', 'u'))
local first, last, was_known, was_open, size, repeats, newest, handle_at = 1, 0, 0, 0, 0, 0, 0, -1
local creator, was_polled, ids, at = '--------', 0, ''
if held then
  first, last, was_known, was_open, size, repeats, newest, handle_at, creator, was_polled, at =
    struct.unpack(FACTS, held)
  ids = string.sub(held, at)
end
local is_known, count = was_known, last - first + 1
local fields, webhooks = {}, {}
"""

_STORE = (
    """
local is_used = index ~= '' and is_known == 1 and (is_taken or was_known == 0)
local is_changed, is_open, is_polled, following = #fields > 0, was_open, was_polled, held_index
local old, new
local was_due = handle_at >= 0 and math.max(handle_at, tonumber(held_until) or 0)
if is_used then
  handle_at = handle_to
  is_polled = poll_at >= 0 and 1 or 0
  if index ~= held_index then
    following, new = index, cmsgpack.unpack(index)
    old = was_known == 1 and cmsgpack.unpack(held_index)
    is_open = new.is_open and 1 or 0
    local holder = new.key and call('GET', base .. 'key:' .. new.key)
    if holder and holder ~= ref then  -- another job took the key while it was free
      new.key = nil
      following = cmsgpack.pack(new)
    end
  end
elseif not held_index then
  following = cmsgpack.pack({provider = provider, account = '', created_at = began, is_open = false})
end
local is_moved = is_changed and is_known == 1 and not is_taken
if is_moved then
  is_polled = 1
  if handle_at < 0 or handle_at > look_at then handle_at = look_at end
end

if following ~= held_index then
  fields[#fields + 1] = 'i'
  fields[#fields + 1] = following
end
local facts = struct.pack(FACTS, first, last, is_known, is_open, size, repeats, newest, handle_at, creator, is_polled)
call('HSET', job, 'm', facts .. ids, unpack(fields, 1, math.min(MOST_WORDS, #fields)))
for at = MOST_WORDS + 1, #fields, MOST_WORDS do
  call('HSET', job, unpack(fields, at, math.min(at + MOST_WORDS - 1, #fields)))
end
if is_released and held_until then call('HDEL', job, 'u') end

if is_known == 1 then
  if was_known == 0 then
    call('ZADD', base .. 'jobs', call('HINCRBY', KEYS[1], 'jobs', 1), ref)
    call('SADD', base .. 'providers', provider)
  end
  if is_used and poll_at >= 0 then
    call('ZADD', base .. 'polls:' .. provider, poll_at, ref)
  elseif is_used and was_polled == 1 then
    call('ZREM', base .. 'polls:' .. provider, ref)
  end
  if is_moved then call('ZADD', base .. 'polls:' .. provider, 'LT', look_at, ref) end
  local due = handle_at >= 0 and math.max(handle_at, not is_released and tonumber(held_until) or 0)
  if due and due ~= was_due then
    call('ZADD', base .. 'handlers:' .. provider, due, ref)
  elseif was_due and not due then
    call('ZREM', base .. 'handlers:' .. provider, ref)
  end
end

if new or is_open ~= was_open or (is_open == 0 and is_changed) then
"""
    + INDEX
    + """
  if new then
    if old then unlink(old, ref, new) end
    link(new, ref, old or {})
  end
  if is_open ~= was_open or is_open == 0 then  -- closed jobs expire, open ones never do
    for _, name in ipairs({job, names_of(new or cmsgpack.unpack(following))}) do
      if name then call(unpack(is_open == 1 and {'PERSIST', name} or {'EXPIRE', name, ttl})) end
    end
    call('ZREM', base .. (is_open == 1 and 'closed' or 'open'), ref)
    if is_open == 1 then
      call('ZADD', base .. 'open', call('ZSCORE', base .. 'jobs', ref), ref)
    else
      call('ZADD', base .. 'closed', newest, ref)
    end
  end
end
for at = 1, #webhooks do
  call('ZADD', base .. 'webhooks', call('HINCRBY', KEYS[1], 'webhooks', 1), ref .. ' ' .. webhooks[at])
end
count = last - first + 1
if is_changed then call('XADD', base .. 'changes', 'MAXLEN', '~', MAX_CHANGES, '*', count, ref) end
"""
)

CREATE: Final = make_script(
    _LOAD,
    """
local by, now, per, submits, parallel = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
if by == creator then return {'created'} end
local asked = cmsgpack.unpack(index)
local holder = asked.key and call('GET', base .. 'key:' .. asked.key)
if holder or was_known == 1 then return {'existing', holder or ref} end

local submitted, occupied = base .. 'submits:' .. asked.account, base .. 'occupied:' .. asked.account
if submits then
  local answered = call('ZRANGEBYSCORE', submitted, '(' .. now - per, '(' .. now + per, 'WITHSCORES')
  local posted = call('ZRANGEBYSCORE', submitted, '(' .. -now - POST_SECONDS, '(' .. POST_SECONDS - now, 'WITHSCORES')
  local til = #answered == 0 and now + per or math.huge
  for at = 2, #answered, 2 do til = math.min(til, answered[at] + per) end
  for at = 2, #posted, 2 do til = math.min(til, POST_SECONDS - posted[at], now + per) end
  if (#answered + #posted) / 2 >= submits then return {'full', string.format('%.17g', til)} end
end
if parallel and call('ZCOUNT', occupied, '(' .. now, '+inf') >= parallel then
  return {'full', string.format('%.17g', now + 1)}
end

local seen_at, bytes, _, _, id = struct.unpack(HEAD, ARGV[4], head_at)
first, is_known, size, newest, creator = 0, 1, size + bytes, math.max(newest, seen_at), by
ids = id .. ids  -- the request goes before its orphans
fields = {0, ARGV[5]}
local is_taken, began = true, 0
""",
    _STORE,
    """
-- Remove submits of expired jobs, which no purge reaches.
local old_enough = now - math.max(per, POST_SECONDS) - ttl
call('ZREMRANGEBYSCORE', submitted, -old_enough, old_enough)
return {'created'}
""",
)

APPEND: Final = make_script(
    _LOAD,
    """
local before, began, again, is_full, added, places = last, nil, nil, false, {}, {}
if #ARGV > MANY then  -- looking for each id among many would take long
  for place = 1, #ids, ID_SIZE do places[string.sub(ids, place, place + ID_SIZE - 1)] = place end
end
for at = ENTRIES, #ARGV do
  local seen_at, bytes, room, kind, id
  seen_at, bytes, room, kind, id, head_at = struct.unpack(HEAD, ARGV[4], head_at)
  local place = places[id] or #ARGV <= MANY and string.find(ids, id, 1, true)
  began = began or seen_at
  if place then
    if room < math.huge then repeats = repeats + 1 end
    again = again or {}
    again[first + (place - 1) / ID_SIZE] = true
  elseif last - first + 1 >= room * MAX_ENTRIES or size + bytes > room * MAX_JOURNAL_BYTES then
    repeats = repeats + 1
    is_full = true
  else
    last, size, newest = last + 1, size + bytes, math.max(newest, seen_at)
    places[id], added[#added + 1] = #ids + #added * ID_SIZE + 1, id
    fields[#fields + 1] = last
    fields[#fields + 1] = ARGV[at]
    if kind == 'r' then is_known = 1 end
    if kind == 'w' then webhooks[#webhooks + 1] = last end
  end
end
ids = ids .. table.concat(added)
-- The server lost entries: it has fewer than the writer has seen, or no request, and none came in this call.
if known > count or (index ~= '' and is_known == 0 and known > 0) then
  return FLAGS * count + IS_LOST
end
if not held and #ARGV < ENTRIES then return 0 end

local missed, answer = {}, {0}
if known < count or again then
  for number = first, before do
    if number - first >= known or (again and again[number]) then missed[#missed + 1] = number end
  end
  for at = 1, #missed, MOST_WORDS do
    local entries = call('HMGET', job, unpack(missed, at, math.min(at + MOST_WORDS - 1, #missed)))
    for number = 1, #entries do answer[#answer + 1] = entries[number] end
  end
end
if #ARGV >= ENTRIES and not fields[1] then is_released = false end  -- a repeated call must not end a later claim
local is_taken = index ~= '' and is_known == 1 and known == count and not is_full
""",
    _STORE,
    """
answer[1] = FLAGS * count + (is_taken and IS_TAKEN or 0) + (is_full and IS_FULL or 0)
return answer[2] and answer or answer[1]
""",
)
