//! A drain on the simulator's clock: what is idle closes at once, what pauses between two requests does
//! not lose the next one.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use firstbyte::base::buf::Buf;
use firstbyte::base::ids::CoreId;
use firstbyte::base::tick::{Ms, Tick};
use firstbyte::config;
use firstbyte::net::beacon::Level;
use firstbyte::net::core::{self, Shared, Snapshot};
use firstbyte::net::names::Names;
use firstbyte::route;
use firstbyte::rt::sim::{Faults, SimRt, SimStop, World};
use firstbyte::rt::{Reader as _, Rt, Stop as _};

use super::{Notes, more, send};

const MODELS: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
const DRAIN: Tick = Tick(5_000_000);

/// Asks at each of these times on one connection; says how many answers came, and when the end did.
async fn ask(rt: SimRt, gateway: SocketAddr, at: Vec<Ms>) -> (usize, Tick) {
    let (mut reader, mut writer) = rt.dial(gateway).await.unwrap();
    let (mut answers, mut rx, stop) = (0, Buf::new(), SimStop::new());
    for at in at {
        rt.sleep_until(Tick(0) + at).await;
        if !send(&mut writer, MODELS).await {
            break;
        }
        rx.clear();
        // Nothing is cut short here: an answer comes in one piece.
        if more(&mut reader, &mut rx, &stop).await.is_none() {
            break;
        }
        assert!(rx.as_slice().starts_with(b"HTTP/1.1 200 OK\r\n"));
        answers += 1;
    }
    let (result, _) = reader.read(Buf::with_capacity(64), stop.handle()).await;
    assert!(matches!(result, Ok(0)), "{result:?}");
    (answers, rt.now())
}

#[test]
fn a_drain_closes_what_is_idle_at_once_and_waits_for_what_is_not() {
    let world = World::new(7, Faults::none());
    let gateway: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let text = "[server]\nlisten = [\"127.0.0.1:80\"]\nadmin = \"off\"\n[providers.p]\nkind = \"openai\"\n\
                base_url = \"http://10.0.1.1:80/v1\"\n[models.m]\ntargets = [\"p/up\"]\n";
    let config = config::load(text, &|_| Err("none".into())).unwrap();
    let table = route::compile(&config, None).unwrap();
    let snapshot = Snapshot::new(1, config.server, config.auth, table).unwrap();
    let shared = Arc::new(Shared::new(snapshot, Names::default(), Arc::new(Notes::default())));
    let listener = world.listen(gateway);
    let results = Rc::new(RefCell::new(Vec::new()));
    // Never used, used long ago, used just now, and one that asks again while the process drains.
    let clients = [vec![], vec![Ms(100)], vec![Ms(4_900)], vec![Ms(4_500), Ms(5_300)]];
    for (index, at) in clients.into_iter().enumerate() {
        let (rt, results) = (world.rt(), results.clone());
        world.rt().spawn(async move {
            let got = ask(rt, gateway, at).await;
            results.borrow_mut().push((index, got));
        });
    }
    let (rt, control) = (world.rt(), shared.clone());
    world.rt().spawn(async move {
        rt.sleep_until(DRAIN).await;
        control.raise(Level::Draining);
    });
    world.block_on(core::serve(world.rt(), vec![listener], shared, CoreId(0), 7));
    world.settle();
    let mut results = results.take();
    results.sort_unstable_by_key(|(index, _)| *index);
    let ends: Vec<_> = results.iter().map(|(_, (_, at))| at.ms_since(DRAIN)).collect();
    let answers: Vec<_> = results.iter().map(|(_, (answers, _))| *answers).collect();
    assert_eq!(answers, [0, 1, 1, 2]);
    // Two rounds of the ticker, and the way.
    assert!(ends[0] < 150 && ends[1] < 150, "{ends:?}");
    assert!((850..1_100).contains(&ends[2]), "quiet for a second by then: {ends:?}");
    assert!((300..450).contains(&ends[3]), "its answer is the last: {ends:?}");
}
