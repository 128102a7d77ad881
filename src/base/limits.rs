//! Every limit of the program, each with its reason. Relations between them are asserted when the
//! crate compiles. What the config may change has its default here.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Attempts in one plan: three models with two or three targets each; more only delays the truth.
pub const PLAN_ATTEMPTS_MAX: usize = 8;
/// Names in a request's `models`, `provider.order`, `only` and `ignore`: as many as could matter.
pub const REQUEST_NAMES_MAX: usize = 32;
/// Bytes of each of these names, the model's too: it stands in a head, in every event and in the log.
pub const REQUEST_NAME_BYTES_MAX: usize = 512;

/// Header fields in one head: browsers and SDKs send under 40.
pub const HEAD_FIELDS_MAX: usize = 96;
/// Empty lines that may come before a request: old clients put one behind a body.
pub const EMPTY_LINES_MAX: usize = 4;
/// Default for `server.head_max`, and the cap on a provider's response head.
pub const HEAD_BYTES_MAX: usize = 64 * KIB;
/// Default for `server.body_max`: a few images or a long document in base64.
pub const BODY_BYTES_MAX: usize = 32 * MIB;
/// Hex digits in a chunk size: 2^40 bytes is past every body limit.
pub const CHUNK_DIGITS_MAX: usize = 10;
/// Bytes of one chunk extension: nobody uses them, so they may not cost anything either.
pub const CHUNK_EXTENSION_MAX: usize = 256;
/// Bytes of all chunk extensions of one body, so that a body is not mostly that.
pub const CHUNK_EXTENSIONS_MAX: usize = 16 * KIB;
/// Bytes of one trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * KIB;

/// One SSE event: generated images arrive as events of one to two MiB.
pub const FRAME_BYTES_MAX: usize = 8 * MIB;
/// Default for `hold_max`: what may be held before commit, except under `complete`.
pub const HOLD_BYTES_MAX: usize = 64 * KIB;
/// `hold_max` under `complete`, and the default for `answer_max`.
pub const ANSWER_BYTES_MAX: usize = 8 * MIB;
/// What is kept of a provider's error body: its message is in the first few KiB.
pub const ERROR_BYTES_MAX: usize = 64 * KIB;
/// Nesting of JSON that is read: real requests stay under 40.
pub const JSON_DEPTH_MAX: usize = 128;
/// A thought that is kept until its signature comes: real ones have up to some 30 KB, and a longer one is
/// only not given back signed.
pub const THOUGHT_BYTES_MAX: usize = 64 * KIB;
/// An answer's id that is taken over: it is written into every event, and real ones have under 100.
pub const ANSWER_ID_BYTES_MAX: usize = 256;
/// Choices of one answer that are followed (`n`): OpenAI's own limit.
pub const CHOICES_MAX: usize = 128;

/// The first receive buffer of a stream: an event or two; it grows when reads fill it.
pub const READ_BYTES_MIN: usize = 4 * KIB;
/// The largest receive buffer of a stream: more than a TLS record, and than any model says at once. What
/// is told of one fits 32 KiB, where a vector that doubles would take the next step.
pub const READ_BYTES_MAX: usize = 24 * KIB;
/// Buffers that a core keeps for streams to come: as many as speak at once.
pub const SPARE_BUFFERS_MAX: usize = 64;
/// The most room of one read of a request's body.
pub const BODY_READ_BYTES_MAX: usize = 256 * KIB;
/// Bytes that the kernel takes for a client beyond what is on its way to it: a write goes on when it has
/// less, so a reader of a few KB a second is seen to read.
pub const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// Bytes that may wait for a slow client, those of the write under way included, before reading upstream
/// stops.
pub const BACKLOG_BYTES_MAX: usize = 24 * KIB;
/// Bytes that a stream may hold for a client that does not read, an event that is larger than a read apart.
pub const STREAM_BYTES_MAX: usize = 128 * KIB;
/// Bytes of a next request that are read while an answer is still under way.
pub const PIPELINE_BYTES_MAX: usize = 16 * KIB;

/// Idle connections kept for one endpoint and core.
pub const POOL_IDLE_MAX: usize = 128;
/// How long an idle upstream connection is kept, in ms: below the 60 s that many providers allow.
pub const POOL_IDLE_MS: u32 = 50_000;
/// How long the rest of an answered body is waited for so that its connection can be kept, in ms.
pub const DRAIN_REST_MS: u32 = 1_000;
/// Bytes of such a rest.
pub const DRAIN_REST_BYTES: usize = 64 * KIB;

/// How long a client may take for a request head, in ms.
pub const HEAD_MS: u32 = 10_000;
/// How long a client may take between two reads of a request body, in ms.
pub const BODY_MS: u32 = 30_000;
/// Bytes a second that a client must send of a head or body: a bad mobile line does tens of times that.
pub const RATE_BYTES_MIN: u32 = 512;
/// Bytes a second that a client must take of an answer while some wait for it: a stream of 50 tokens a second
/// is some 10 KB/s, and a client's system may show its reading in steps of 64 KiB.
pub const READ_RATE_BYTES_MIN: u32 = 4 * 1024;
/// How long a head or body may come slower than that, in ms: packets are lost and sent again.
pub const RATE_GRACE_MS: u32 = 20_000;
/// How late the event loop may run before new requests are shed, in ms: one that is half a second behind
/// makes everybody wait, and has more to do than it can.
pub const LAG_MS: u32 = 500;
/// Connections that are told at once why they are refused; any more are only closed.
pub const REFUSALS_MAX: u32 = 64;
/// Bytes of a shed request's body that are read away so that its connection can stay.
pub const SHED_BODY_BYTES_MAX: usize = 64 * KIB;
/// After a refusal for overload, in ms: what `retry-after` says.
pub const SHED_RETRY_MS: u32 = 1_000;
/// How long a client may go on sending against an answer that ended its connection, in ms: a body of 32 MiB
/// takes as long at 20 Mbit/s.
pub const LINGER_MS: u32 = 15_000;
/// Bytes that are read away meanwhile: twice the largest body that is taken by default.
pub const LINGER_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
/// How long an idle client connection is kept, in ms.
pub const KEEP_ALIVE_MS: u32 = 75_000;
/// How long a client connection must have been quiet to be closed at once when the process drains, in ms:
/// longer than busy clients pause between two requests.
pub const DRAIN_QUIET_MS: u32 = 1_000;
/// How long no connection must have come before a listener that drains closes, in ms: the rest of a
/// handshake that is under way.
pub const DRAIN_ACCEPT_MS: u32 = 200;
/// How long a client may take to accept bytes, in ms.
pub const WRITE_MS: u32 = 30_000;
/// Between two SSE comments while an opened stream waits, in ms.
pub const HEARTBEAT_MS: u32 = 10_000;

const _: () = assert!(HOLD_BYTES_MAX < ANSWER_BYTES_MAX);
const _: () = assert!(READ_BYTES_MIN <= READ_BYTES_MAX);
const _: () = assert!(READ_BYTES_MAX <= BODY_READ_BYTES_MAX);
const _: () = assert!(READ_BYTES_MAX <= BACKLOG_BYTES_MAX);
const _: () = assert!(HEAD_BYTES_MAX <= BODY_BYTES_MAX);
const _: () = assert!(PLAN_ATTEMPTS_MAX <= u8::MAX as usize);
