-- Return a job, with the entries after some, or only one of them.
local ref, after, number = ARGV[1], ARGV[2], ARGV[3]
local job = base .. 'job:' .. ref
local held, index = unpack(call('HMGET', job, 'm', 'i'))
if not held then return false end
local first, last = struct.unpack(FACTS, held)
local numbers = {number}
if not number then for each = first + after, last do numbers[#numbers + 1] = each end end
local poll_at = call('ZSCORE', base .. 'polls:' .. cmsgpack.unpack(index).provider, ref)
local found = {held, index, poll_at or ''}
for at = 1, #numbers, MOST_WORDS do
  local entries = call('HMGET', job, unpack(numbers, at, math.min(at + MOST_WORDS - 1, #numbers)))
  for number = 1, #entries do found[#found + 1] = entries[number] end
end
return found
