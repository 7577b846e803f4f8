-- Return the sizes of the orphans among a page of closed jobs.
-- include orphan_size
local refs = call('ZRANGE', base .. 'closed', ARGV[1], ARGV[2])
local found = {#refs}
for _, ref in ipairs(refs) do
  local size = orphan_size(redis.pcall('HGET', base .. 'job:' .. ref, 'm'))
  if size then
    found[#found + 1] = ref
    found[#found + 1] = size
  end
end
return found
