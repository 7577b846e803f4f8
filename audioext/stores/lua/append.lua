-- Append to a journal; see `Store.append`.
-- include load
local before, began, again, is_full, added, places = last, nil, nil, false, {}, {}
if #ARGV > MANY then  -- looking for each id among many would take long
  for place = 1, #ids, ID_SIZE do places[string.sub(ids, place, place + ID_SIZE - 1)] = place end
end
for at = ENTRIES, #ARGV do
  local seen_at, bytes, room, kind, id
  seen_at, bytes, room, kind, id, head_at = struct.unpack(HEAD, ARGV[4], head_at)
  local place = places[id] or #ARGV <= MANY and string.find(ids, id, 1, true)
  began = began or seen_at
  if place then
    if room < math.huge then repeats = repeats + 1 end
    again = again or {}
    again[first + (place - 1) / ID_SIZE] = true
  elseif last - first + 1 >= room * MAX_ENTRIES or size + bytes > room * MAX_JOURNAL_BYTES then
    repeats = repeats + 1
    is_full = true
  else
    last, size, newest = last + 1, size + bytes, math.max(newest, seen_at)
    places[id], added[#added + 1] = #ids + #added * ID_SIZE + 1, id
    fields[#fields + 1] = last
    fields[#fields + 1] = ARGV[at]
    if kind == 'r' then is_known = 1 end
    if kind == 'w' then webhooks[#webhooks + 1] = last end
  end
end
ids = ids .. table.concat(added)
-- The server lost entries: it has fewer than the writer has seen, or no request, and none came in this call.
if known > count or (index ~= '' and is_known == 0 and known > 0) then
  return FLAGS * count + IS_LOST
end
if not held and #ARGV < ENTRIES then return 0 end

local missed, answer = {}, {0}
if known < count or again then
  for number = first, before do
    if number - first >= known or (again and again[number]) then missed[#missed + 1] = number end
  end
  for at = 1, #missed, MOST_WORDS do
    local entries = call('HMGET', job, unpack(missed, at, math.min(at + MOST_WORDS - 1, #missed)))
    for number = 1, #entries do answer[#answer + 1] = entries[number] end
  end
end
if #ARGV >= ENTRIES and not fields[1] then is_released = false end  -- a repeated call must not end a later claim
local is_taken = index ~= '' and is_known == 1 and known == count and not is_full
-- include store
answer[1] = FLAGS * count + (is_taken and IS_TAKEN or 0) + (is_full and IS_FULL or 0)
return answer[2] and answer or answer[1]
