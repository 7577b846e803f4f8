"""The scripts behind `purge`, which delete a job together with everything that refers to it, in one step."""

from __future__ import annotations

from typing import Final

from audioext.stores._redis_scripts import INDEX, make_script

_FORGET = """
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
"""

_ORPHAN = """
-- The bytes of an orphans' journal, or nil if the journal has a request.
local function orphan_size(held)
  local is_whole, _, _, is_known, _, size = pcall(struct.unpack, FACTS, held or '')
  return is_whole and is_known == 0 and size or nil
end
"""

PURGE: Final = make_script(
    INDEX,
    _FORGET,
    """
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
""",
)

ORPHANS: Final = make_script(
    _ORPHAN,
    """
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
""",
)

PURGE_ORPHANS: Final = make_script(
    INDEX,
    _FORGET,
    _ORPHAN,
    """
local went = 0
for _, ref in ipairs(ARGV) do
  local held = redis.pcall('HMGET', base .. 'job:' .. ref, 'm', 'i')
  if orphan_size(held[1]) then went = went + forget(ref, held) end  -- otherwise its request has come
end
return went
""",
)
