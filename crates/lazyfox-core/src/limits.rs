//! Every limit of the system with its unit and its reason. What an operator may change is a default
//! of the configuration, and this is where that default comes from.

/// Bytes in a mebibyte. The public contract says "10 MB" without saying which; the larger reading is
/// used everywhere, so that no client that was within its limit is refused here.
pub const MIB: usize = 1024 * 1024;

/// Largest request body of `/run`: the public contract's 10 MB.
pub const RUN_BODY_BYTES: usize = 10 * MIB;
/// Largest request body of `/runsync`: the public contract's 20 MB.
pub const RUNSYNC_BODY_BYTES: usize = 20 * MIB;
/// Largest output of a job: the public contract's 20 MB. A larger one ends the job FAILED.
pub const RESULT_BYTES: usize = 20 * MIB;
/// Largest streamed chunk: the public contract's 1 MB. A longer string is split, other JSON cannot
/// be split without loss and passes whole up to [`RESULT_BYTES`].
pub const CHUNK_BYTES: usize = MIB;
/// Largest of the bounds above that can be configured: SQLite keeps at most 10^9 bytes in a row, and a
/// body is in memory several times while it is looked at.
pub const CONFIGURED_BYTES_MAX: usize = 512 * MIB;
/// Chunks of one job that wait for a reader, in bytes: an endless generator that nobody reads must
/// not fill the disk.
pub const STREAM_BYTES: usize = 256 * MIB;
/// Longest `error` that is kept with a job; longer ones are cut and say so. Tracebacks are a few kB.
pub const ERROR_BYTES: usize = 256 * 1024;
/// Longest webhook URL: what browsers and proxies commonly accept.
pub const WEBHOOK_BYTES: usize = 2048;
/// Longest idempotency key a client may send.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
/// Largest `s3Config`, in bytes: four or five short strings.
pub const S3_CONFIG_BYTES: usize = 16 * 1024;
/// Deepest nesting of a request body. Python's decoder gives up at about 1000 levels, and a worker
/// that cannot decode a job never reports it, so deeper input is refused where it can be explained.
pub const JSON_DEPTH: usize = 512;

/// Shortest `policy.executionTimeout`, in milliseconds.
pub const EXECUTION_TIMEOUT_MS_MIN: u64 = 5_000;
/// Longest `policy.executionTimeout`: 7 days.
pub const EXECUTION_TIMEOUT_MS_MAX: u64 = 7 * DAY_MS;
/// `executionTimeout` where neither the job nor the endpoint says one: 24 hours.
pub const EXECUTION_TIMEOUT_MS: u64 = DAY_MS;
/// Shortest `policy.ttl`, in milliseconds.
pub const TTL_MS_MIN: u64 = 10_000;
/// Longest `policy.ttl`: 7 days.
pub const TTL_MS_MAX: u64 = 7 * DAY_MS;
/// `ttl` where neither the job nor the endpoint says one: 24 hours.
pub const TTL_MS: u64 = DAY_MS;
/// How long the result of a `/run` job is kept: 30 minutes, as the public contract says.
pub const RETENTION_MS: u64 = 30 * 60_000;
/// How long the result of a `/runsync` job is kept when its caller was answered in time: 1 minute.
pub const RETENTION_SYNC_MS: u64 = 60_000;
/// Automatic retries after a lost worker: one, as observed of the public service.
pub const RETRIES: u32 = 1;
/// Most automatic retries that can be configured.
pub const RETRIES_MAX: u32 = 10;

/// Workers that die in a row while they run a job, before it is given up: one may have been somebody
/// else's fault.
pub const POISON_AFTER: u32 = 2;
/// Most such deaths that can be configured: as many as retries.
pub const POISON_AFTER_MAX: u32 = 10;
/// How much is kept of the way in which a worker died, in bytes: a signal and the last lines of output.
pub const DEATH_BYTES: usize = 2048;

/// Waiting calls (`?wait=`), in milliseconds: shortest, longest and default, as the public contract
/// says. Values outside are clamped.
pub const WAIT_MS_MIN: u64 = 1_000;
/// Longest `?wait=`.
pub const WAIT_MS_MAX: u64 = 300_000;
/// `?wait=` of `/runsync` and `/status-sync` when it is not given.
pub const WAIT_MS: u64 = 90_000;
/// How long `/stream` waits for a chunk when `?wait=` is not given. The Python client reads with a
/// timeout of 10 s.
pub const STREAM_WAIT_MS: u64 = 8_000;

/// How long a worker may work without a sign of life that names the job: four of the SDK's own pings of
/// 10 s, or eight of the 5 s that workers which are started here are told to keep.
pub const LEASE_MS: u64 = 40_000;
/// Shortest lease that can be configured: four pings, of which the SDK sends one a second at most. With
/// a shorter one every longer job is lost, and its worker with it.
pub const LEASE_MS_MIN: u64 = 4_000;
/// Shortest hold of an empty `job-take` poll. An SDK worker asks again at once after any quick
/// answer, thousands of times a second.
pub const POLL_MS_MIN: u64 = 20_000;
/// Longest hold of an empty `job-take` poll: the least patient SDK gives up at 30 s and loses a job
/// that arrives in that moment.
pub const POLL_MS_MAX: u64 = 25_000;
/// Hold of an empty `job-stop` poll. It delays a worker's exit (which awaits its open polls) and
/// costs a request, nothing else.
pub const STOP_POLL_MS: u64 = 55_000;
/// A job that may expire within this time is not given to a worker ahead of time: it would wait
/// inside it for a second or two, and cannot be stopped there.
pub const PREFETCH_TTL_MS: u64 = 30_000;
/// Most workers of an endpoint that can be asked for while the server runs.
pub const WORKERS_MOST: u32 = 10_000;
/// Most jobs handed out in one `job-take-batch`.
pub const BATCH_MAX: usize = 100;

