-- Create a job; see `Store.create`.
-- include load
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
-- include store
-- Remove submits of expired jobs, which no purge reaches.
local old_enough = now - math.max(per, POST_SECONDS) - ttl
call('ZREMRANGEBYSCORE', submitted, -old_enough, old_enough)
return {'created'}
