//! The gate by hand, and a core that is asked for three times what it can do, by numbers.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake};

use super::*;
use crate::base::tick::Ms;

const MOST: Option<Ms> = Some(Ms(100));

/// A core that is late, for good.
fn late() -> (Lateness, Server) {
    let lateness = Lateness::default();
    (0..100).for_each(|_| lateness.tell(Ms(60_000), MOST));
    (lateness, Server { lag_max: MOST, ..Server::default() })
}

/// The verdicts of so many requests.
fn verdicts(gate: &Gate, (lateness, server): &(Lateness, Server), count: usize) -> [usize; 3] {
    let mut sums = [0; 3];
    for _ in 0..count {
        match gate.judge((lateness, Tick(0)), server) {
            Some(Verdict::Serve) => sums[0] += 1,
            Some(Verdict::Shed) => sums[1] += 1,
            None => sums[2] += 1,
        }
    }
    sums
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(wait: Pin<&mut impl Future<Output = Verdict>>, woken: &Arc<Woken>) -> Option<Verdict> {
    match wait.poll(&mut Context::from_waker(&woken.clone().into())) {
        Poll::Ready(verdict) => Some(verdict),
        Poll::Pending => None,
    }
}

#[test]
fn a_core_in_time_serves_all() {
    let gate = Gate::new();
    let calm = (Lateness::default(), Server { lag_max: MOST, ..Server::default() });
    assert_eq!(verdicts(&gate, &calm, 10_000), [10_000, 0, 0]);
}

#[test]
fn refusals_take_their_share_of_the_time_and_no_more() {
    let (gate, late) = (Gate::new(), late());
    let saved = (PURSE_MAX / COST) as usize;
    assert_eq!(verdicts(&gate, &late, 10_000), [500, saved, 9_500 - saved]);
    gate.tick(Tick(0), false);
    assert_eq!(verdicts(&gate, &late, 1_000), [50, 0, 950], "no time has passed");
    // 100 ms, of which 5 are for refusals.
    gate.tick(Tick(100_000), false);
    assert_eq!(verdicts(&gate, &late, 1_000), [50, 200, 750]);
    gate.tick(Tick(60_000_000), false);
    assert_eq!(verdicts(&gate, &late, 1_000), [50, saved, 950 - saved], "no more is saved up");
}

#[test]
fn who_waits_is_refused_in_turn_and_nobody_overtakes() {
    let (gate, late, woken) = (Gate::new(), late(), Arc::default());
    verdicts(&gate, &late, 10_000);
    let (mut first, mut gone, mut last) =
        (pin!(gate.wait()), Box::pin(gate.wait()), pin!(gate.wait()));
    assert_eq!(poll(first.as_mut(), &woken), None);
    assert_eq!(poll(gone.as_mut(), &woken), None);
    assert_eq!(poll(last.as_mut(), &woken), None);
    assert_eq!(gate.waiting(), 3);
    drop(gone);
    gate.tick(Tick(500), false);
    assert_eq!((woken.0.load(Ordering::SeqCst), gate.waiting()), (1, 2));
    assert_eq!(poll(first.as_mut(), &woken), Some(Verdict::Shed));
    assert_eq!(poll(last.as_mut(), &woken), None);
    gate.purse.set(COST);
    assert_eq!(verdicts(&gate, &late, 1_000)[1], 0, "one waits");
    gate.tick(Tick(500), false);
    assert_eq!(poll(last.as_mut(), &woken), Some(Verdict::Shed), "the one before it is gone");
    assert_eq!(gate.waiting(), 0);
}

#[test]
fn a_calm_core_and_one_that_drains_serve_who_waits() {
    let (gate, woken) = (Gate::new(), Arc::default());
    gate.purse.set(0);
    let mut waits: Vec<_> = (0..40).map(|_| Box::pin(gate.wait())).collect();
    waits.iter_mut().for_each(|wait| assert_eq!(poll(wait.as_mut(), &woken), None));
    gate.tick(Tick(0), true);
    let mut serve = |count: usize| {
        for mut wait in waits.drain(..count) {
            assert_eq!(poll(wait.as_mut(), &woken), Some(Verdict::Serve));
        }
        gate.waiting()
    };
    assert_eq!(serve(3), 37, "a part of them");
    gate.open();
    assert_eq!(serve(37), 0);
    assert_eq!(verdicts(&gate, &late(), 1_000), [50, 950, 0], "nobody waits any more");
    assert_eq!(gate.purse.get(), 0);
    gate.tick(Tick(0), true);
    assert_eq!(gate.purse.get(), PURSE_MAX, "there is time for refusals");
}
