"""What happens at the server in one step: each script is atomic, and safe to be sent again after a lost answer.

`create` and `commit` bear a nonce, leases and reservations a token: who repeats a call is told what he was told, or
would have been told, before. Within a script the first write is one that the engine may refuse (no memory, no disk),
so that nothing is ever half applied.

Redis' own pages, read 2026-11-21: redis.io/docs/latest/develop/interact/programmability/eval-intro (keys in `KEYS`,
effects, atomicity) and /develop/reference/cluster-spec (hash tags). Valkey's are the same in this.
"""

from __future__ import annotations

import hashlib
from typing import Final

from attrs import frozen


@frozen(slots=False)
class Script:
    """A script and the name under which the server may know it already."""

    text: str

    def __attrs_post_init__(self) -> None:
        """Work out that name."""
        object.__setattr__(self, "digest", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())

    digest: str = ""


_ANNOUNCE = """
local function announce(state, part, channel, ref)
  local number = redis.call('HINCRBY', state, 'changes', 1)
  redis.call('PUBLISH', channel, part .. ' ' .. string.format('%.0f', number) .. ' ' .. ref)
end
"""

CREATE: Final = Script(
    _ANNOUNCE
    + """
local rec, fence, all, open, polls, state = unpack(KEYS)
local part, channel, ref, provider, body, created_at, key, token, task, due, nonce = unpack(ARGV)
local held = redis.call('HMGET', rec, 'nonce0', 'version', 'body')
if held[2] then
  if held[1] == nonce then return {'created'} end
  return {'exists', held[2], held[3]}
end
if token ~= '' and redis.call('SISMEMBER', fence, token) == 1 then return {'fenced'} end
local time = redis.call('TIME')
local order = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('HGET', state, 'order')) or 0) + 1)
order = string.format('%.0f', order)
redis.call('HSET', rec, 'version', 1, 'body', body, 'provider', provider, 'open', '1', 'created_at', created_at,
  'nonce0', nonce, 'order', order, 'key', key, 'token', token, 'task', task)
redis.call('HSET', state, 'order', order)
redis.call('ZADD', all, order, ref)
redis.call('ZADD', open, order, ref)
if due ~= '' then redis.call('ZADD', polls, due, ref) end
announce(state, part, channel, ref)
return {'created'}
"""
)

COMMIT: Final = Script(
    _ANNOUNCE
    + """
local rec, outbox, open, closed, polls, tells, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local part, channel, ref, expected, body, is_open, due, nonce, task, ttl, entries = unpack(ARGV, 1, 11)
local held = redis.call('HMGET', rec, 'version', 'nonce', 'open', 'order', 'created_at', 'tell_token')
if not held[1] then return {'gone'} end
if held[1] ~= expected then
  if held[2] == nonce then return {'done'} end
  return {'conflict', held[1], redis.call('HGET', rec, 'body')}
end
redis.call('HSET', rec, 'version', string.format('%.0f', expected + 1), 'body', body, 'nonce', nonce, 'open', is_open,
  'task', task)
redis.call('HDEL', rec, 'poll_token', 'poll_attempts')
if is_open == '1' and due ~= '' then redis.call('ZADD', polls, due, ref) else redis.call('ZREM', polls, ref) end
if held[3] ~= is_open then
  if is_open == '1' then
    redis.call('ZADD', open, held[4], ref)
    redis.call('ZREM', closed, ref)
  else
    redis.call('ZADD', closed, held[5], ref)
    redis.call('ZREM', open, ref)
  end
end
local at = 12
for _ = 1, tonumber(entries) do
  local sequence, topic = ARGV[at], ARGV[at + 1]
  at = at + 2
  if redis.call('HEXISTS', rec, 'told:' .. topic) == 0 and not redis.call('ZSCORE', outbox, topic) then
    redis.call('ZADD', outbox, sequence, topic)
  end
end
if entries ~= '0' and not held[6] then
  local head = redis.call('ZRANGE', outbox, 0, 0)[1]
  if head then redis.call('ZADD', tells, redis.call('HGET', rec, 'due:' .. head) or '0', ref) end
end
if is_open == '1' then
  redis.call('PERSIST', rec)
  redis.call('PERSIST', outbox)
else
  redis.call('EXPIRE', rec, ttl)
  redis.call('EXPIRE', outbox, ttl)
end
if KEYS[8] then
  local id, received_at, facts, content = unpack(ARGV, at, at + 3)
  redis.call('HSET', KEYS[8], 'ref', ref, 'facts', facts, 'body', content)
  redis.call('EXPIRE', KEYS[8], ttl)
  redis.call('ZADD', KEYS[9], 0, id)
  redis.call('ZADD', KEYS[10], received_at, id)
  redis.call('ZADD', KEYS[11], 0, id)
  redis.call('EXPIRE', KEYS[11], ttl)
end
announce(state, part, channel, ref)
return {'done', held[3] ~= is_open and 'turned' or 'stayed'}
"""
)

JOURNAL: Final = Script(
    """
local delivery, journal, received, of_ref = unpack(KEYS)
local ref, ttl, id, received_at, facts, content = unpack(ARGV)
redis.call('HSET', delivery, 'ref', ref, 'facts', facts, 'body', content)
redis.call('EXPIRE', delivery, ttl)
redis.call('ZADD', journal, 0, id)
redis.call('ZADD', received, received_at, id)
redis.call('ZADD', of_ref, 0, id)
redis.call('EXPIRE', of_ref, ttl)
return 1
"""
)

