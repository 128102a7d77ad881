use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;

use super::dial::ECONNREFUSED;
use super::net::{ECONNRESET, EPIPE};
use super::*;
use crate::base::tick::Ms;
use crate::rt::{Stop, is_stopped, until};

mod faults;

fn addr(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

async fn pair(rt: &SimRt, listener: &SimListener) -> [(SimReader, SimWriter); 2] {
    let stop = SimStop::new();
    let near = rt.dial(listener.addr()).await.unwrap();
    let (reader, writer, _) = listener.accept(stop.handle()).await.unwrap();
    [near, (reader, writer)]
}

/// Runs `test` in a calm world, which must be clean afterwards.
fn calm<F: Future>(test: impl FnOnce(SimRt, SimListener) -> F) -> F::Output {
    let world = World::new(1, Faults::none());
    let output = world.block_on(test(world.rt(), world.listen(addr(1))));
    world.settle();
    let left = (world.open_sockets(), world.pending_ops(), world.live_tasks(), world.lost_ops());
    assert_eq!(left, (0, 0, 0, 0), "{}", world.report("not clean"));
    output
}

async fn send(writer: &mut SimWriter, bytes: &[u8]) -> io::Result<()> {
    let mut buf = Buf::from(bytes);
    while !buf.is_empty() {
        let (sent, back) = writer.write(buf, SimStop::new().handle()).await;
        buf = back;
        buf.consume(sent?);
    }
    Ok(())
}

async fn receive(reader: &mut SimReader, room: usize) -> io::Result<Vec<u8>> {
    let (count, buf) = reader.read(Buf::with_capacity(room), SimStop::new().handle()).await;
    assert_eq!(count.as_ref().map_or(0, |count| *count), buf.len());
    count.map(|_| buf.as_slice().to_vec())
}

async fn to_end(reader: &mut SimReader) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let bytes = receive(reader, 4096).await?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend(bytes);
    }
}

fn failure<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Echoes in both halves at once: what is read is written back, until the end or an error.
async fn echo(mut reader: SimReader, mut writer: SimWriter) -> io::Result<()> {
    loop {
        let bytes = receive(&mut reader, 1024).await?;
        if bytes.is_empty() {
            return Ok(());
        }
        send(&mut writer, &bytes).await?;
    }
}

/// One client: dials, sends `bytes` while it reads, gives up after a minute. Says what came back.
async fn client(rt: SimRt, to: SocketAddr, bytes: Vec<u8>) -> Vec<u8> {
    let deadline = rt.now() + Ms(60_000);
    let mut stop = SimStop::new();
    let Some(Ok((mut reader, mut writer))) = within_deadline(&rt, deadline, rt.dial(to)).await
    else {
        return Vec::new();
    };
    rt.spawn(async move {
        let _ = send(&mut writer, &bytes).await;
    });
    let mut back = Vec::new();
    loop {
        let read = reader.read(Buf::with_capacity(700), stop.handle());
        let ((count, buf), _) = until(&rt, &mut stop, deadline, read).await;
        back.extend(buf.as_slice());
        if !matches!(count, Ok(1..)) {
            return back;
        }
    }
}

