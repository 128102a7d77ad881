//! The laws themselves. A law may not depend on how long anything takes; where it waits for what
//! the kernel does on its own (a closed descriptor), it asks again until it is so.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use firstbyte::base::buf::Buf;
use firstbyte::base::tick::{Ms, Tick};
use firstbyte::rt::{Accept, Reader, Rt, Stop, Writer, is_stopped, until};

use crate::Held;

const EPIPE: i32 = 32;
const ECONNRESET: i32 = 104;
const ECONNREFUSED: i32 = 111;

/// What a law is tested in.
pub struct Bed<R: Rt> {
    pub rt: R,
    pub listener: R::Listener,
    /// Where `listener` listens.
    pub addr: SocketAddr,
    /// Where a dial is never answered.
    pub deaf: SocketAddr,
    /// Where a dial is refused.
    pub closed: SocketAddr,
    /// How many sockets are open.
    pub sockets: Rc<dyn Fn() -> usize>,
    /// How many were at the start.
    pub base: usize,
}

/// A law, ready to be tested.
pub type Law<R> = Box<dyn FnOnce(Bed<R>) -> Held>;

type End<R> = (<R as Rt>::Reader, <R as Rt>::Writer);

fn law<R: Rt, F: Future<Output = ()> + 'static>(
    name: &'static str,
    test: impl FnOnce(Bed<R>) -> F + 'static,
) -> (&'static str, Law<R>) {
    (name, Box::new(move |bed| Box::pin(test(bed))))
}

/// All laws.
pub fn laws<R: Rt>() -> Vec<(&'static str, Law<R>)> {
    vec![
        law("a read appends at the tail", reads_append),
        law("a read takes at most the spare capacity", reads_fit),
        law("a write says how much and consumes nothing", writes_say_how_much),
        law("a stopped write tells exactly what was sent", stopped_writes_are_exact),
        law("both directions wait at once", directions_are_independent),
        law("a parked write ends when the peer resets", parked_writes_see_resets),
        law("a stopped read gives back its buffer and loses nothing", stopped_reads_lose_nothing),
        law("a stop that races with data loses nothing", racing_stops_lose_nothing),
        law("a stopped handle stops what starts later, a new one does not", handles_are_spent),
        law("one stop ends all its operations", one_stop_ends_all),
        law("a wait for readiness can be dropped", waits_are_droppable),
        law("a wait wakes on data, end and reset", waits_wake),
        law("a dropped wait closes the socket it kept", waits_let_go),
        law("a stopped accept leaks nothing", stopped_accepts_leak_nothing),
        law("an accept that is stopped while somebody dials leaks nothing", racing_accepts),
        law("a dial can be dropped and closes its socket", dials_are_droppable),
        law("a dial that nobody answers can be dropped", deaf_dials_are_droppable),
        law("a refused dial says so", refused_dials),
        law("an abort is a reset, a drop is an end", aborts_and_drops),
        law("an abort works beside a wait", aborts_beside_waits),
        law("a dropped writer ends one direction", half_close),
        law("bytes before a reset are read, its error is told once", resets_are_told_once),
        law("a write may take the error from the read", writes_take_the_error),
        law("closing with unread bytes resets", unread_bytes_reset),
        law("until gives the buffer back", until_gives_back),
        law("200 connections in flight do not mix", many_connections),
        law("timers never fire early", timers_are_not_early),
        law("spawned tasks run", tasks_run),
    ]
}

// Tools.