FORGET: Final = Script(
    _ANNOUNCE
    + """
local rec, outbox, all, open, closed, polls, tells, state = unpack(KEYS)
local part, channel, ref, expected = unpack(ARGV)
local held = redis.call('HMGET', rec, 'version', 'open', 'key', 'token', 'task')
if held[1] then
  if expected == 'closed' then
    if held[2] == '1' then return {'kept'} end
  elseif held[1] ~= expected then
    return {'kept'}
  end
elseif expected ~= 'closed' then
  return {'kept'}
end
redis.call('DEL', rec, outbox)
redis.call('ZREM', all, ref)
redis.call('ZREM', open, ref)
redis.call('ZREM', closed, ref)
redis.call('ZREM', polls, ref)
redis.call('ZREM', tells, ref)
if not held[1] then return {'absent'} end
announce(state, part, channel, ref)
return {'forgotten', held[3], held[4], held[5]}
"""
)

TAKE: Final = Script(
    """
local rec, outbox, due = unpack(KEYS)
local kind, ref, now, till, token = unpack(ARGV)
local words = kind == 'poll' and {'poll_token', 'poll_attempts'} or {'tell_token', 'tell_topic'}
local held = redis.call('HMGET', rec, 'version', words[1], words[2])
if held[1] and held[2] == token then
  if kind == 'poll' then return {'poll', '0', held[3]} end
  return {held[3], redis.call('ZSCORE', outbox, held[3]), redis.call('HGET', rec, 'tries:' .. held[3])}
end
local at = redis.call('ZSCORE', due, ref)
if not at or tonumber(at) > tonumber(now) then return false end
local head = redis.call('ZRANGE', outbox, 0, 0, 'WITHSCORES')
if not held[1] or (kind == 'outbox' and not head[1]) then
  redis.call('ZREM', due, ref)
  return false
end
redis.call('HSET', rec, words[1], token)
redis.call('ZADD', due, till, ref)
if kind == 'poll' then return {'poll', '0', redis.call('HINCRBY', rec, 'poll_attempts', 1)} end
redis.call('HSET', rec, 'tell_topic', head[1])
return {head[1], head[2], redis.call('HINCRBY', rec, 'tries:' .. head[1], 1)}
"""
)

SETTLE: Final = Script(
    """
local rec, outbox, due = unpack(KEYS)
local kind, ref, token, again_at, back = unpack(ARGV)
local words = kind == 'poll' and {'poll_token', 'poll'} or {'tell_token', 'tell_topic'}
local held = redis.call('HMGET', rec, words[1], words[2])
if held[1] ~= token then return 0 end
if kind == 'poll' then
  if again_at == '' then
    redis.call('HDEL', rec, 'poll_attempts')
    redis.call('ZREM', due, ref)
  else
    redis.call('ZADD', due, again_at, ref)
    if back == '1' then redis.call('HINCRBY', rec, 'poll_attempts', -1) end
  end
  redis.call('HDEL', rec, 'poll_token')
  return 1
end
local topic = held[2]
if again_at == '' then
  redis.call('HSET', rec, 'told:' .. topic, '1')
  redis.call('ZREM', outbox, topic)
  redis.call('HDEL', rec, 'due:' .. topic, 'tries:' .. topic)
else
  redis.call('HSET', rec, 'due:' .. topic, again_at)
  if back == '1' then redis.call('HINCRBY', rec, 'tries:' .. topic, -1) end
end
redis.call('HDEL', rec, 'tell_token', 'tell_topic')
local head = redis.call('ZRANGE', outbox, 0, 0)[1]
if head then
  redis.call('ZADD', due, redis.call('HGET', rec, 'due:' .. head) or '0', ref)
else
  redis.call('ZREM', due, ref)
end
return 1
"""
)

RESERVE: Final = Script(
    """
local held = redis.call('GET', KEYS[1]) or ''
if held ~= ARGV[2] then return held end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""
)

RELEASE: Final = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
)

FENCE: Final = Script(
    """
local rec, fence = unpack(KEYS)
if redis.call('HGET', rec, 'token') == ARGV[1] then return 0 end
redis.call('SADD', fence, ARGV[1])
redis.call('EXPIRE', fence, ARGV[2])
return 1
"""
)

TAKE_PLACE: Final = Script(
    """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local holder, limit, hold = unpack(ARGV)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now))
if not redis.call('ZSCORE', KEYS[1], holder) and redis.call('ZCARD', KEYS[1]) >= tonumber(limit) then
  return string.format('%.6f', redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] - now)
end
redis.call('ZADD', KEYS[1], string.format('%.6f', now + hold), holder)
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
redis.call('EXPIRE', KEYS[1], string.format('%.0f', math.ceil(last - now) + 1))
return '0'
"""
)

LEAVE_PLACE: Final = Script(
    """
local holder, hold = unpack(ARGV)
if hold == '' then return redis.call('ZREM', KEYS[1], holder) end
local time = redis.call('TIME')
local till = string.format('%.6f', time[1] + time[2] / 1000000 + hold)
return redis.call('ZADD', KEYS[1], 'XX', 'CH', till, holder)
"""
)
