"""The script behind `create` and `append`: everything that changes with a new entry changes in one step."""

from __future__ import annotations

from typing import Final

from audioext.stores._redis_scripts import make_script

WRITE: Final = make_script("""
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
if ARGV[begin] and not is_changed then release = '0' end  -- it was done before: a later claim is not its own
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
