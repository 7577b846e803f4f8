-- Delete orphans.
-- include index
-- include forget
-- include orphan_size
local went = 0
for _, ref in ipairs(ARGV) do
  local held = redis.pcall('HMGET', base .. 'job:' .. ref, 'm', 'i')
  if orphan_size(held[1]) then went = went + forget(ref, held) end  -- otherwise its request has come
end
return went
