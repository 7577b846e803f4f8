-- Check the layout, or set it on a new server, and return the newest change.
local layout = call('HGET', KEYS[1], 'layout')
if layout and layout ~= LAYOUT then return {layout} end
local function newest() return call('XREVRANGE', base .. 'changes', '+', '-', 'COUNT', 1)[1] end
if not layout then call('HSET', KEYS[1], 'layout', LAYOUT) end
if not newest() then call('XADD', base .. 'changes', '*', '', '') end
return {LAYOUT, newest()}
