-- How `create` and `append` begin: with the arguments of the call, and the facts of the job.
local ref, provider, index = unpack(ARGV, 1, 3)
local ttl, poll_at, handle_to, known, look_at, is_released, head_at = struct.unpack(JOB, ARGV[4])
is_released = is_released == 1
local job, ENTRIES, MANY = base .. 'job:' .. ref, 5, 99
local held, held_index, held_until = unpack(call('HMGET', job, 'm', 'i', 'u'))
local first, last, was_known, was_open, size, repeats, newest, handle_at = 1, 0, 0, 0, 0, 0, 0, -1
local creator, was_polled, ids, at = '--------', 0, ''
if held then
  first, last, was_known, was_open, size, repeats, newest, handle_at, creator, was_polled, at =
    struct.unpack(FACTS, held)
  ids = string.sub(held, at)
end
local is_known, count = was_known, last - first + 1
local fields, webhooks = {}, {}
