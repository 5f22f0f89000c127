-- What errors of one kind have in common: the beginning of their first line, without
-- numbers and quotes.
local function mask(text)
  local line = string.sub(text, 1, 160)
  if #text > 160 then  -- without half a character at the end
    line = string.gsub(line, '[\192-\255][\128-\191]*$', '')
  end
  line = ' ' .. string.match(line, '[^\r\n]*')
  if string.find(line, "'", 1, true) then
    line = string.gsub(line, "([^%w])'[^']*'", "%1'…'")
  end
  if string.find(line, '"', 1, true) then
    line = string.gsub(line, '"[^"]*"', '"…"')
  end
  line = string.gsub(line, '%f[%w]%x*%d[%x-]*', 'N')
  line = string.gsub(line, '%d+', 'N')
  return string.sub(line, 2)
end
