//! Each fault shows, and only where it was asked for.

use super::*;

/// Sends `total` bytes under `faults`: what each read gave, how it ended, and how long it took.
fn transfer(faults: Faults, seed: u64, total: usize) -> (Vec<usize>, Option<i32>, u64) {
    let world = World::new(seed, faults);
    let listener = world.listen(addr(1));
    let rt = world.rt();
    let sizes = RefCell::new(Vec::new());
    let error = world.block_on(async {
        let [(mut reader, _keep), (_far, mut writer)] = pair(&rt, &listener).await;
        rt.spawn(async move {
            let _ = send(&mut writer, &vec![b'x'; total]).await;
            drop(_far);
        });
        loop {
            match receive(&mut reader, 4096).await {
                Ok(bytes) if bytes.is_empty() => return None,
                Ok(bytes) => sizes.borrow_mut().push(bytes.len()),
                Err(error) => return error.raw_os_error(),
            }
        }
    });
    (sizes.into_inner(), error, rt.now().0)
}

#[test]
fn each_fault_of_the_network_shows() {
    let calm = Faults::none();
    let (sizes, error, us) = transfer(calm.clone(), 1, 10_000);
    assert_eq!((sizes, error), (vec![4096, 4096, 1808], None));
    assert_eq!(us, 60, "a handshake of two latencies, a segment of one");

    let (sizes, error, _) = transfer(Faults { short_read: 1, ..calm.clone() }, 1, 1_000);
    assert!(sizes.contains(&1) && sizes.len() > 3, "{sizes:?}");
    assert_eq!((sizes.iter().sum::<usize>(), error), (1_000, None));

    let drip = Faults { drip: 1, drip_bytes: (10, 10), drip_us: (500, 500), ..calm.clone() };
    let (sizes, error, us) = transfer(drip, 1, 100);
    assert_eq!((sizes, error), (vec![10; 10], None));
    assert!(us >= 10 * 500, "{us}");

    let stall = Faults { stall: 1, stall_at: (7, 7), stall_us: (9_000, 9_000), ..calm.clone() };
    let (sizes, error, us) = transfer(stall, 1, 20);
    assert_eq!((sizes, error), (vec![7, 13], None));
    assert!(us >= 9_000, "{us}");

    for at in 0..20_u32 {
        let reset = Faults { reset: 1, reset_at: (at, at), ..calm.clone() };
        let (sizes, error, _) = transfer(reset, u64::from(at), 20);
        assert_eq!(sizes.iter().sum::<usize>(), at as usize, "all that came before byte {at}");
        assert_eq!(error, Some(ECONNRESET));
    }

    let jump = Faults { clock_jump: 1, clock_jump_us: (50_000, 50_000), ..calm };
    assert!(transfer(jump, 1, 10).2 >= 50_000);
}

#[test]
fn while_the_clock_stands_no_timer_fires_and_no_time_passes() {
    let stall_us = 50_000;
    let faults = Faults { clock_stall: 1, clock_stall_us: (stall_us, stall_us), ..Faults::none() };
    let world = World::new(1, faults);
    let listener = world.listen(addr(1));
    let rt = world.rt();
    world.block_on(async {
        let [(mut reader, _keep), (_far, mut writer)] = pair(&rt, &listener).await;
        let (before, timer) = (rt.now(), rt.sleep_until(rt.now() + Ms(1)));
        send(&mut writer, b"on its way").await.unwrap();
        drop(writer);
        assert_eq!(to_end(&mut reader).await.unwrap(), b"on its way");
        assert_eq!(rt.now(), before, "bytes go on while the clock stands");
        timer.await;
        assert!(rt.now().0 >= before.0 + u64::from(stall_us) - 1_000, "{:?}", rt.now());
    });
    assert!(world.unsteady_us() >= u64::from(stall_us));
}

#[test]
fn the_wall_clock_is_set_and_the_other_one_is_not() {
    let faults = Faults { wall_step: 1, wall_step_ms: 3_600_000, ..Faults::none() };
    let world = World::new(1, faults);
    let rt = world.rt();
    let (mut forward, mut back) = (0, 0);
    world.block_on(async {
        for _ in 0..100 {
            let (wall, now) = (rt.wall(), rt.now());
            rt.sleep_until(now + Ms(1)).await;
            assert_eq!(rt.now(), now + Ms(1));
            forward += u32::from(rt.wall().0 > wall.0 + 1);
            back += u32::from(rt.wall() < wall);
        }
    });
    assert!(forward > 20 && back > 20, "{forward} forward, {back} back");
}

/// A read with bytes on their way is stopped: whether it was in vain, and what a second read gave.
fn stop_race(faults: Faults, seed: u64) -> (bool, Vec<u8>) {
    let world = World::new(seed, faults);
    let listener = world.listen(addr(1));
    let rt = world.rt();
    world.block_on(async {
        let [(mut reader, _keep), (_far, mut writer)] = pair(&rt, &listener).await;
        send(&mut writer, b"on its way").await.unwrap();
        drop(writer);
        let mut stop = SimStop::new();
        let read = reader.read(Buf::with_capacity(64), stop.handle());
        let ((count, buf), _) = until(&rt, &mut stop, rt.now(), read).await;
        let lost = count.is_ok();
        assert_eq!(lost, !buf.is_empty());
        let mut all = buf.as_slice().to_vec();
        all.extend(to_end(&mut reader).await.unwrap());
        (lost, all)
    })
}