/// For what may be dropped.
async fn within_deadline<T>(rt: &SimRt, at: Tick, op: impl Future<Output = T>) -> Option<T> {
    let mut op = std::pin::pin!(op);
    let mut timer = std::pin::pin!(rt.sleep_until(at));
    std::future::poll_fn(|cx| match op.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Five clients of an echo server, with the faults of the seed. The trace, and how many were served.
fn echo_world(seed: u64) -> (u64, u64, usize) {
    let mut rng = Rng::new(seed);
    let world = World::new(seed, Faults::swarm(&mut rng));
    let listener = world.listen(addr(7));
    let rt = world.rt();
    world.rt().spawn(async move {
        for _ in 0..5 {
            let mut stop = SimStop::new();
            let accept = listener.accept(stop.handle());
            let (accepted, late) = until(&rt, &mut stop, Tick(100_000_000), accept).await;
            match accepted {
                Ok((reader, writer, _)) => rt.spawn(async move {
                    let _ = echo(reader, writer).await;
                }),
                Err(error) => {
                    assert!(late && is_stopped(&error), "{error}");
                    return;
                }
            }
        }
    });
    let served = Rc::new(Cell::new(0));
    for index in 0..5_u8 {
        let (rt, served) = (world.rt(), served.clone());
        let sent: Vec<u8> = (0..rng.below(1_500)).map(|at| (at as u8) ^ index).collect();
        world.rt().spawn(async move {
            let back = client(rt, addr(7), sent.clone()).await;
            assert!(sent.starts_with(&back), "what comes back is what was sent");
            served.set(served.get() + usize::from(back == sent));
        });
    }
    world.settle();
    let left = (world.open_sockets(), world.pending_ops(), world.live_tasks(), world.lost_ops());
    assert_eq!(left, (0, 0, 0, 0), "{}", world.report("not clean"));
    (world.trace_hash(), world.steps(), served.get())
}

#[test]
fn a_seed_is_a_run() {
    let seeds: u64 = if cfg!(miri) { 4 } else { 2_000 };
    let (mut served, mut traces) = (0, std::collections::BTreeSet::new());
    for seed in 0..seeds {
        let first = echo_world(seed);
        assert_eq!(first, echo_world(seed), "seed {seed}");
        traces.insert(first.0);
        served += first.2;
    }
    assert_eq!(traces.len() as u64, seeds, "two seeds with the same trace");
    // The faults must neither be absent nor leave nothing to see.
    let all = seeds as usize * 5;
    assert!(all / 4 < served && served < all * 19 / 20, "{served} of {all} served");
}

#[test]
fn a_slow_reader_holds_its_writer_up() {
    let faults = Faults { buffer_bytes: (1000, 1000), ..Faults::none() };
    let world = World::new(1, faults);
    let listener = world.listen(addr(1));
    let rt = world.rt();
    world.block_on(async move {
        let [(mut reader, _keep), (_reader, mut writer)] = pair(&rt, &listener).await;
        let mut buf = Buf::from(&[7; 3000][..]);
        let (count, back) = writer.write(buf, SimStop::new().handle()).await;
        assert_eq!(count.unwrap(), 1000, "what there is room for");
        buf = back;
        buf.consume(1000);
        let mut stop = SimStop::new();
        let write = writer.write(buf, stop.handle());
        let ((count, back), late) = until(&rt, &mut stop, rt.now() + Ms(10_000), write).await;
        assert!(late && is_stopped(&count.unwrap_err()), "no room until somebody reads");
        assert_eq!(back.len(), 2000, "the buffer comes back whole");
        assert_eq!(receive(&mut reader, 300).await.unwrap().len(), 300);
        let (count, _) = writer.write(back, SimStop::new().handle()).await;
        assert_eq!(count.unwrap(), 300, "as much room as was read");
    });
}

#[test]
fn an_end_is_no_reset() {
    calm(|rt, listener| async move {
        let [(mut reader, mut writer), (mut far_reader, mut far_writer)] =
            pair(&rt, &listener).await;
        send(&mut far_writer, b"bye").await.unwrap();
        drop(far_writer);
        assert_eq!(to_end(&mut reader).await.unwrap(), b"bye");
        assert_eq!(to_end(&mut reader).await.unwrap(), b"", "the end stays");
        send(&mut writer, b"still here").await.unwrap();
        drop(writer);
        assert_eq!(to_end(&mut far_reader).await.unwrap(), b"still here", "half closed");
    });
}

#[test]
fn bytes_before_a_reset_are_read_and_the_error_is_told_once() {
    calm(|rt, listener| async move {
        let [(mut reader, mut writer), (far_reader, mut far_writer)] = pair(&rt, &listener).await;
        send(&mut far_writer, b"last words").await.unwrap();
        SimRt::abort(far_reader, far_writer);
        rt.sleep_until(rt.now() + Ms(1)).await;
        assert_eq!(receive(&mut reader, 64).await.unwrap(), b"last words");
        assert_eq!(failure(receive(&mut reader, 64).await), Some(ECONNRESET));
        assert_eq!(receive(&mut reader, 64).await.unwrap(), b"");
        assert_eq!(failure(send(&mut writer, b"x").await), Some(EPIPE));
    });
}

#[test]
fn a_write_may_take_the_error_from_the_read() {
    calm(|rt, listener| async move {
        let [(mut reader, mut writer), (far_reader, far_writer)] = pair(&rt, &listener).await;
        SimRt::abort(far_reader, far_writer);
        rt.sleep_until(rt.now() + Ms(1)).await;
        assert_eq!(failure(send(&mut writer, b"x").await), Some(ECONNRESET));
        assert_eq!(receive(&mut reader, 64).await.unwrap(), b"");
    });
}

#[test]
fn writing_to_a_closed_peer_and_closing_with_unread_bytes_reset() {
    calm(|rt, listener| async move {
        let [(mut reader, mut writer), far] = pair(&rt, &listener).await;
        drop(far);
        rt.sleep_until(rt.now() + Ms(1)).await;
        assert_eq!(receive(&mut reader, 64).await.unwrap(), b"");
        send(&mut writer, b"anybody?").await.unwrap();
        rt.sleep_until(rt.now() + Ms(1)).await;
        assert_eq!(failure(send(&mut writer, b"x").await), Some(EPIPE));

        let [(mut reader, mut writer), (far_reader, far_writer)] = pair(&rt, &listener).await;
        send(&mut writer, b"unread").await.unwrap();
        rt.sleep_until(rt.now() + Ms(1)).await;
        // The reader is the last half here, so no FIN of the writer's hides the reset for long.
        drop(far_writer);
        drop(far_reader);
        rt.sleep_until(rt.now() + Ms(1)).await;
        assert_eq!(receive(&mut reader, 64).await.unwrap(), b"", "the FIN came first");
        assert_eq!(failure(send(&mut writer, b"x").await), Some(EPIPE));
    });
}

#[test]
fn a_dropped_read_is_counted_and_eats_what_comes() {
    let world = World::new(1, Faults::none());
    let listener = world.listen(addr(1));
    let rt = world.rt();
    world.block_on(async {
        let [(mut reader, _keep), (_far, mut far_writer)] = pair(&rt, &listener).await;
        {
            let stop = SimStop::new();
            let read = reader.read(Buf::with_capacity(8), stop.handle());
            assert!(within_deadline(&rt, rt.now() + Ms(1), read).await.is_none());
        }
        assert_eq!(world.lost_ops(), 1);
        send(&mut far_writer, b"lost....found").await.unwrap();
        assert_eq!(receive(&mut reader, 64).await.unwrap(), b"found");
    });
    world.settle();
    assert_eq!((world.open_sockets(), world.pending_ops()), (0, 0));
}

#[test]
fn a_dropped_accept_leaks_its_connection() {
    let world = World::new(1, Faults::none());
    let listener = world.listen(addr(1));
    let rt = world.rt();
    world.block_on(async {
        let stop = SimStop::new();
        let accept = listener.accept(stop.handle());
        assert!(within_deadline(&rt, rt.now() + Ms(1), accept).await.is_none());
        drop(rt.dial(addr(1)).await.unwrap());
    });
    world.settle();
    assert_eq!((world.lost_ops(), world.open_sockets()), (1, 1), "the leak is seen");
}

fn panic_text(code: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(AssertUnwindSafe(code)).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn a_world_that_cannot_go_on_says_why() {
    let stuck = panic_text(|| {
        let world = World::new(42, Faults::none());
        world.blackhole(addr(1));
        let rt = world.rt();
        world.block_on(async move { rt.dial(addr(1)).await.map(|_| ()).unwrap() });
    });
    assert!(stuck.contains("nothing can ever happen again"), "{stuck}");
    assert!(stuck.contains("seed 42 step 2"), "{stuck}");
    assert!(stuck.contains("1 dials"), "{stuck}");

    let endless = panic_text(|| {
        let world = World::new(43, Faults::none());
        world.cap_steps(1000);
        world.block_on(std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
    });
    assert!(endless.contains("too many steps") && endless.contains("seed 43"), "{endless}");

    let panicked = panic_text(|| {
        let world = World::new(44, Faults::none());
        world.rt().spawn(async { panic!("an invariant is broken") });
        world.settle();
    });
    assert!(panicked.contains("an invariant is broken"), "{panicked}");
    assert!(panicked.contains("seed 44"), "{panicked}");
}

#[test]
fn two_waits_for_one_direction_are_refused() {
    type Test = fn(SimRt, SimListener) -> Pin<Box<dyn Future<Output = ()>>>;
    let world = |test: Test| panic_text(|| calm(test));
    let read_beside_wait = world(|rt, listener| {
        Box::pin(async move {
            let [(mut reader, _keep), _far] = pair(&rt, &listener).await;
            let mut wait = std::pin::pin!(reader.ready());
            assert!(within_deadline(&rt, rt.now() + Ms(1), wait.as_mut()).await.is_none());
            let _ = receive(&mut reader, 8).await;
        })
    });
    let two_waits = world(|rt, listener| {
        Box::pin(async move {
            let [(reader, _keep), _far] = pair(&rt, &listener).await;
            let mut wait = std::pin::pin!(reader.ready());
            assert!(within_deadline(&rt, rt.now() + Ms(1), wait.as_mut()).await.is_none());
            let _ = reader.ready().await;
        })
    });
    let two_accepts = world(|rt, listener| {
        Box::pin(async move {
            let stop = SimStop::new();
            let mut first = std::pin::pin!(listener.accept(stop.handle()));
            assert!(within_deadline(&rt, rt.now() + Ms(1), first.as_mut()).await.is_none());
            let _ = listener.accept(stop.handle()).await;
        })
    });
    for text in [read_beside_wait, two_waits, two_accepts] {
        assert!(text.contains("law 6"), "{text}");
    }
}

#[test]
fn dials_fail_as_they_were_told_to() {
    let world = World::new(1, Faults::none());
    let rt = world.rt();
    world.block_on(async {
        assert_eq!(failure(rt.dial(addr(9)).await), Some(ECONNREFUSED), "nobody listens");
        let _listener = world.listen(addr(1));
        world.refuse(addr(1));
        assert_eq!(failure(rt.dial(addr(1)).await), Some(ECONNREFUSED));
        world.blackhole(addr(1));
        let lost = within_deadline(&rt, rt.now() + Ms(100_000), rt.dial(addr(1))).await;
        assert!(lost.is_none());
        assert_eq!(world.open_sockets(), 0, "a dropped dial closes its socket");
        world.restore(addr(1));
        assert!(rt.dial(addr(1)).await.is_ok());
    });
}

#[test]
fn a_dial_that_is_dropped_late_is_seen_as_an_end() {
    calm(|rt, listener| async move {
        // The handshake takes 20 us each way: at 30 us the listener has it, the dialler has not.
        let late = within_deadline(&rt, Tick(30), rt.dial(addr(1))).await;
        assert!(late.is_none());
        let (mut reader, _writer, _) = listener.accept(SimStop::new().handle()).await.unwrap();
        assert_eq!(receive(&mut reader, 8).await.unwrap(), b"");
    });
}

#[test]
fn a_listener_that_closes_resets_its_backlog() {
    calm(|rt, listener| async move {
        let (mut reader, _writer) = rt.dial(addr(1)).await.unwrap();
        drop(listener);
        assert_eq!(failure(receive(&mut reader, 8).await), Some(ECONNRESET));
        assert_eq!(failure(rt.dial(addr(1)).await), Some(ECONNREFUSED));
    });
}

#[test]
fn a_wait_keeps_its_socket_and_leaves_nothing_when_dropped() {
    let world = World::new(1, Faults::none());
    let listener = world.listen(addr(1));
    let rt = world.rt();
    world.block_on(async {
        let [near, (mut far_reader, far_writer)] = pair(&rt, &listener).await;
        let wait = near.0.ready();
        drop(near);
        assert_eq!(receive(&mut far_reader, 8).await.unwrap(), b"", "the writer's end");
        assert_eq!(world.open_sockets(), 2, "the wait holds the socket");
        drop(wait);
        assert_eq!(world.open_sockets(), 1);
        drop((far_reader, far_writer));
        assert_eq!(world.open_sockets(), 0);
    });
}
