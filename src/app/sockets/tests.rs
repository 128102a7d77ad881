//! Sockets of loopback, and how they change hands.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

const ANYWHERE: &str = "127.0.0.1:0";
const PATIENCE: Duration = Duration::from_secs(30);

fn given(kept: bool) -> Given {
    let listener = TcpListener::bind(ANYWHERE).unwrap();
    Given::new(listener.into(), kept).unwrap()
}

#[test]
fn cores_share_few_sockets_and_spread_many() {
    for (passed, cores) in [(1, 4), (2, 4), (3, 2), (4, 4), (5, 1), (1, 1)] {
        let first = uring::listen(ANYWHERE.parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let mut list = vec![Given::new(first.into(), false).unwrap()];
        for _ in 1..passed {
            list.push(Given::new(uring::listen(address).unwrap().into(), false).unwrap());
        }
        let sockets = Sockets::open(&[address], cores, &mut list).unwrap();
        assert!(list.is_empty());
        let own: Vec<usize> = (0..cores).map(|core| sockets.of_core(core, cores).len()).collect();
        assert!(own.iter().all(|count| *count > 0), "{passed} for {cores}: {own:?}");
        assert_eq!(own.iter().sum::<usize>(), passed.max(cores), "{passed} for {cores}: {own:?}");
        sockets.close();
        assert!(sockets.of_core(0, cores).is_empty());
    }
}

#[test]
fn only_addresses_of_the_config_are_taken() {
    let mut list = vec![given(true), given(false)];
    let wanted = list[0].address();
    let sockets = Sockets::open(&[wanted], 1, &mut list).unwrap();
    assert_eq!((sockets.addresses(), list.len()), (vec![wanted], 1));
    let taken: Vec<bool> = sockets.pass_on().iter().map(|(_, kept)| *kept).collect();
    assert_eq!(taken, [true]);
    let other = list[0].address();
    assert_eq!(admin(other, &mut list).unwrap().local_addr().unwrap(), other);
    assert!(list.is_empty());
}

#[test]
fn what_is_no_listener_is_refused() {
    let udp = std::net::UdpSocket::bind(ANYWHERE).unwrap();
    assert!(Given::new(udp.into(), true).is_err());
    let listener = TcpListener::bind(ANYWHERE).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(Given::new(client.into(), true).is_err());
}

#[test]
fn an_address_is_not_shared_with_a_stranger() {
    // As a process that was killed leaves it: listening, and open to others of the same user.
    let dying = uring::listen(ANYWHERE.parse().unwrap()).unwrap();
    let address = dying.local_addr().unwrap();
    assert_eq!(probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let begins = std::thread::spawn(move || {
        let sockets = Sockets::open(&[address], 2, &mut Vec::new()).unwrap();
        (sockets, Instant::now())
    });
    // Its last connection is its own, and is reset with it.
    let mut lost = TcpStream::connect(address).unwrap();
    let ended = Instant::now();
    drop(dying);
    let (sockets, began) = begins.join().unwrap();
    assert!(began >= ended, "bound while another listened");
    assert!(lost.read(&mut [0]).is_err());
    // Nothing else is in the way of the first one.
    let client = TcpStream::connect(address).unwrap();
    assert_eq!(client.peer_addr().unwrap(), sockets.addresses()[0]);
}

#[test]
fn a_queue_can_be_emptied_while_no_connection_begins() {
    let mut list = vec![given(false)];
    let address = list[0].address();
    let sockets = Sockets::open(&[address], 1, &mut list).unwrap();
    let mut before = TcpStream::connect(address).unwrap();
    sockets.refuse_new();
    // The first packet is not answered, so the connection neither begins nor fails.
    let after = TcpStream::connect_timeout(&address, Duration::from_millis(300));
    assert_eq!(after.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let (mut stream, _) = sockets.of_core(0, 1)[0].accept().unwrap();
    before.write_all(b"what came before is served").unwrap();
    before.shutdown(std::net::Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert_eq!(said, "what came before is served");
    sockets.close();
    // Whoever tries now is told at once.
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
