-- Delete a job and everything that refers to it; return whether it was there.
local function forget(ref, held)
  local is_whole, first, last = pcall(struct.unpack, FACTS, held[1] or '')
  if not is_whole then first, last = 0, MAX_ENTRIES end  -- if expired or damaged, it may have had that many
  local webhooks = {}
  for number = first, last do webhooks[#webhooks + 1] = ref .. ' ' .. number end
  for at = 1, #webhooks, MOST_WORDS do
    call('ZREM', base .. 'webhooks', unpack(webhooks, at, math.min(at + MOST_WORDS - 1, #webhooks)))
  end
  local is_read, index = pcall(cmsgpack.unpack, held[2] or '')
  if is_whole and is_read and type(index) == 'table' and index.provider and index.account then
    unlink(index, ref)
    call('ZREM', base .. 'polls:' .. index.provider, ref)
    call('ZREM', base .. 'handlers:' .. index.provider, ref)
  end
  call('ZREM', base .. 'jobs', ref)
  call('ZREM', base .. 'closed', ref)
  return call('UNLINK', base .. 'job:' .. ref)
end
