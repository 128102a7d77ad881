//! The laws of the runtime seam (`src/rt/mod.rs`), each one function over any `Rt`, run on the
//! simulator and on both drivers of the real runtime. A law that holds on one of them alone is
//! no law: code tested on the simulator would break in production.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // A test, helpers too.

#[path = "rt_laws/ends.rs"]
mod ends;
#[path = "rt_laws/flow.rs"]
mod flow;
#[path = "rt_laws/laws.rs"]
mod laws;

use std::net::SocketAddr;
use std::rc::Rc;

use firstbyte::base::tick::Ms;
use firstbyte::rt::Rt;
use firstbyte::rt::sim::{Faults, World};

use self::laws::{Bed, Law, laws, or_late};

/// Longer than any law takes; a law that takes longer hangs.
const LAW_MS: Ms = Ms(30_000);

/// Runs a law under a deadline.
async fn hold<R: Rt>(platform: &str, name: &str, rt: R, law: Law<R>, bed: Bed<R>) {
    let deadline = rt.now() + LAW_MS;
    assert!(or_late(&rt, deadline, law(bed)).await.is_some(), "{platform}: {name} hangs");
}

/// Faults under which every law holds: all that change when things happen and in which portions.
fn lively() -> Faults {
    Faults {
        latency_us: (0, 300),
        short_read: 5,
        short_write: 5,
        late_done: 2,
        late_done_us: (0, 1_000),
        shuffle: true,
        stop_late: 2,
        stop_late_us: (0, 1_000),
        stop_loses: 2,
        late_timers: true,
        ..Faults::none()
    }
}

fn simulate(seed: u64, faults: &Faults, index: usize) {
    let world = Rc::new(World::new(seed, faults.clone()));
    let [addr, deaf, closed] = [1, 2, 3].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
    world.blackhole(deaf);
    let sockets = world.clone();
    let bed = Bed {
        rt: world.rt(),
        listener: world.listen(addr),
        addr,
        deaf,
        closed,
        sockets: Rc::new(move || sockets.open_sockets()),
        base: 0,
    };
    let (name, law) = laws().remove(index);
    world.block_on(hold("simulator", name, world.rt(), law, bed));
    world.settle();
    let left = (world.open_sockets(), world.pending_ops(), world.live_tasks(), world.lost_ops());
    assert_eq!(left, (0, 0, 0, 0), "{name}: {}", world.report("not clean"));
}

#[test]
fn the_simulator_keeps_the_laws() {
    for index in 0..laws::<firstbyte::rt::sim::SimRt>().len() {
        simulate(1, &Faults::none(), index);
        for seed in 0..40 {
            simulate(seed, &lively(), index);
        }
    }
}

#[cfg(feature = "uring")]
mod real {
    use std::cell::Cell;
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use firstbyte::rt::uring::{Loop, Mono, MonoListener};
    use firstbyte::rt::{Accept as _, Reader as _, Stop as _};

    use super::*;

    /// Laws count the sockets of the whole process, so one driver is tested at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn sockets() -> usize {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// A listener whose backlog is full: Linux drops what else knocks, so a dial waits.
    struct Deaf {
        addr: SocketAddr,
        _sockets: Vec<socket2::Socket>,
    }

    fn deaf() -> Deaf {
        let socket = || {
            let kind = socket2::Type::STREAM;
            socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap()
        };
        let listener = socket();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let knock = socket();
            knock.set_nonblocking(true).unwrap();
            let _ = knock.connect(&addr);
            sockets.push(knock);
        }
        Deaf { addr: addr.as_socket().unwrap(), _sockets: sockets }
    }

    /// An address where nobody listens: its port was free a moment ago.
    fn closed() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn keeps_the_laws(platform: &'static str, build: fn() -> std::io::Result<Loop>) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = build() {
            assert_eq!(platform, "io_uring", "epoll is always there");
            // Not by a macro: the harness would keep that to itself when the test passes.
            let said = format!("SKIPPED on io_uring, which this machine refuses: {error}\n");
            std::io::stderr().write_all(said.as_bytes()).unwrap();
            return;
        }
        let deaf = deaf();
        for (name, law) in laws::<Mono>() {
            eprintln!("{platform}: {name}");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let (deaf, closed) = (deaf.addr, closed());
            let mut core = build().unwrap();
            let engine = core.engine();
            core.run(|rt| async move {
                let listener = MonoListener::from_std(listener, engine).unwrap();
                let sockets = Rc::new(sockets);
                let base = sockets();
                let bed = Bed { rt: rt.clone(), listener, addr, deaf, closed, sockets, base };
                hold(platform, name, rt, law, bed).await;
            });
        }
    }

    #[test]
    fn io_uring_keeps_the_laws() {
        keeps_the_laws("io_uring", Loop::io_uring);
    }

    #[test]
    fn epoll_keeps_the_laws() {
        keeps_the_laws("epoll", Loop::epoll);
    }

    /// Not a law of the simulator, where a panic ends the test.
    #[test]
    fn a_panic_of_a_task_is_caught_and_counted() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for build in [Loop::epoll, Loop::io_uring] {
            let Ok(mut core) = build() else { continue };
            let panics = core.run(|rt| async move {
                rt.spawn(async { panic!("on purpose") });
                while rt.panics() == 0 {
                    rt.sleep_until(rt.now() + Ms(1)).await;
                }
                rt.panics()
            });
            assert_eq!(panics, 1);
        }
    }

    /// Not a law of the simulator, where a task takes no time. The wait is in the kernel where a round of
    /// the loop takes only some of what is ready, and no timer shows it.
    #[test]
    fn lag_is_how_long_what_is_ready_waits() {
        const READY: usize = 300;
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for build in [Loop::epoll, Loop::io_uring] {
            let Ok(mut core) = build() else { continue };
            let engine = core.engine();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            core.run(|rt| async move {
                let listener = MonoListener::from_std(listener, engine).unwrap();
                let served = Rc::new(Cell::new(0));
                let mut far = Vec::new();
                for _ in 0..READY {
                    far.push(rt.dial(addr).await.unwrap());
                    let stop = <Mono as Rt>::Stop::new().handle();
                    let (reader, writer, _) = listener.accept(stop).await.unwrap();
                    let served = served.clone();
                    rt.spawn(async move {
                        reader.ready().await.unwrap();
                        let began = Instant::now();
                        while began.elapsed() < Duration::from_millis(1) {}
                        served.set(served.get() + 1);
                        drop((reader, writer));
                    });
                }
                rt.lag().await;
                assert_eq!(served.get(), 0);
                for (_, writer) in &mut far {
                    laws::send(writer, b"x").await.unwrap();
                }
                rt.lag().await;
                // Not all: the kernel may bring one or the other late.
                assert!(served.get() > READY / 2, "{engine:?}: {} of {READY}", served.get());
                // A dropped one does no harm.
                let _ = or_late(&rt, rt.now(), rt.lag()).await;
                for _ in 0..3 {
                    rt.lag().await;
                }
            });
        }
    }
}
