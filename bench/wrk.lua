-- Prints the results of wrk as JSON.
local format = '{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "failures": %d}'

function done(summary, latency, requests)
  local errors = summary.errors
  io.stderr:write(string.format(format, summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
