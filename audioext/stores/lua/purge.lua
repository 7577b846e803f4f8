-- Delete closed jobs, the oldest first, each with everything that refers to it.
-- include index
-- include forget
local before, kept, portion = tonumber(ARGV[1]) or call('TIME')[1] - ARGV[4], tonumber(ARGV[2]), tonumber(ARGV[3])
local untold_before, from = tonumber(ARGV[5]), ARGV[6]
local oldest = call('ZRANGE', base .. 'closed', from, from + portion - 1, 'WITHSCORES')
local looked, existed, stayed = 0, 0, 0
for at = 1, #oldest, 2 do
  local ref = oldest[at]
  if tonumber(oldest[at + 1]) >= before and call('ZCARD', base .. 'webhooks') <= kept then break end
  local held = redis.pcall('HMGET', base .. 'job:' .. ref, 'm', 'i', 'u')
  local facts = {pcall(struct.unpack, FACTS, held[1] or '')}
  if facts[1] and facts[9] >= 0 and math.max(facts[9], tonumber(held[3]) or 0) >= untold_before then
    stayed = stayed + 1
  else
    existed = existed + forget(ref, held)
  end
  looked = looked + 1
end
return {looked, existed, stayed}
