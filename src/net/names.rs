//! Addresses of names, published by a thread that may block and read by the cores, which may not.
//! A core never resolves.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, RwLock};

use smallvec::SmallVec;

/// The addresses of one endpoint, in the order in which they are tried.
pub type Addresses = SmallVec<[SocketAddr; 4]>;

/// Whether no name may lead to this address: link-local ones, those at which clouds tell a host its
/// credentials, and those that are no host's. Whoever answers for a provider's name could otherwise have
/// requests sent there. A config may name such an address itself.
pub fn is_off_limits(ip: IpAddr) -> bool {
    const METADATA_V4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    const METADATA_V6: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.octets()[0] == 0
                || v4.is_multicast()
                || v4.is_broadcast()
                || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            let embedded = embedded_v4(v6);
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || METADATA_V6.contains(&v6)
                || embedded.is_some_and(|v4| is_off_limits(v4.into()))
        }
    }
}

/// The IPv4 address that a translator would go on to: of the well-known prefix 64:ff9b::/96 (RFC 6052).
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = v6.segments();
    let octets = v6.octets();
    let last = [octets[12], octets[13], octets[14], octets[15]];
    (segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0]).then(|| last.into())
}

/// What is known of names. Literal addresses are never looked up.
#[derive(Default)]
pub struct Names {
    rows: RwLock<HashMap<Arc<str>, Arc<[IpAddr]>>>,
}

impl Names {
    /// The addresses of `host`; empty if it has not resolved.
    pub fn find(&self, host: &str, port: u16) -> Addresses {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return SmallVec::from_iter([SocketAddr::new(ip, port)]);
        }
        let rows = self.rows.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        rows.get(host)
            .map(|ips| ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
            .unwrap_or_default()
    }

    /// The addresses of `host` that may be dialled, and whether one was left out: what the config names
    /// itself is dialled, whatever it is, but a name leads only so far.
    pub fn dialable(&self, host: &str, port: u16) -> (Addresses, bool) {
        let mut addresses = self.find(host, port);
        if host.parse::<IpAddr>().is_ok() {
            return (addresses, false);
        }
        let count = addresses.len();
        addresses.retain(|address| !is_off_limits(address.ip()));
        let left_out = addresses.len() < count;
        (addresses, left_out)
    }

    /// Publishes what a name resolved to. An empty answer leaves the last good one.
    pub fn publish(&self, host: &Arc<str>, ips: &[IpAddr]) {
        if ips.is_empty() {
            return;
        }
        let mut rows = self.rows.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        rows.insert(host.clone(), Arc::from(ips));
    }

    /// Whether `host` needs no look-up, or has one.
    pub fn knows(&self, host: &str) -> bool {
        !self.find(host, 0).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_name_may_lead_to() {
        for off in [
            "169.254.169.254",
            "169.254.0.1",
            "169.254.255.255",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(is_off_limits(off.parse().unwrap()), "{off}");
        }
        for fine in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "93.184.216.34",
            "169.253.255.255",
            "169.255.0.0",
            "::1",
            "fd00::1",
            "2606:4700::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
        ] {
            assert!(!is_off_limits(fine.parse().unwrap()), "{fine}");
        }
    }

    #[test]
    fn only_the_config_leads_to_such_an_address() {
        let names = Names::default();
        let host: Arc<str> = Arc::from("api.example");
        names.publish(&host, &["169.254.169.254".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        let (addresses, left_out) = names.dialable(&host, 443);
        assert_eq!(
            (addresses.as_slice(), left_out),
            (&["10.0.0.2:443".parse().unwrap()][..], true)
        );
        names.publish(&host, &["10.0.0.2".parse().unwrap()]);
        assert!(!names.dialable(&host, 443).1);
        let (addresses, left_out) = names.dialable("169.254.169.254", 80);
        assert_eq!((addresses.len(), left_out), (1, false));
    }

    #[test]
    fn literals_need_no_look_up_and_the_last_good_answer_stays() {
        let names = Names::default();
        assert_eq!(names.find("127.0.0.1", 80).as_slice(), &["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(names.find("::1", 80).as_slice(), &["[::1]:80".parse().unwrap()]);
        let host: Arc<str> = Arc::from("api.example");
        assert!(!names.knows(&host));
        names.publish(&host, &["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        names.publish(&host, &[]);
        assert_eq!(names.find(&host, 443).len(), 2);
    }
}
