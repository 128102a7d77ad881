//! Names to addresses, on a thread that may block: a core never resolves.
//!
//! The system's resolver gives no time to live, so every name is asked for again after `REFRESH`; one
//! that failed is asked for sooner, and keeps its last good addresses meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::net::core::Shared;
use crate::net::names::is_off_limits;
use crate::route::Table;

/// How often a name that resolved is asked for again.
const REFRESH: Duration = Duration::from_secs(30);
/// How often one that failed is, doubled each time up to `REFRESH`.
const RETRY: Duration = Duration::from_secs(1);

struct Row {
    due: Instant,
    failures: u32,
    /// It was told that some of its addresses are never dialled.
    warned: bool,
}

/// Resolves what the snapshots name until `quit` is dropped. The first round is over when `ready` has
/// been called.
pub fn run(shared: &Arc<Shared>, quit: &Receiver<()>, ready: impl FnOnce(), say: fn(&str)) {
    let mut rows: BTreeMap<Arc<str>, Row> = BTreeMap::new();
    let mut ready = Some(ready);
    loop {
        let now = Instant::now();
        for host in hosts(&shared.snapshot().table) {
            rows.entry(host).or_insert(Row { due: now, failures: 0, warned: false });
        }
        for (host, row) in rows.iter_mut().filter(|(_, row)| row.due <= now) {
            resolve(shared, host, row, say);
        }
        if let Some(ready) = ready.take() {
            ready();
        }
        match quit.recv_timeout(Duration::from_secs(1)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Resolves what a table names and nobody has asked for yet, before requests do.
pub fn prime(shared: &Shared, table: &Table, say: fn(&str)) {
    for host in hosts(table).into_iter().filter(|host| !shared.names.knows(host)) {
        resolve(shared, &host, &mut Row { due: Instant::now(), failures: 0, warned: false }, say);
    }
}

/// The names of a table that are no literal addresses.
fn hosts(table: &Table) -> Vec<Arc<str>> {
    let hosts = table.endpoints.iter().map(|(_, endpoint)| endpoint.host.clone());
    hosts.filter(|host| host.parse::<IpAddr>().is_err()).collect()
}

fn resolve(shared: &Shared, host: &Arc<str>, row: &mut Row, say: fn(&str)) {
    let found = (&**host, 0).to_socket_addrs().map(|addresses| {
        let mut ips: Vec<IpAddr> = addresses.map(|address| address.ip()).collect();
        ips.dedup();
        ips
    });
    let why = match found {
        Ok(ips) if !ips.is_empty() => {
            if row.failures > 0 {
                say(&format!("{host} resolves again"));
            }
            shared.names.publish(host, &ips);
            let off_limits = ips.iter().find(|ip| is_off_limits(**ip));
            if let Some(ip) = off_limits.filter(|_| !row.warned) {
                say(&format!(
                    "{host} leads to {ip}, which is not dialled unless the config names it itself"
                ));
            }
            let warned = off_limits.is_some();
            *row = Row { due: Instant::now() + REFRESH, failures: 0, warned };
            return;
        }
        Ok(_) => String::from("it has no address"),
        Err(error) => error.to_string(),
    };
    if row.failures == 0 {
        let last = if shared.names.knows(host) { "; its last addresses stay in use" } else { "" };
        say(&format!("{host} does not resolve: {why}{last}"));
    }
    row.failures = row.failures.saturating_add(1);
    let pause = RETRY.saturating_mul(1 << row.failures.min(6)).min(REFRESH);
    row.due = Instant::now() + pause;
}
