-- The names of the sets of due times: of all providers, or of those in ARGV from *at* on.
local function dues(work, at)
  local names = ARGV[at] == 'all' and call('SMEMBERS', base .. 'providers') or {unpack(ARGV, at + 1)}
  for number, name in ipairs(names) do names[number] = base .. work .. ':' .. name end
  return names
end