/// For what may be dropped: none if `at` comes first.
pub async fn or_late<R: Rt, T>(rt: &R, at: Tick, op: impl Future<Output = T>) -> Option<T> {
    let mut op = pin!(op);
    let mut timer = pin!(rt.sleep_until(at));
    std::future::poll_fn(|cx| match op.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Polls once.
async fn once<T>(op: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *op).poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Lets the driver run: what was submitted has then been seen by the kernel.
async fn turn<R: Rt>(rt: &R) {
    rt.sleep_until(rt.now() + Ms(1)).await;
}

impl<R: Rt> Bed<R> {
    /// The two ends of a new connection: the one that dialled first.
    async fn pair(&self) -> [End<R>; 2] {
        let near = self.rt.dial(self.addr).await.unwrap();
        let (reader, writer, _) = self.listener.accept(R::Stop::new().handle()).await.unwrap();
        [near, (reader, writer)]
    }

    /// Waits until only the sockets of the start are open.
    async fn all_closed(&self) {
        while (self.sockets)() != self.base {
            turn(&self.rt).await;
        }
    }
}

async fn send<W: Writer>(writer: &mut W, bytes: &[u8]) -> io::Result<()> {
    let mut buf = Buf::from(bytes);
    while !buf.is_empty() {
        let (sent, back) = writer.write(buf, W::Stop::new().handle()).await;
        buf = back;
        buf.consume(sent?);
    }
    Ok(())
}

async fn receive<D: Reader>(reader: &mut D, room: usize) -> io::Result<Vec<u8>> {
    let (count, buf) = reader.read(Buf::with_capacity(room), D::Stop::new().handle()).await;
    let count = count?;
    assert_eq!(count, buf.len());
    Ok(buf.as_slice().to_vec())
}

/// Reads until `len` bytes are there.
async fn receive_all<D: Reader>(reader: &mut D, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        let bytes = receive(reader, len - all.len()).await.unwrap();
        assert!(!bytes.is_empty(), "the end came after {} of {len}", all.len());
        all.extend(bytes);
    }
    all
}

fn failure<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

// Reads and writes.

async fn reads_append<R: Rt>(bed: Bed<R>) {
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

async fn reads_fit<R: Rt>(bed: Bed<R>) {
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
async fn count_to_end<D: Reader>(reader: &mut D) -> usize {
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
async fn fill<R: Rt>(rt: &R, writer: &mut R::Writer) -> usize {
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

async fn writes_say_how_much<R: Rt>(bed: Bed<R>) {
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

async fn stopped_writes_are_exact<R: Rt>(bed: Bed<R>) {
    let [(mut reader, _keep), (_far, mut writer)] = bed.pair().await;
    let told = fill(&bed.rt, &mut writer).await;
    assert!(told > 0);
    drop(writer);
    assert_eq!(count_to_end(&mut reader).await, told);
}

async fn directions_are_independent<R: Rt>(bed: Bed<R>) {
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

async fn parked_writes_see_resets<R: Rt>(bed: Bed<R>) {
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

async fn stopped_reads_lose_nothing<R: Rt>(bed: Bed<R>) {
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

async fn racing_stops_lose_nothing<R: Rt>(bed: Bed<R>) {
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

async fn handles_are_spent<R: Rt>(bed: Bed<R>) {
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

async fn one_stop_ends_all<R: Rt>(bed: Bed<R>) {
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

// Waits.

async fn waits_are_droppable<R: Rt>(bed: Bed<R>) {
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

async fn waits_wake<R: Rt>(bed: Bed<R>) {
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

async fn waits_let_go<R: Rt>(bed: Bed<R>) {
    let [near, far] = bed.pair().await;
    let mut wait = Box::pin(near.0.ready());
    assert!(once(&mut wait).await.is_none());
    turn(&bed.rt).await;
    drop(near);
    drop(wait);
    drop(far);
    bed.all_closed().await;
}

// Accepts and dials.

async fn stopped_accepts_leak_nothing<R: Rt>(bed: Bed<R>) {
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

async fn racing_accepts<R: Rt>(bed: Bed<R>) {
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

async fn dials_are_droppable<R: Rt>(bed: Bed<R>) {
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

async fn deaf_dials_are_droppable<R: Rt>(bed: Bed<R>) {
    for _ in 0..5 {
        let late = or_late(&bed.rt, bed.rt.now() + Ms(5), bed.rt.dial(bed.deaf)).await;
        assert!(late.is_none(), "nobody answers");
    }
    bed.all_closed().await;
}

async fn refused_dials<R: Rt>(bed: Bed<R>) {
    assert_eq!(failure(bed.rt.dial(bed.closed).await), Some(ECONNREFUSED));
    bed.all_closed().await;
}

// Ends and resets.

async fn aborts_and_drops<R: Rt>(bed: Bed<R>) {
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

async fn aborts_beside_waits<R: Rt>(bed: Bed<R>) {
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

async fn half_close<R: Rt>(bed: Bed<R>) {
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

async fn resets_are_told_once<R: Rt>(bed: Bed<R>) {
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

async fn writes_take_the_error<R: Rt>(bed: Bed<R>) {
    let [(mut reader, mut writer), (far_reader, far_writer)] = bed.pair().await;
    R::abort(far_reader, far_writer);
    let _ = reader.ready().await;
    assert_eq!(failure(send(&mut writer, b"x").await), Some(ECONNRESET));
    assert_eq!(receive(&mut reader, 8).await.unwrap(), b"");
}

async fn unread_bytes_reset<R: Rt>(bed: Bed<R>) {
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

async fn until_gives_back<R: Rt>(bed: Bed<R>) {
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

async fn many_connections<R: Rt>(bed: Bed<R>) {
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

async fn timers_are_not_early<R: Rt>(bed: Bed<R>) {
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

async fn tasks_run<R: Rt>(bed: Bed<R>) {
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
