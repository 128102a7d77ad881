//! Laws of reads, writes, stops and waits.

use std::pin::pin;
use std::task::Poll;

use firstbyte::base::buf::Buf;
use firstbyte::base::tick::Ms;
use firstbyte::rt::{Accept, Reader, Rt, Stop, Writer, is_later, is_stopped, until};

use crate::laws::{Bed, failure, once, receive, receive_all, send, turn};
use crate::laws::{ECONNRESET, EPIPE};

// Reads and writes.

pub async fn reads_append<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    let mut buf = Buf::with_capacity(64);
    buf.extend(b"seen, unseen, ");
    buf.consume(6);
    send(&mut writer, b"new").await.unwrap();
    while buf.len() < 11 {
        let before = buf.len();
        let (count, back) = reader.read(buf, R::Stop::new().handle()).await;
        assert_eq!(back.len(), before + count.unwrap());
        buf = back;
    }
    assert_eq!(buf.as_slice(), b"unseen, new");
    assert_eq!(buf.capacity(), 64, "no new memory");
}

pub async fn reads_fit<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    send(&mut writer, &[b'x'; 500]).await.unwrap();
    let mut buf = Buf::with_capacity(100);
    buf.extend(&[b'y'; 90]);
    let room = buf.spare();
    let (count, buf) = reader.read(buf, R::Stop::new().handle()).await;
    let count = count.unwrap();
    assert!((1..=room).contains(&count), "{count} into {room}");
    assert_eq!(receive_all(&mut reader, 500 - count).await.len(), 500 - count);
    assert_eq!(buf.len(), 90 + count);
}

/// Bytes up to the end.
pub async fn count_to_end<D: Reader>(reader: &mut D) -> usize {
    let mut all = 0;
    loop {
        let bytes = receive(reader, 65_536).await.unwrap();
        if bytes.is_empty() {
            return all;
        }
        all += bytes.len();
    }
}

/// Writes until two writes in a row had to be stopped; says how much the others were told to be.
pub async fn fill<R: Rt>(rt: &R, writer: &mut R::Writer) -> usize {
    let (mut told, mut stopped) = (0, 0);
    let mut stop = R::Stop::new();
    let mut buf = Buf::from(&[b'z'; 100_000][..]);
    while stopped < 2 {
        let write = writer.write(buf, stop.handle());
        let ((count, back), _) = until(rt, &mut stop, rt.now() + Ms(50), write).await;
        assert_eq!(back.len(), 100_000, "the window is as it was");
        match count {
            Ok(count) => {
                assert!((1..=100_000).contains(&count));
                (told, stopped) = (told + count, 0);
            }
            Err(error) => {
                assert!(is_stopped(&error), "{error}");
                stopped += 1;
            }
        }
        buf = back;
    }
    told
}

pub async fn writes_say_how_much<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    let mut buf = Buf::from(&b"skipped, then sent"[..]);
    buf.consume(9);
    while !buf.is_empty() {
        let before = buf.as_slice().to_vec();
        let (count, back) = writer.write(buf, R::Stop::new().handle()).await;
        assert_eq!(back.as_slice(), before);
        buf = back;
        buf.consume(count.unwrap());
    }
    assert_eq!(receive_all(&mut reader, 9).await, b"then sent");
}

pub async fn stopped_writes_are_exact<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    let told = fill(&bed.rt, &mut writer).await;
    assert!(told > 0);
    drop(writer);
    assert_eq!(count_to_end(&mut reader).await, told);
}

pub async fn directions_are_independent<R: Rt>(bed: Bed<R>) {
    let [(mut reader, mut writer), (mut far_reader, mut far_writer)] = bed.pair().await;
    let told = fill(&bed.rt, &mut writer).await;
    let extra = {
        let mut stop = R::Stop::new();
        let mut read = pin!(receive(&mut reader, 8));
        let mut write = pin!(writer.write(Buf::from(&b"blocked"[..]), stop.handle()));
        assert!(once(&mut read).await.is_none());
        // Where 100,000 bytes had no room, these few may.
        let blocked = once(&mut write).await;
        send(&mut far_writer, b"through").await.unwrap();
        let got = read.await.unwrap();
        assert!(!got.is_empty() && b"through".starts_with(&got));
        let (count, _) = match blocked {
            Some(done) => done,
            None => {
                stop.stop();
                write.await
            }
        };
        count.unwrap_or(0)
    };
    drop(writer);
    assert_eq!(count_to_end(&mut far_reader).await, told + extra);
}

pub async fn parked_writes_see_resets<R: Rt>(bed: Bed<R>) {
    let [(reader, mut writer), (far_reader, far_writer)] = bed.pair().await;
    fill(&bed.rt, &mut writer).await;
    {
        let buf = Buf::from(&[b'z'; 100_000][..]);
        let mut write = pin!(writer.write(buf, R::Stop::new().handle()));
        let early = once(&mut write).await;
        R::abort(far_reader, far_writer);
        if early.is_none() {
            let (count, buf) = write.await;
            assert!(matches!(failure(count), Some(ECONNRESET | EPIPE)));
            assert_eq!(buf.len(), 100_000);
        }
    }
    drop((reader, writer));
    bed.all_closed().await;
}

