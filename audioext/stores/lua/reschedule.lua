-- Return a claimed job; see `Store.reschedule`.
local ref, work, until_ = ARGV[1], ARGV[2], tonumber(ARGV[3])
local job = base .. 'job:' .. ref
local held, index = unpack(call('HMGET', job, 'm', 'i'))
if not held then return 0 end
local due = base .. work .. ':' .. cmsgpack.unpack(index).provider
if work == 'polls' then return call('ZADD', due, 'XX', 'LT', until_, ref) end
local facts = {struct.unpack(FACTS, held)}
if facts[8] >= 0 then
  facts[8] = math.min(facts[8], until_)
  call('HSET', job, 'm', struct.pack(FACTS, unpack(facts, 1, 10)) .. string.sub(held, facts[11]))
  call('ZADD', due, facts[8], ref)
end
return call('HDEL', job, 'u')
