-- Return when work can be claimed next.
-- include dues
local first = math.huge
for _, due in ipairs(dues(ARGV[1], 2)) do
  first = math.min(first, call('ZRANGE', due, 0, 0, 'WITHSCORES')[2] or math.huge)
end
return first < math.huge and string.format('%.17g', first)
