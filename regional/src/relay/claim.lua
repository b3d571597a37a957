-- KEYS: a claim for each show, which is its channel too. ARGV: how long a claim lives in milliseconds, then
-- for each show the ballot of who claims it and the message that tells that it lives.
-- Answers for each show how many follow, or -1 where a later ballot claims it.
local answers = {}
for i, key in ipairs(KEYS) do
  local mine = ARGV[2 * i]
  local present = redis.call('GET', key)
  if present and present > mine then
    answers[i] = -1
  else
    redis.call('SET', key, mine, 'PX', ARGV[1])
    answers[i] = redis.call('PUBLISH', key, ARGV[2 * i + 1])
  end
end
return answers
