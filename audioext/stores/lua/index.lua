-- The names of the keys that lead to a job by its key and by its task id, each false if it has none.
local function names_of(index)
  local task = index.task_id and base .. 'task:' .. #index.provider .. ':' .. index.provider .. ':' .. index.task_id
  return index.key and base .. 'key:' .. index.key or false, task or false
end
-- Add those, and the job in the sets of its account, except what *other* has as well; `unlink` removes them.
local function link(index, ref, other)
  local key, task = names_of(index)
  local other_key, other_task = names_of(other)
  local is_same = index.account == other.account
  if key and key ~= other_key then call('SET', key, ref) end
  if task and task ~= other_task then call('RPUSH', task, ref) end
  if index.occupies_until > 0 and not (is_same and index.occupies_until == other.occupies_until) then
    call('ZADD', base .. 'occupied:' .. index.account, index.occupies_until, ref)
  end
  local at, other_at = index.answered_at or -index.created_at, other.answered_at or -(other.created_at or 0)
  if not (is_same and at == other_at) then call('ZADD', base .. 'submits:' .. index.account, at, ref) end
end
local function unlink(index, ref, other)
  other = other or {}
  local key, task = names_of(index)
  local other_key, other_task = names_of(other)
  local is_same = index.account == other.account
  if key and key ~= other_key and call('GET', key) == ref then call('DEL', key) end
  if task and task ~= other_task then call('LREM', task, 0, ref) end
  if not (is_same and other.occupies_until > 0) then call('ZREM', base .. 'occupied:' .. index.account, ref) end
  if not is_same then call('ZREM', base .. 'submits:' .. index.account, ref) end
end
