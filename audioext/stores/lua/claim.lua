-- Claim due work; see `Store.claim`.
-- include dues
local work, now, til, limit, latest = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
-- Whether the due time must come from a clock that was ahead.
local function is_too_late(ref)
  if work == 'polls' then return true end
  local held = redis.pcall('HMGET', base .. 'job:' .. ref, 'm', 'u')
  local facts = held[1] and {pcall(struct.unpack, FACTS, held[1])}
  if not facts or not facts[1] then return true end  -- it expired, or is damaged
  local handle_at, held_until = facts[9], tonumber(held[2]) or 0
  return (held_until <= now and handle_at > latest) or held_until > latest + LONGEST_HOLD_SECONDS
end
local found, claimed = {}, {}
for _, due in ipairs(dues(work, 6)) do
  local refs = call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
  for at = 1, #refs, 2 do found[#found + 1] = {tonumber(refs[at + 1]), refs[at], due} end
  local late = call('ZREVRANGEBYSCORE', due, '+inf', '(' .. ARGV[5], 'WITHSCORES', 'LIMIT', 0, limit)
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
  else
    call('ZADD', due, til, ref)
    if there == 1 then  -- otherwise the key is not a job of ours, and must not block the others
      if work == 'handlers' then call('HSET', base .. 'job:' .. ref, 'u', til) end
      claimed[#claimed + 1] = ref
    end
  end
end
return claimed
