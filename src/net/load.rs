//! How much there is, and what is too much. One place counts connections, requests under way, memory and
//! the lateness of event loops, and says what is shed; accept and connections ask it and act.
//!
//! | what | asked | refused with |
//! | --- | --- | --- |
//! | `connections_max`, `connections_per_client` | at accept | a ready-made 503, or only a close |
//! | `lag_max` | before the head is read, by the gate | as much as there is time for: 503, `retry-after`, in the client's dialect |
//! | `memory_max` | after the head | the same |
//! | `in_flight_max` | after the head, and when the body is whole | the same |
//! | `in_flight_max` of a key | the same | 429, the same |
//!
//! A seat among the requests under way is taken when the body is whole: who dawdles with a body holds a
//! connection, not the place of somebody who is ready. Counts of keys belong to a snapshot: after a
//! reload they begin anew, and those that run are counted where they began.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::base::ids::{Id as _, KeyId};
use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::config::Server;
use crate::net::core::{Shared, Snapshot};
use crate::net::gate::Verdict;

/// Why something is refused though nothing is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Shed {
    /// `connections_max`.
    Connections,
    /// `connections_per_client`.
    Client,
    /// `in_flight_max`.
    InFlight,
    /// `in_flight_max` of the caller's key.
    Key,
    /// `memory_max`.
    Memory,
    /// `lag_max`.
    Lag,
}

impl Shed {
    /// Every reason, in the order of its number.
    pub const ALL: [Shed; 6] =
        [Shed::Connections, Shed::Client, Shed::InFlight, Shed::Key, Shed::Memory, Shed::Lag];

    /// What metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Shed::Connections => "connections",
            Shed::Client => "client",
            Shed::InFlight => "in_flight",
            Shed::Key => "key",
            Shed::Memory => "memory",
            Shed::Lag => "lag",
        }
    }
}

/// What a connection over a limit is told, whatever it asks and in whatever dialect.
pub(super) const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/json\r\n\
retry-after: 1\r\n\
connection: close\r\n\
content-length: 134\r\n\
\r\n\
{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"code\":\"overloaded\",\
\"message\":\"the gateway has too many connections\",\"param\":null}}";

/// The counts of the process.
#[derive(Default)]
pub struct Load {
    connections: AtomicU32,
    in_flight: AtomicU32,
    /// Connections that are being told why they are refused.
    refusing: AtomicU32,
    /// Requests with bodies, from their heads to their ends.
    holding: AtomicU32,
    resident: AtomicU64,
    over_memory: AtomicBool,
    /// When a descriptor was last missing, in microseconds; 0: none is.
    exhausted: AtomicU64,
    /// Connections by client, where they are limited; several maps, so that cores seldom meet.
    clients: [Mutex<BTreeMap<IpAddr, u32>>; SHARDS],
}

const SHARDS: usize = 16;

impl Load {
    /// Counts a connection in; what it gives belongs to `disconnect`.
    ///
    /// # Errors
    /// A limit is reached, and nothing counted.
    pub(super) fn connect(&self, server: &Server, peer: IpAddr) -> Result<Option<IpAddr>, Shed> {
        if !take(&self.connections, server.connections_max) {
            return Err(Shed::Connections);
        }
        let Some(most) = server.connections_per_client else { return Ok(None) };
        let client = client_of(peer);
        let mut shard = self.shard(client).lock().unwrap_or_else(|e| e.into_inner());
        let count = shard.entry(client).or_default();
        if *count >= most {
            drop(shard);
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Shed::Client);
        }
        *count += 1;
        Ok(Some(client))
    }

    /// Counts it out.
    pub(super) fn disconnect(&self, client: Option<IpAddr>) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = client else { return };
        let mut shard = self.shard(client).lock().unwrap_or_else(|e| e.into_inner());
        if let Some(count) = shard.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&client);
            }
        }
    }

    fn shard(&self, client: IpAddr) -> &Mutex<BTreeMap<IpAddr, u32>> {
        let fold = |bytes: &[u8]| bytes.iter().fold(0, |sum: u8, byte| sum.rotate_left(3) ^ byte);
        let sum = match client {
            IpAddr::V4(four) => fold(&four.octets()),
            IpAddr::V6(six) => fold(&six.octets()),
        };
        &self.clients[usize::from(sum) % SHARDS]
    }

    /// Tells how much memory is resident; `most` is `memory_max`. Once above it, a twentieth less is
    /// needed to be below again.
    pub fn tell_resident(&self, bytes: u64, most: u64) {
        self.resident.store(bytes, Ordering::Relaxed);
        let was = self.over_memory.load(Ordering::Relaxed);
        let line = if was { most - most / 20 } else { most };
        self.over_memory.store(bytes > line, Ordering::Relaxed);
    }

    /// What was told last, in bytes; 0: nothing yet.
    pub fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    /// Whether no more memory should be taken.
    pub fn is_over_memory(&self) -> bool {
        self.over_memory.load(Ordering::Relaxed)
    }

    /// Whether so many requests that hold bodies are too many: memory is short.
    pub(super) fn is_short_for(&self, holding: u32) -> bool {
        self.is_over_memory() && self.holding.load(Ordering::Relaxed) >= holding
    }

    /// A descriptor was missing; whether that is news.
    pub(super) fn exhausted(&self, now: Tick) -> bool {
        self.exhausted.swap(now.0.max(1), Ordering::Relaxed) == 0
    }

    /// Whether it is news that none has been missing for a while.
    pub(super) fn recovered(&self, now: Tick) -> bool {
        let at = self.exhausted.load(Ordering::Relaxed);
        at != 0
            && Tick(at) + RECOVERED_AFTER < now
            && self.exhausted.compare_exchange(at, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// A place among the connections that are told why they are refused; free again when it is dropped.
pub(super) struct Refusing(Arc<Shared>);

impl Refusing {
    /// Takes one, if there is one.
    pub(super) fn take(shared: &Arc<Shared>) -> Option<Refusing> {
        let taken = take(&shared.load.refusing, Some(limits::REFUSALS_MAX));
        taken.then(|| Refusing(shared.clone()))
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.0.load.refusing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// So long nothing has failed for want of a descriptor before that is over.
const RECOVERED_AFTER: Ms = Ms(1_000);

/// Counts one in, up to a limit.
fn take(count: &AtomicU32, most: Option<u32>) -> bool {
    let taken = count.fetch_add(1, Ordering::Relaxed) < most.unwrap_or(u32::MAX);
    if !taken {
        count.fetch_sub(1, Ordering::Relaxed);
    }
    taken
}

/// Who an address is: in IPv6 a site has a /64, and any address in it.
fn client_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(four) => IpAddr::V4(four),
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX))),
    }
}

