-- The bytes of an orphans' journal, or nil if the journal has a request.
local function orphan_size(held)
  local is_whole, _, _, is_known, _, size = pcall(struct.unpack, FACTS, held or '')
  return is_whole and is_known == 0 and size or nil
end
