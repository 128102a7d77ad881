//! Laws of accepts, dials, ends, resets, time and tasks.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use firstbyte::base::buf::Buf;
use firstbyte::base::tick::{Ms, Tick};
use firstbyte::rt::{Accept, Reader, Rt, Stop, is_stopped, until};

use crate::laws::{Bed, failure, once, or_late, receive, receive_all, send, turn};
use crate::laws::{ECONNREFUSED, ECONNRESET, EPIPE};

// Accepts and dials.

pub async fn stopped_accepts_leak_nothing<R: Rt>(bed: Bed<R>) {
    for _ in 0..20 {
        let mut stop = R::Stop::new();
        {
            let mut accept = pin!(bed.listener.accept(stop.handle()));
            assert!(once(&mut accept).await.is_none());
            turn(&bed.rt).await;
            stop.stop();
            assert!(accept.await.is_err_and(|error| is_stopped(&error)));
        }
        let [(mut reader, _near), (_far, mut writer)] = bed.pair().await;
        send(&mut writer, b"mine").await.unwrap();
        assert_eq!(receive_all(&mut reader, 4).await, b"mine");
    }
    bed.all_closed().await;
}

pub async fn racing_accepts<R: Rt>(bed: Bed<R>) {
    for _ in 0..50 {
        let mut stop = R::Stop::new();
        let mut accept = pin!(bed.listener.accept(stop.handle()));
        assert!(once(&mut accept).await.is_none());
        let (mut reader, _writer) = bed.rt.dial(bed.addr).await.unwrap();
        stop.stop();
        let accepted = match accept.await {
            Ok(accepted) => accepted,
            Err(error) => {
                assert!(is_stopped(&error), "{error}");
                bed.listener.accept(R::Stop::new().handle()).await.unwrap()
            }
        };
        let (_far, mut writer, _) = accepted;
        send(&mut writer, b"m").await.unwrap();
        assert_eq!(receive_all(&mut reader, 1).await, b"m");
    }
    bed.all_closed().await;
}

pub async fn dials_are_droppable<R: Rt>(bed: Bed<R>) {
    for round in 0..50 {
        let mut dial = Box::pin(bed.rt.dial(bed.addr));
        let done = once(&mut dial).await;
        if done.is_none() && round % 2 == 0 {
            turn(&bed.rt).await;
        }
        drop(dial);
    }
    drop(bed.rt.dial(bed.addr));
    // Those that reached the listener are accepted and end at once.
    let mut stop = R::Stop::new();
    loop {
        let accept = bed.listener.accept(stop.handle());
        match until(&bed.rt, &mut stop, bed.rt.now() + Ms(50), accept).await.0 {
            Ok((mut reader, _writer, _)) => {
                assert!(matches!(receive(&mut reader, 8).await.as_deref(), Ok([]) | Err(_)));
            }
            Err(error) => {
                assert!(is_stopped(&error), "{error}");
                break;
            }
        }
    }
    bed.all_closed().await;
}

pub async fn deaf_dials_are_droppable<R: Rt>(bed: Bed<R>) {
    for _ in 0..5 {
        let late = or_late(&bed.rt, bed.rt.now() + Ms(5), bed.rt.dial(bed.deaf)).await;
        assert!(late.is_none(), "nobody answers");
    }
    bed.all_closed().await;
}

pub async fn refused_dials<R: Rt>(bed: Bed<R>) {
    assert_eq!(failure(bed.rt.dial(bed.closed).await), Some(ECONNREFUSED));
    bed.all_closed().await;
}

// Ends and resets.

pub async fn aborts_and_drops<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _writer), (far_reader, far_writer)] = bed.pair().await;
    R::abort(far_reader, far_writer);
    assert_eq!(failure(receive(&mut reader, 8).await), Some(ECONNRESET));

    let [(mut reader, _writer), far] = bed.pair().await;
    drop(far);
    assert_eq!(receive(&mut reader, 8).await.unwrap(), b"");
    drop((reader, _writer));

    // The same for a read that is parked.
    let [(mut reader, _writer), (far_reader, far_writer)] = bed.pair().await;
    let mut read = pin!(receive(&mut reader, 8));
    assert!(once(&mut read).await.is_none());
    turn(&bed.rt).await;
    R::abort(far_reader, far_writer);
    assert_eq!(failure(read.await), Some(ECONNRESET));
}

pub async fn aborts_beside_waits<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _writer), (far_reader, far_writer)] = bed.pair().await;
    let mut wait = Box::pin(far_reader.ready());
    assert!(once(&mut wait).await.is_none());
    turn(&bed.rt).await;
    R::abort(far_reader, far_writer);
    assert_eq!(failure(receive(&mut reader, 8).await), Some(ECONNRESET));
    drop(wait);
    drop((reader, _writer));
    bed.all_closed().await;
}

pub async fn half_close<R: Rt>(bed: Bed<R>) {
    let [(mut reader, mut writer), (mut far_reader, far_writer)] = bed.pair().await;
    drop(far_writer);
    assert_eq!(receive(&mut reader, 8).await.unwrap(), b"");
    send(&mut writer, b"still").await.unwrap();
    assert_eq!(receive_all(&mut far_reader, 5).await, b"still");
    drop((reader, writer));
    assert_eq!(receive(&mut far_reader, 8).await.unwrap(), b"");
    drop(far_reader);
    bed.all_closed().await;
}

