-- How both end: with everything that a new entry changes, in one step.
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
-- include index
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
