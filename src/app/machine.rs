//! What the machine gives: descriptors and memory. Says at the start whether they hold what is configured,
//! has memory given in small pages, and watches it on a thread of its own, since a core never reads a file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::base::limits;
use crate::config::Server;
use crate::net::core::Shared;

/// How often memory is looked at: a core takes in some 100 MB meanwhile, from clients at 10 Gbit/s.
const PERIOD: Duration = Duration::from_millis(100);
/// Descriptors of a connection: its own, and one to a provider.
const PER_CONNECTION: u64 = 2;
/// Descriptors for listeners, rings, logs, the admin listener, what is resolved or fetched, and connections
/// that are refused.
const RESERVE: u64 = 64 + limits::REFUSALS_MAX as u64;
/// Connections that are never forbidden for want of descriptors.
const CONNECTIONS_MIN: u64 = 16;
/// Descriptors below which a gateway is cramped.
const DESCRIPTORS_WANTED: u64 = 65_536;

/// Raises the limit on descriptors to what is allowed.
pub fn raise_descriptors() {
    let Ok((soft, hard)) = rlimit::Resource::NOFILE.get() else { return };
    if soft < hard {
        // A refusal leaves the soft limit as it was.
        let _ = rlimit::Resource::NOFILE.set(hard, hard);
    }
}

/// Takes memory in pages of the usual size only (PR_SET_THP_DISABLE, prctl(2)). The allocator asks for huge
/// ones where the system gives them to who asks, and what streams need lies so scattered that 2 MiB are
/// resident for some KiB in use: 2,000 streams took 49 MiB with them and 35 without, at the same cost in CPU.
#[allow(unsafe_code)]
pub fn refuse_huge_pages() {
    let (on, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the call takes numbers only. A refusal leaves huge pages as they were, which is no harm.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, none, none, none) };
}

/// What of `[server]` depends on the machine: a `connections_max` that is not given is what descriptors
/// hold, and one that they can't hold is told.
pub fn fitted(server: &Server, say: impl Fn(&str)) -> Server {
    let mut server = server.clone();
    if let Ok((allowed, _)) = rlimit::Resource::NOFILE.get() {
        let (connections, warning) = fit(server.connections_max, allowed);
        server.connections_max = Some(connections);
        if let Some(warning) = warning {
            say(&warning);
        }
    }
    server
}

fn fit(wanted: Option<u32>, allowed: u64) -> (u32, Option<String>) {
    let holds = (allowed.saturating_sub(RESERVE) / PER_CONNECTION).max(CONNECTIONS_MIN);
    let holds = u32::try_from(holds).unwrap_or(u32::MAX);
    match wanted {
        None => {
            let warning = format!(
                "only {allowed} descriptors are allowed (ulimit -n), so there can be {holds} \
                 client connections"
            );
            (holds, (allowed < DESCRIPTORS_WANTED).then_some(warning))
        }
        Some(wanted) => {
            let needs = u64::from(wanted) * PER_CONNECTION + RESERVE;
            let warning = format!(
                "connections_max = {wanted} needs {needs} descriptors, and {allowed} are allowed \
                 (ulimit -n): they hold {holds} connections"
            );
            (wanted, (wanted > holds).then_some(warning))
        }
    }
}

/// Tells the cores how much memory is resident until `quit` is dropped. `ready` is called after the first
/// look.
pub fn watch_memory(
    shared: &Arc<Shared>,
    quit: &Receiver<()>,
    ready: impl FnOnce(),
    say: fn(&str),
) {
    let usual = most_by_default();
    let status = File::open("/proc/self/status");
    let (mut ready, mut was_over) = (Some(ready), false);
    loop {
        let most = shared.snapshot().server.memory_max.unwrap_or(usual);
        if let Some(bytes) = status.as_ref().ok().and_then(resident) {
            shared.load.tell_resident(bytes, most);
        }
        let is_over = shared.load.is_over_memory();
        if is_over != was_over {
            let mib = shared.load.resident() >> 20;
            let what = if is_over { "above" } else { "below" };
            say(&format!("{mib} MiB are resident, {what} memory_max ({} MiB)", most >> 20));
            was_over = is_over;
        }
        if let Some(ready) = ready.take() {
            ready();
        }
        match quit.recv_timeout(PERIOD) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// `VmRSS` of proc_pid_status(5), which is in KiB whatever the page size. The file stays open: this works
/// without a free descriptor.
fn resident(status: &File) -> Option<u64> {
    let mut text = [0; 4096];
    let count = status.read_at(&mut text, 0).ok()?;
    kib_of(std::str::from_utf8(&text[..count]).ok()?, "VmRSS:")
}

/// A line `NAME   123 kB`, in bytes.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Four fifths of what the machine has, or the least of what its control groups allow.
fn most_by_default() -> u64 {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let total = read(Path::new("/proc/meminfo")).and_then(|text| kib_of(&text, "MemTotal:"));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups);
    let limits = limits.iter().filter_map(|path| read(path)?.trim().parse::<u64>().ok());
    limits.chain(total).min().map_or(u64::MAX, |most| most / 5 * 4)
}

/// Where the limits of the groups of cgroups(7) are that hold this process, from its own to the topmost.
/// In a container the topmost is its own.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let own = Path::new(path.trim_start_matches('/'));
        files.extend(own.ancestors().map(|group| Path::new(root).join(group).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_descriptors_or_it_is_told() {
        assert_eq!(fit(None, 1_000_128), (500_000, None));
        let (connections, warning) = fit(None, 1_024);
        assert_eq!(connections, 448);
        assert!(warning.unwrap().contains("only 1024 descriptors"));
        assert_eq!(fit(None, 10).0, 16);
        assert_eq!(fit(None, u64::MAX).0, u32::MAX);
        assert_eq!(fit(Some(448), 1_024), (448, None));
        let (connections, warning) = fit(Some(449), 1_024);
        assert_eq!(connections, 449, "what is written stands");
        assert!(warning.unwrap().contains("needs 1026 descriptors, and 1024 are allowed"));
    }

    #[test]
    fn resident_memory_is_read_without_a_new_descriptor() {
        let status = File::open("/proc/self/status").unwrap();
        let before = resident(&status).unwrap();
        let taken = vec![1_u8; 64 << 20];
        let after = resident(&status).unwrap();
        assert!(after > before + (32 << 20), "{before} {after} {}", taken.len());
        assert_eq!(kib_of("Name: x\nVmRSS:\t    12 kB\nx: 1 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(kib_of("VmRSS: 12 MB\n", "VmRSS:"), None);
    }

    #[test]
    fn limits_of_groups_are_looked_for_up_to_the_top() {
        let show = |text: &str| -> Vec<String> {
            limit_files(text).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            show("0::/system.slice/x.service\n"),
            [
                "/sys/fs/cgroup/system.slice/x.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(
            show("5:devices:/\n4:cpu,memory:/a\n"),
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert!(show("nonsense\n1:\n").is_empty());
        assert!(most_by_default() > 0);
    }
}