/// Tries of a webhook in all, unless configured: the public contract's first one and 2 more.
pub const WEBHOOK_TRIES: u32 = 3;
/// Most tries that can be configured: with growing pauses that is weeks.
pub const WEBHOOK_TRIES_MAX: u32 = 50;
/// Pause before a further try, unless configured: the public contract's 10 s.
pub const WEBHOOK_PAUSE_MS: u64 = 10_000;
/// Longest pause that can be configured, and the longest that a receiver's `Retry-After` gets.
pub const WEBHOOK_PAUSE_MS_MAX: u64 = DAY_MS;
/// How long one try may take, from looking up the name to the end of the answer: the public contract's
/// 10 s.
pub const WEBHOOK_TIMEOUT_MS: u64 = 10_000;
/// Longest time for a try that can be configured. A receiver that needs more should answer first and
/// work later.
pub const WEBHOOK_TIMEOUT_MS_MAX: u64 = 60_000;
/// Most webhooks under way at once that can be configured: each has a connection.
pub const WEBHOOKS_AT_ONCE_MAX: usize = 4_096;
/// Bytes of bodies of webhooks under way at once: each is in memory until its receiver has it.
pub const WEBHOOKS_BYTES: u64 = 128 * MIB as u64;
/// How much of a receiver's answer is read; what is longer is cut off.
pub const WEBHOOK_ANSWER_BYTES: usize = 64 * 1024;
/// How much of the answer is kept with the try, for people.
pub const WEBHOOK_ANSWER_BYTES_KEPT: usize = 512;
/// How long a try's reason may be.
pub const WEBHOOK_ERROR_BYTES: usize = 1024;
/// How long a delivery and what it carries are kept after it arrived, unless configured: as long as a
/// result.
pub const WEBHOOK_KEEP_MS: u64 = RETENTION_MS;
/// How long a delivery that was given up is kept, unless configured: a day, so that it can be sent again
/// in the morning.
pub const WEBHOOK_KEEP_FAILED_MS: u64 = DAY_MS;
/// How long a delivery waits for a host that does not answer at all, before it is given up without a try.
pub const WEBHOOK_HOLD_MS: u64 = 60 * 60_000;
/// How long the secret before the newest one is still used, unless asked otherwise: a day to change it
/// everywhere.
pub const WEBHOOK_OVERLAP_MS: u64 = DAY_MS;
/// Longest time that the one before can be asked to stay: a week.
pub const WEBHOOK_OVERLAP_MS_MAX: u64 = 7 * DAY_MS;

/// How long a worker may take from its start to its first poll: the public contract's 7 minutes.
pub const INIT_TIMEOUT_MS: u64 = 7 * 60_000;
/// How long the preparations of a start may take, before its program runs: the pull of a large
/// image over a slow line.
pub const PREPARE_MS_MAX: u64 = 60 * 60_000;
/// How long a worker has to let go of a job that was cancelled or timed out, before it is stopped.
pub const RELEASE_GRACE_MS: u64 = 10_000;
/// How long a worker has to exit after it was asked to, before it is killed.
pub const STOP_GRACE_MS: u64 = 30_000;
/// How long a worker without work stays: the public contract's 5 s.
pub const IDLE_TIMEOUT_MS: u64 = 5_000;
/// Longest time for running jobs when the server is stopped. Killing workers may take 5 s more and the
/// last answers and webhooks 4 s, and the whole is promised within 30 s.
pub const SHUTDOWN_MS_MAX: u64 = 20_000;
/// How long the workers of a server that died go on without one, unless configured: longer than a restart
/// or an upgrade takes.
pub const ABANDONED_MS: u64 = 60_000;
/// Longest time for that which can be configured: a day.
pub const ABANDONED_MS_MAX: u64 = DAY_MS;
/// Most workers of an endpoint unless configured: the public contract's 3.
pub const WORKERS_MAX: u32 = 3;
/// The scaler's value unless configured: 4 seconds of waiting, or 4 requests a worker.
pub const SCALER_VALUE: u32 = 4;
/// Most GPUs that a worker can be configured to have.
pub const GPUS_MAX: u32 = 64;
/// Most jobs for each slot that a worker can be configured to be given at once.
pub const PREFETCH_MAX: u32 = 2_000;
/// Largest memory limit of a worker that can be configured, in MiB: 16 TiB.
pub const MEMORY_MIB_MAX: u64 = 16 * 1024 * 1024;
/// Largest limit of open files that can be configured: the kernel's own.
pub const OPEN_FILES_MAX: u64 = 1_048_576;
/// Most that can be configured to be kept of an endpoint's logs, in MiB.
pub const LOGS_MIB_MAX: u64 = 1024 * 1024;

/// Workers beyond the maximum while a newer release rolls out, unless configured.
pub const SURGE: u32 = 1;
/// Starts that fail one after the other until no more are tried, unless configured: with the pauses
/// between them that is some 20 minutes, longer than a restart of what they need takes.
pub const GIVE_UP_AFTER: u32 = 8;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