// Stops.

pub async fn stopped_reads_lose_nothing<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    for round in 0..20_u8 {
        let mut stop = R::Stop::new();
        let mut buf = Buf::with_capacity(32);
        buf.extend(b"kept");
        {
            let mut read = pin!(reader.read(buf, stop.handle()));
            assert!(once(&mut read).await.is_none());
            turn(&bed.rt).await;
            stop.stop();
            let (count, back) = read.await;
            assert!(is_stopped(&count.unwrap_err()));
            assert_eq!((back.as_slice(), back.capacity()), (&b"kept"[..], 32));
        }
        send(&mut writer, &[round; 5]).await.unwrap();
        assert_eq!(receive_all(&mut reader, 5).await, [round; 5]);
    }
}

pub async fn racing_stops_lose_nothing<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    let (mut got, mut sent) = (Vec::new(), Vec::new());
    for round in 0..200_u8 {
        let mut stop = R::Stop::new();
        let mut read = pin!(reader.read(Buf::with_capacity(8), stop.handle()));
        // It may be done already: a stop that won has left its bytes to this read.
        let done = once(&mut read).await;
        if round % 3 == 0 {
            turn(&bed.rt).await;
        }
        send(&mut writer, &[round; 4]).await.unwrap();
        sent.extend([round; 4]);
        stop.stop();
        let (count, back) = match done {
            Some(done) => done,
            None => read.await,
        };
        match count {
            Ok(count) => assert_eq!(count, back.len()),
            Err(error) => assert!(is_stopped(&error) && back.is_empty(), "{error}"),
        }
        got.extend(back.as_slice());
    }
    got.extend(receive_all(&mut reader, sent.len() - got.len()).await);
    assert_eq!(got, sent);
}

pub async fn handles_are_spent<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    send(&mut writer, b"there").await.unwrap();
    let mut stop = R::Stop::new();
    let (spent, twin) = (stop.handle(), stop.handle());
    stop.stop();
    let (count, buf) = reader.read(Buf::with_capacity(8), spent).await;
    assert!(is_stopped(&count.unwrap_err()) && buf.capacity() == 8);
    let (count, _) = writer.write(Buf::from(&b"x"[..]), twin.clone()).await;
    assert!(is_stopped(&count.unwrap_err()));
    assert!(failure(bed.listener.accept(twin).await).is_some());
    let (count, _) = reader.read(Buf::with_capacity(8), stop.handle()).await;
    assert!(count.unwrap() > 0, "the handle of after the stop");
}

pub async fn one_stop_ends_all<R: Rt>(bed: Bed<R>) {
    let [(mut first, _a), (mut second, _b)] = bed.pair().await;
    let mut stop = R::Stop::new();
    let mut reads = (
        pin!(first.read(Buf::with_capacity(8), stop.handle())),
        pin!(second.read(Buf::with_capacity(8), stop.handle())),
        pin!(bed.listener.accept(stop.handle())),
    );
    assert!(once(&mut reads.0).await.is_none());
    assert!(once(&mut reads.1).await.is_none());
    assert!(once(&mut reads.2).await.is_none());
    stop.stop();
    assert!(is_stopped(&reads.0.await.0.unwrap_err()));
    assert!(is_stopped(&reads.1.await.0.unwrap_err()));
    assert!(reads.2.await.is_err_and(|error| is_stopped(&error)));
}

// What does not wait.

/// A read of what is there, as the shell does it: after a wait, and again where there was nothing.
async fn taken<D: Reader>(reader: &mut D, room: usize) -> std::io::Result<Vec<u8>> {
    loop {
        reader.ready().await?;
        let (count, buf) = reader.try_read(Buf::with_capacity(room));
        match count {
            Err(error) if is_later(&error) => assert!(buf.is_empty()),
            Err(error) => return Err(error),
            Ok(count) => {
                assert_eq!(count, buf.len());
                return Ok(buf.as_slice().to_vec());
            }
        }
    }
}

pub async fn tries_take_what_is_there<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    let (count, buf) = reader.try_read(Buf::with_capacity(8));
    assert!(is_later(&count.unwrap_err()) && buf.is_empty());
    for round in 0..50_u8 {
        send(&mut writer, &[round; 10]).await.unwrap();
        let mut got = Vec::new();
        while got.len() < 10 {
            let part = taken(&mut reader, 8).await.unwrap();
            assert!((1..=8).contains(&part.len()));
            got.extend(part);
        }
        assert_eq!(got, [round; 10]);
        // A read that waits goes on where the other left off.
        send(&mut writer, b"read").await.unwrap();
        assert_eq!(receive_all(&mut reader, 4).await, b"read");
    }
    drop(writer);
    assert_eq!(taken(&mut reader, 8).await.unwrap(), b"", "the end");
}