#[test]
fn a_stop_may_lose_the_race_but_never_a_byte() {
    let calm = Faults { latency_us: (50, 50), ..Faults::none() };
    let cases = [
        (calm.clone(), false),
        (Faults { stop_loses: 1, ..calm.clone() }, true),
        (Faults { stop_late: 1, stop_late_us: (500, 500), ..calm }, true),
    ];
    for (faults, loses) in cases {
        for seed in 0..20 {
            let (lost, all) = stop_race(faults.clone(), seed);
            assert_eq!(all, b"on its way");
            assert_eq!(lost, loses, "{faults:?}");
        }
    }
}

#[test]
fn other_faults_hold_at_one_address_alone() {
    let world = World::new(1, Faults::none());
    let _listeners = [world.listen(addr(1)), world.listen(addr(2))];
    world.faults_at(addr(2), Faults { dial_refused: 1, ..Faults::none() });
    let rt = world.rt();
    world.block_on(async move {
        for _ in 0..20 {
            assert!(rt.dial(addr(1)).await.is_ok());
            assert_eq!(failure(rt.dial(addr(2)).await), Some(ECONNREFUSED));
        }
    });
}

#[test]
fn dials_fail_and_dawdle_by_rate() {
    let dial = |faults: Faults| {
        let world = World::new(1, faults);
        let _listener = world.listen(addr(1));
        let rt = world.rt();
        let done = world.block_on(within_deadline(&rt, Tick(1_000_000), rt.dial(addr(1))));
        (done.map(failure), rt.now().0)
    };
    assert_eq!(dial(Faults::none()), (Some(None), 40));
    assert_eq!(dial(Faults { dial_lost: 1, ..Faults::none() }), (None, 1_000_000));
    let refused = dial(Faults { dial_refused: 1, ..Faults::none() });
    assert_eq!(refused, (Some(Some(ECONNREFUSED)), 40));
    let slow = Faults { dial_slow: 1, dial_slow_us: (7_000, 7_000), ..Faults::none() };
    assert_eq!(dial(slow), (Some(None), 7_040));
}

/// The order in which three tasks get on whose bytes arrive in one instant.
fn order(faults: Faults, seed: u64) -> Vec<usize> {
    let world = World::new(seed, faults);
    let listener = world.listen(addr(1));
    let (rt, order) = (world.rt(), Rc::new(RefCell::new(Vec::new())));
    let theirs = order.clone();
    world.block_on(async {
        let mut far = Vec::new();
        for index in 0..3 {
            let [(mut reader, writer), end] = pair(&rt, &listener).await;
            let order = theirs.clone();
            rt.spawn(async move {
                receive(&mut reader, 8).await.unwrap();
                order.borrow_mut().push(index);
                drop(writer);
            });
            far.push(end);
        }
        for (_, writer) in &mut far {
            send(writer, b"x").await.unwrap();
        }
        rt.sleep_until(rt.now() + Ms(100)).await;
    });
    order.take()
}

#[test]
fn seeds_change_the_order_of_completions_and_of_tasks() {
    let late_done = Faults { late_done: 2, late_done_us: (0, 900), ..Faults::none() };
    let shuffle = Faults { shuffle: true, ..Faults::none() };
    for (faults, orders) in [(Faults::none(), 1), (late_done, 6), (shuffle, 6)] {
        let seen: std::collections::BTreeSet<_> =
            (0..200).map(|seed| order(faults.clone(), seed)).collect();
        assert_eq!(seen.len(), orders, "{faults:?}: {seen:?}");
    }
}

#[test]
fn timers_are_late_by_a_millisecond_at_most_and_leave_nothing() {
    let mut late = 0;
    for seed in 0..50 {
        let world = World::new(seed, Faults { late_timers: true, ..Faults::none() });
        let rt = world.rt();
        let us = world.block_on(async {
            let slept = within_deadline(&rt, Tick(90_000_000), rt.sleep_until(Tick(5_000)));
            assert!(slept.await.is_some());
            rt.now().0
        });
        assert!((5_000..=6_000).contains(&us), "{us}");
        late += u32::from(us > 5_000);
        world.settle();
        assert_eq!(rt.now().0, us, "a dropped timer does not move the clock");
    }
    assert!(late > 25, "{late}");
}

#[test]
fn a_swarm_has_each_fault_on_and_off() {
    let rates = |faults: &Faults| {
        let Faults { short_read, short_write, late_done, dial_refused, dial_lost, .. } = *faults;
        let Faults { dial_slow, reset, reset_overtakes, stall, drip, .. } = *faults;
        let Faults { stop_late, stop_loses, clock_jump, shuffle, late_timers, .. } = *faults;
        let Faults { clock_stall, wall_step, .. } = *faults;
        [
            [short_read, short_write, late_done, dial_refused, dial_lost],
            [dial_slow, reset, reset_overtakes, stall, drip],
            [stop_late, stop_loses, clock_jump, shuffle.into(), late_timers.into()],
            [clock_stall, wall_step, clock_stall, wall_step, clock_jump],
        ]
    };
    let worlds: Vec<_> = (0..100).map(|seed| rates(&Faults::swarm(&mut Rng::new(seed)))).collect();
    for (row, column) in (0..4).flat_map(|row| (0..5).map(move |column| (row, column))) {
        let on = worlds.iter().filter(|rates| rates[row][column] > 0).count();
        assert!((20..=80).contains(&on), "fault {row} {column} is on in {on} of 100");
    }
}
