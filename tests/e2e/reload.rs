//! Another config for a core that runs: what goes on, and what does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::client::{Client, ask, chat};
use crate::fallback::{expected, good};
use crate::rig::{Gateway, Provider, on_both, providers};

#[test]
fn connections_of_unchanged_providers_go_on() {
    on_both(|driver| {
        let make =
            |name: &'static str| Provider::start(move |c| c.as_mut().unwrap().say(good(name)));
        let (first, second) = (make("p0"), make("p1"));
        let gateway = Gateway::start(driver, &providers("", &[first.addr]));
        let mut client = Client::connect(gateway.addr);
        let mut ask = |name: &str| {
            client.send(chat(true, ""));
            assert_eq!(client.receive().text(), expected(name), "{driver:?}");
        };
        let counts = || {
            let of = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::SeqCst);
            (of(&gateway.notes.fresh), of(&gateway.notes.pooled))
        };
        ask("p0");
        // The endpoint moves to another place of the table, and its connection with it.
        let more =
            format!("[providers.x]\nkind = \"openai\"\nbase_url = \"http://{}/v1\"\n", second.addr);
        gateway.reload(&(more.clone() + &providers("", &[first.addr])));
        ask("p0");
        assert_eq!(counts(), (1, 1), "{driver:?}");
        gateway.reload(&providers("", &[second.addr]));
        ask("p1");
        assert_eq!(counts(), (2, 1), "{driver:?}");
        // The first provider's connection was dropped meanwhile.
        gateway.reload(&providers("", &[first.addr]));
        ask("p0");
        assert_eq!(counts(), (3, 1), "{driver:?}");
    });
}

#[test]
fn a_breaker_stays_open_over_a_reload() {
    on_both(|driver| {
        let primary = Provider::saying("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n");
        let second = Provider::start(|call| call.as_mut().unwrap().say(good("p1")));
        let addrs = [primary.addr, second.addr];
        let rule =
            "breaker = { failures = 2, error_rate = 1.0, window = \"60s\", open = \"600s\" }";
        let config = providers(rule, &addrs);
        let gateway = Gateway::start(driver, &config);
        for _ in 0..2 {
            assert_eq!(ask(gateway.addr, &chat(true, "")).text(), expected("p1"));
        }
        gateway.reload(&(config.clone() + "[models.n]\ntargets = [\"p0/up\"]\n"));
        let answer = ask(gateway.addr, &chat(true, ""));
        assert_eq!(answer.text(), expected("p1"), "{driver:?}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p1/up;ok"), "{driver:?}: {attempts}");
    });
}

#[test]
fn a_running_exchange_keeps_what_it_began_with() {
    on_both(|driver| {
        let go = Arc::new(AtomicBool::new(false));
        let gate = go.clone();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = seen.clone();
        let primary = Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            notes.lock().unwrap().push(call.request.lines().next().unwrap().to_owned());
            while !gate.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            call.say("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")
        });
        let second = Provider::start(|call| call.as_mut().unwrap().say(good("p1")));
        let gateway = Gateway::start(driver, &providers("", &[primary.addr, second.addr]));
        let mut client = Client::connect(gateway.addr);
        client.send(chat(true, ""));
        crate::rig::wait_for("the attempt", || (!seen.lock().unwrap().is_empty()).then_some(()));
        // Neither provider is there any more, nor the model, when the first attempt fails.
        let other = Provider::start(|call| call.as_mut().unwrap().say(good("other")));
        gateway.reload(&providers("", &[other.addr]).replace("models.m", "models.n"));
        go.store(true, Ordering::SeqCst);
        assert_eq!(client.receive().text(), expected("p1"), "{driver:?}");
        // The next request of the same connection has the new config.
        client.send(chat(true, ""));
        assert_eq!(client.receive().status, 404, "{driver:?}");
        client.send(chat(true, "").replace("\"m\"", "\"n\""));
        assert!(client.receive().text().contains("hello from other"), "{driver:?}");
    });
}

#[test]
fn a_ledger_names_the_key_of_its_own_time() {
    let auth = |names: [&str; 2]| {
        let key = |name: &str, digit: &str| {
            // The SHA-256 of "a" and "b".
            let sum = match digit {
                "a" => "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
                _ => "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
            };
            format!("{{ name = \"{name}\", sha256 = \"{sum}\" }}")
        };
        format!("[auth]\nkeys = [{}, {}]\n", key(names[0], "a"), key(names[1], "b"))
    };
    on_both(|driver| {
        let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
        let rest = providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &(auth(["first", "second"]) + &rest));
        let request = chat(true, "authorization: Bearer b\r\n");
        assert_eq!(ask(gateway.addr, &request).status, 200);
        gateway.reload(&(auth(["second", "renamed"]) + &rest));
        assert_eq!(ask(gateway.addr, &request).status, 200);
        let ledgers = gateway.ledgers(2);
        let keys: Vec<_> = ledgers.iter().map(|ledger| ledger.caller.as_deref()).collect();
        assert_eq!(keys, [Some("second"), Some("renamed")], "{driver:?}");
    });
}