pub async fn tries_send_what_fits<R: Rt>(bed: Bed<R>) {
    let [(_keep, mut writer), (mut far, far_writer)] = bed.pair().await;
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let (mut told, mut full) = (0, false);
    while told < 8_000_000 && !full {
        match writer.try_write(&bytes[told % 100_000..]) {
            Ok(count) => told += count,
            Err(error) => full = is_later(&error),
        }
    }
    assert!(full, "a socket whose peer does not read is full some time");
    // A write that waits goes on where the other left off.
    let got = {
        let mut last = pin!(async {
            let mut rest = Buf::from(&bytes[told % 100_000..][..50_000]);
            while !rest.is_empty() {
                let (count, back) = writer.write(rest, R::Stop::new().handle()).await;
                rest = back;
                rest.consume(count.unwrap());
            }
        });
        let mut reading = pin!(receive_all(&mut far, told + 50_000));
        let (mut written, mut got) = (false, None);
        std::future::poll_fn(|cx| {
            written = written || last.as_mut().poll(cx).is_ready();
            if got.is_none()
                && let Poll::Ready(all) = reading.as_mut().poll(cx)
            {
                got = Some(all);
            }
            if written && got.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        got.unwrap()
    };
    assert_eq!(got.len(), told + 50_000);
    drop((far, far_writer));
    // Its reset comes some time.
    let gone = loop {
        match writer.try_write(b"more") {
            Err(error) if !is_later(&error) => break error,
            _ => turn(&bed.rt).await,
        }
    };
    assert!(matches!(gone.raw_os_error(), Some(EPIPE | ECONNRESET)), "{gone}");
}

// Waits.

pub async fn waits_are_droppable<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    for round in 0..50_u8 {
        let mut wait = Box::pin(reader.ready());
        assert!(once(&mut wait).await.is_none());
        if round % 2 == 0 {
            turn(&bed.rt).await;
        }
        send(&mut writer, &[round; 3]).await.unwrap();
        drop(wait);
        reader.ready().await.unwrap();
        assert_eq!(receive_all(&mut reader, 3).await, [round; 3]);
    }
    drop(reader.ready());
}

pub async fn watches_go_on<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    let mut watch = reader.watching();
    for round in 0..50_u8 {
        assert!(!watch.is_waiting());
        if round % 3 != 0 {
            assert!(once(&mut std::future::poll_fn(|cx| watch.poll(cx))).await.is_none());
            assert!(watch.is_waiting());
        }
        send(&mut writer, &[round; 3]).await.unwrap();
        std::future::poll_fn(|cx| watch.poll(cx)).await.unwrap();
        assert!(!watch.is_waiting());
        assert_eq!(receive_all(&mut reader, 3).await, [round; 3]);
    }
    assert!(once(&mut std::future::poll_fn(|cx| watch.poll(cx))).await.is_none());
    drop(watch);
    send(&mut writer, b"last").await.unwrap();
    assert_eq!(receive_all(&mut reader, 4).await, b"last");
}

pub async fn waits_wake<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (far_reader, mut far_writer)] = bed.pair().await;
    let mut wait = Box::pin(reader.ready());
    assert!(once(&mut wait).await.is_none());
    send(&mut far_writer, b"d").await.unwrap();
    wait.await.unwrap();
    assert_eq!(receive_all(&mut reader, 1).await, b"d");
    let mut wait = Box::pin(reader.ready());
    assert!(once(&mut wait).await.is_none(), "ready only when a read would not wait");
    drop((far_reader, far_writer));
    wait.await.unwrap();
    reader.ready().await.unwrap();
    assert_eq!(receive(&mut reader, 8).await.unwrap(), b"");

    let [(mut reader, _keep), (far_reader, far_writer)] = bed.pair().await;
    let mut wait = Box::pin(reader.ready());
    assert!(once(&mut wait).await.is_none());
    turn(&bed.rt).await;
    R::abort(far_reader, far_writer);
    let _ = wait.await;
    assert_eq!(failure(receive(&mut reader, 8).await), Some(ECONNRESET));
}

pub async fn waits_let_go<R: Rt>(bed: Bed<R>) {
    let [near, far] = bed.pair().await;
    let mut wait = Box::pin(near.0.ready());
    assert!(once(&mut wait).await.is_none());
    turn(&bed.rt).await;
    drop(near);
    drop(wait);
    drop(far);
    bed.all_closed().await;
}

pub async fn untaken_is_told<R: Rt>(bed: Bed<R>) {
    let [(mut far, _keep), (near, mut writer)] = bed.pair().await;
    assert_eq!(near.unacked(), Some(0));
    let told = fill(&bed.rt, &mut writer).await;
    let waiting = near.unacked().unwrap();
    assert!((1..=told).contains(&waiting), "{waiting} of {told}: the peer does not read");
    assert_eq!(receive_all(&mut far, told).await.len(), told);
    while near.unacked() != Some(0) {
        turn(&bed.rt).await;
    }
}
