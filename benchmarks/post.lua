-- wrk: POST one image as multipart/form-data, and print the results as one line of JSON.
--
-- The rate is measured from the start to the last good response. wrk's own rate, responses divided by duration, is too
-- low by what the end of the run cuts off: several per cent with a few responses per second. From the first response on,
-- it would be too high for a server that sends six at a time: the time of the first six would not count.
local ffi = require("ffi")
ffi.cdef "typedef struct { long s; long ns; } moment; int clock_gettime(int clock, moment *now);"
local now = ffi.new("moment")

local file = assert(io.open(os.getenv("BENCH_IMAGE"), "rb"))
local image = file:read("*a")
file:close()

wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=bench"
wrk.body = '--bench\r\nContent-Disposition: form-data; name="image"; filename="slice.png"\r\n' ..
    "Content-Type: image/png\r\n\r\n" .. image .. "\r\n--bench--\r\n"

local only
function setup(thread)
    only = thread -- wrk is started with one thread
end

local function seconds()
    ffi.C.clock_gettime(1, now) -- monotonic
    return tonumber(now.s) + tonumber(now.ns) / 1e9
end

successes, start, last = 0, 0, 0
function init(_)
    start = seconds()
    last = start
end

function response(status)
    if status == 200 then
        last = seconds()
        successes = successes + 1
    end
end

function done(summary, latency, _)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '{"responses": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "failed": %d}\n',
        only:get("successes"), only:get("last") - only:get("start"),
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