/// How late one core's event loop is, and what share of its requests is shed for it. The lateness is the
/// least of the last ticks, so that one long step is no overload, and a queue that does not go away is. The
/// share rises with it, a little also when the core is less late than it may be and not yet calm, and falls
/// slowly when it is: to refuse all for a moment would empty the queue, and leave the core idle until the
/// next tick.
#[derive(Default)]
pub struct Lateness {
    last: Cell<[Ms; 3]>,
    /// Of a thousand requests.
    share: Cell<u32>,
    /// What of it was not yet shed.
    owed: Cell<u32>,
    /// Since when the tick that is under way is due, and when it was counted as late.
    due: Cell<Option<(Tick, Tick)>>,
}

impl Lateness {
    /// A tick is due.
    pub(super) fn expect(&self, due: Tick) {
        self.due.set(Some((due, due)));
    }

    /// Counts a tick that does not come as a late one, and again each time that `most` has passed in which
    /// others had their turn: when everybody asks at once it comes only after all of them. A step that is
    /// long, or a machine that stood still, counts once.
    pub(super) fn miss(&self, now: Tick, most: Option<Ms>) {
        let (Some(most), Some((due, late))) = (most, self.due.get()) else { return };
        if now > late + most {
            self.tell(now - due, Some(most));
            self.due.set(Some((due, now)));
        }
    }

    /// A tick came so late; `most` is `lag_max`.
    pub(super) fn tell(&self, late: Ms, most: Option<Ms>) {
        let [_, second, third] = self.last.get();
        self.last.set([second, third, late]);
        self.due.set(None);
        let (now, share) = (self.now(), self.share.get());
        self.share.set(match most {
            None => 0,
            Some(most) if now > most => {
                let step = SHARE_UP.saturating_mul(now.0) / most.0.max(1);
                (share + step.min(SHARE_UP_MAX)).min(SHARE_MAX)
            }
            // What waits shall not come near the limit again: the less is under way, the less each costs.
            _ if !self.is_calm(most) && share > 0 => (share + SHARE_DOWN).min(SHARE_MAX),
            Some(_) => share.saturating_sub(SHARE_DOWN),
        });
    }

    /// How late.
    pub fn now(&self) -> Ms {
        self.last.get().into_iter().min().unwrap_or_default()
    }

    /// Whether a core that may be late by `most` can take more.
    pub(super) fn is_calm(&self, most: Option<Ms>) -> bool {
        most.is_none_or(|most| self.now().0 <= most.0 / CALM)
    }

