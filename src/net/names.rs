//! Addresses of names, published by a thread that may block and read by the cores, which may not.
//! A core never resolves.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};

use smallvec::SmallVec;

/// The addresses of one endpoint, in the order in which they are tried.
pub type Addresses = SmallVec<[SocketAddr; 4]>;

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