pub async fn resets_are_told_once<R: Rt>(bed: Bed<R>) {
    let [(mut reader, mut writer), (far_reader, mut far_writer)] = bed.pair().await;
    send(&mut far_writer, b"last").await.unwrap();
    reader.ready().await.unwrap();
    // Not before all four have arrived: a reset may overtake what was not sent yet.
    turn(&bed.rt).await;
    R::abort(far_reader, far_writer);
    turn(&bed.rt).await;
    assert_eq!(receive_all(&mut reader, 4).await, b"last");
    assert_eq!(failure(receive(&mut reader, 8).await), Some(ECONNRESET));
    assert_eq!(receive(&mut reader, 8).await.unwrap(), b"");
    assert_eq!(failure(send(&mut writer, b"x").await), Some(EPIPE));
}

pub async fn writes_take_the_error<R: Rt>(bed: Bed<R>) {
    let [(mut reader, mut writer), (far_reader, far_writer)] = bed.pair().await;
    R::abort(far_reader, far_writer);
    let _ = reader.ready().await;
    assert_eq!(failure(send(&mut writer, b"x").await), Some(ECONNRESET));
    assert_eq!(receive(&mut reader, 8).await.unwrap(), b"");
}

pub async fn unread_bytes_reset<R: Rt>(bed: Bed<R>) {
    let [(mut reader, mut writer), (far_reader, far_writer)] = bed.pair().await;
    send(&mut writer, b"unread").await.unwrap();
    far_reader.ready().await.unwrap();
    drop((far_reader, far_writer));
    assert_eq!(receive(&mut reader, 8).await.unwrap(), b"", "the writer's end came first");
    // The reset follows: sooner or later a write says so.
    let error = loop {
        if let Err(error) = send(&mut writer, b"x").await {
            break error;
        }
        turn(&bed.rt).await;
    };
    assert_eq!(error.raw_os_error(), Some(EPIPE));
}

// Time and tasks.

pub async fn until_gives_back<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    let mut stop = R::Stop::new();
    let start = bed.rt.now();
    let mut buf = Buf::with_capacity(64);
    buf.extend(b"mine");
    let read = reader.read(buf, stop.handle());
    let ((count, buf), late) = until(&bed.rt, &mut stop, start + Ms(5), read).await;
    assert!(late && is_stopped(&count.unwrap_err()));
    assert!(bed.rt.now() >= start + Ms(5));
    assert_eq!((buf.as_slice(), buf.capacity()), (&b"mine"[..], 64));
    send(&mut writer, b"!").await.unwrap();
    let read = reader.read(buf, stop.handle());
    let ((count, buf), late) = until(&bed.rt, &mut stop, Tick::NEVER, read).await;
    assert_eq!((count.unwrap(), late, buf.as_slice()), (1, false, &b"mine!"[..]));
}

pub async fn many_connections<R: Rt>(bed: Bed<R>) {
    let done = Rc::new(Cell::new(0));
    let mut far = Vec::new();
    for index in 0..200_u8 {
        let [(mut reader, writer), (far_reader, far_writer)] = bed.pair().await;
        let done = done.clone();
        bed.rt.spawn(async move {
            assert_eq!(receive_all(&mut reader, 300).await, [index; 300]);
            assert_eq!(receive(&mut reader, 8).await.unwrap(), b"");
            drop(writer);
            done.set(done.get() + 1);
        });
        far.push((index, far_reader, far_writer));
    }
    turn(&bed.rt).await;
    for (index, reader, mut writer) in far.into_iter().rev() {
        let done = done.clone();
        bed.rt.spawn(async move {
            send(&mut writer, &[index; 300]).await.unwrap();
            drop((reader, writer));
            done.set(done.get() + 1);
        });
    }
    while done.get() < 400 {
        turn(&bed.rt).await;
    }
    bed.all_closed().await;
}

pub async fn timers_are_not_early<R: Rt>(bed: Bed<R>) {
    let rt = &bed.rt;
    for ms in [0, 1, 2, 7] {
        let at = rt.now() + Ms(ms);
        rt.sleep_until(at).await;
        assert!(rt.now() >= at);
    }
    rt.sleep_until(Tick(0)).await;
    let mut never = Box::pin(rt.sleep_until(Tick::NEVER));
    assert!(once(&mut never).await.is_none());
    let mut far = Box::pin(rt.sleep_until(rt.now() + Ms(3_600_000)));
    assert!(once(&mut far).await.is_none());
    assert!(rt.wall().0 > 1_700_000_000_000, "milliseconds since 1970");
}

pub async fn tasks_run<R: Rt>(bed: Bed<R>) {
    let done = Rc::new(Cell::new(0));
    for _ in 0..100 {
        let (rt, done) = (bed.rt.clone(), done.clone());
        bed.rt.spawn(async move {
            let twin = done.clone();
            rt.spawn(async move { twin.set(twin.get() + 1) });
            rt.sleep_until(rt.now() + Ms(1)).await;
            done.set(done.get() + 1);
        });
    }
    while done.get() < 200 {
        turn(&bed.rt).await;
    }
}