    /// Whether the next request is one of those that are shed.
    pub(super) fn sheds(&self) -> bool {
        let owed = self.owed.get() + self.share.get();
        self.owed.set(owed % 1000);
        owed >= 1000
    }
}

/// By how much of a thousand the share rises at a tick that is as late as it may be; later ones more, up
/// to a limit. Ticks of a core that is late are seldom, those of one that is not are often.
const SHARE_UP: u32 = 50;
const SHARE_UP_MAX: u32 = 300;
const SHARE_DOWN: u32 = 10;
/// So much less late than it may be, a core can take more.
const CALM: u32 = 4;
/// Some are served even so: by them it shows that it is over.
const SHARE_MAX: u32 = 950;

/// Whether a request is shed, as far as its head can tell; what the gate said of it is `verdict`.
pub(super) fn judge(
    shared: &Shared,
    snapshot: &Snapshot,
    verdict: Verdict,
    key: Option<KeyId>,
    has_body: bool,
) -> Option<Shed> {
    let (load, server) = (&shared.load, &snapshot.server);
    let full = |count: &AtomicU32, most: Option<u32>| {
        most.is_some_and(|most| count.load(Ordering::Relaxed) >= most)
    };
    if verdict == Verdict::Shed {
        return Some(Shed::Lag);
    }
    // With none under way, what is resident is the allocator's, and refusing would never bring it down.
    if has_body && load.is_short_for(1) {
        return Some(Shed::Memory);
    }
    if full(&load.in_flight, server.in_flight_max) {
        return Some(Shed::InFlight);
    }
    let (count, most) = snapshot.of_key(key)?;
    full(count, most).then_some(Shed::Key)
}

/// A request that holds a body, or will; over when it is dropped.
pub(super) struct Holding(Arc<Shared>);

impl Holding {
    /// One more.
    pub(super) fn begin(shared: &Arc<Shared>) -> Holding {
        shared.load.holding.fetch_add(1, Ordering::Relaxed);
        Holding(shared.clone())
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.load.holding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the requests under way; free again when it is dropped.
pub(super) struct Seat {
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    /// Counted among all.
    counted: bool,
    key: Option<KeyId>,
}

impl Seat {
    /// Takes one.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn take(
        shared: &Arc<Shared>,
        snapshot: &Arc<Snapshot>,
        key: Option<KeyId>,
    ) -> Result<Seat, Shed> {
        let most = snapshot.server.in_flight_max;
        // Without a limit nobody counts: cores would only wait for each other.
        if most.is_some() && !take(&shared.load.in_flight, most) {
            return Err(Shed::InFlight);
        }
        let (shared, snapshot) = (shared.clone(), snapshot.clone());
        let mut seat = Seat { shared, snapshot, counted: most.is_some(), key: None };
        if let Some((count, Some(most))) = seat.snapshot.of_key(key) {
            if !take(count, Some(most)) {
                return Err(Shed::Key);
            }
            seat.key = key;
        }
        Ok(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.counted {
            self.shared.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some((count, _)) = self.snapshot.of_key(self.key) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Snapshot {
    /// A key's count of requests under way, and its limit.
    fn of_key(&self, key: Option<KeyId>) -> Option<(&AtomicU32, Option<u32>)> {
        let at = key?.index();
        Some((self.in_flight.get(at)?, self.keys.get(at)?.in_flight_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http1::head;

    #[test]
    fn the_ready_made_refusal_is_whole() {
        let parsed = head::parse_response(REFUSAL, 4096, false).unwrap().unwrap();
        let body = &REFUSAL[parsed.len..];
        assert_eq!(parsed.status, 503);
        assert_eq!(parsed.framing, head::Framing::Length(body.len() as u64));
        let json: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(
            (&json["type"], &json["error"]["code"]),
            (&"error".into(), &"overloaded".into())
        );
    }

    #[test]
    fn clients_are_counted_by_address_and_by_site() {
        let load = Load::default();
        let server = Server {
            connections_max: Some(5),
            connections_per_client: Some(2),
            ..Server::default()
        };
        let connect = |peer: &str| load.connect(&server, peer.parse().unwrap());
        let first = connect("10.0.0.1").unwrap();
        assert_eq!(connect("::ffff:10.0.0.1"), Ok(first), "the same address");
        assert_eq!(connect("10.0.0.1"), Err(Shed::Client));
        assert!(connect("10.0.0.2").is_ok());
        let six = connect("2001:db8::1").unwrap();
        assert_eq!(connect("2001:db8::ffff:2"), Ok(six), "the same /64");
        assert_eq!(connect("10.0.0.3"), Err(Shed::Connections));
        load.disconnect(six);
        assert_eq!(connect("10.0.0.1"), Err(Shed::Client), "a refusal counts nothing");
        load.disconnect(first);
        assert_eq!(connect("10.0.0.1"), Ok(first));
        for client in [first, first, connect("10.0.0.2").unwrap(), six] {
            load.disconnect(client);
        }
        load.disconnect(Some("10.0.0.2".parse().unwrap()));
        assert_eq!(load.connections.load(Ordering::Relaxed), 0);
        assert!(
            load.clients.iter().all(|shard| shard.lock().unwrap().is_empty()),
            "all are forgotten"
        );
    }

    #[test]
    fn memory_comes_down_before_it_is_let_in_again() {
        let load = Load::default();
        for (bytes, over) in
            [(100, false), (101, true), (97, true), (96, true), (95, false), (99, false)]
        {
            load.tell_resident(bytes, 100);
            assert_eq!(load.is_over_memory(), over, "{bytes}");
        }
        load.tell_resident(u64::MAX, u64::MAX);
        assert!(!load.is_over_memory(), "off");
    }

    #[test]
    fn a_missing_descriptor_is_news_once_and_so_is_its_end() {
        let load = Load::default();
        assert!(!load.recovered(Tick(9_000_000)));
        assert!(load.exhausted(Tick(0)));
        assert!(!load.exhausted(Tick(500_000)));
        assert!(!load.recovered(Tick(1_400_000)));
        assert!(load.recovered(Tick(1_600_000)));
        assert!(!load.recovered(Tick(1_700_000)));
        assert!(load.exhausted(Tick(1_800_000)));
    }

    #[test]
    fn one_late_tick_is_no_overload() {
        let late = Lateness::default();
        for (ms, now) in [(900, 0), (0, 0), (900, 0), (700, 0), (800, 700), (1, 1), (900, 1)] {
            late.tell(Ms(ms), None);
            assert_eq!(late.now(), Ms(now));
            assert!(!late.sheds(), "off");
        }
        for ms in [0, 0, 0, 900, 900, 1] {
            late.tell(Ms(ms), Some(Ms(500)));
            assert!(!late.sheds(), "{ms}");
        }
    }

    #[test]
    fn a_tick_that_does_not_come_is_late_without_end() {
        let late = Lateness::default();
        let ms = |ms: u64| Tick(ms * 1000);
        let shed_at = |now| {
            late.miss(ms(now), Some(Ms(500)));
            late.share.get()
        };
        assert_eq!(shed_at(9_000), 0, "none is due");
        late.expect(ms(10_000));
        for now in [10_000, 10_500, 19_000, 19_400, 19_501, 19_900] {
            assert_eq!(shed_at(now), 0, "{now}: one or two are no overload, however late");
        }
        let share = shed_at(20_002);
        assert!(share > 0, "three are");
        assert_eq!(shed_at(20_400), share, "none of them counts twice");
        assert!(shed_at(21_000) > share);
        late.tell(Ms(10_000), Some(Ms(500)));
        let share = late.share.get();
        assert_eq!(shed_at(30_000), share, "it came");
        late.expect(ms(40_000));
        late.miss(ms(90_000), None);
        assert_eq!(late.share.get(), share, "off");
    }

    #[test]
    fn the_share_that_is_shed_rises_and_falls() {
        let late = Lateness::default();
        let shed = || (0..1000).filter(|_| late.sheds()).count();
        let tell = |ms, times| (0..times).for_each(|_| late.tell(Ms(ms), Some(Ms(500))));
        tell(501, 2);
        assert_eq!(shed(), 0);
        tell(501, 1);
        assert_eq!(shed(), 50);
        tell(501, 3);
        assert_eq!(shed(), 200);
        // Twice as late, twice as quickly; then as quickly as may be.
        tell(1_000, 4);
        assert_eq!(shed(), 500);
        tell(60_000, 100);
        assert_eq!(shed(), 950);
        tell(0, 10);
        assert_eq!(shed(), 850);
        // Less late than it may be, and not yet calm. The least of three is what counts.
        tell(126, 3);
        let before = shed();
        tell(126, 5);
        assert_eq!(shed(), before + 50);
        tell(126, 50);
        assert_eq!(shed(), 950);
        tell(125, 10);
        assert_eq!(shed(), 850);
        tell(0, 95);
        assert_eq!(shed(), 0);
        tell(126, 50);
        assert_eq!(shed(), 0, "late enough to go on shedding, and not to begin");
    }
}
