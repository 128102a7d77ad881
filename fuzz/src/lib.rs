//! What the fuzz targets check: each decoder against a naive one, whatever is translated against readers
//! of its own, and that the way in which bytes are cut never shows. The naive ones are written apart from
//! those of the unit tests on purpose.

pub mod aws_event;
pub mod body;
pub mod config;
mod dialect;
pub mod exchange;
pub mod head;
pub mod json;
#[path = "../../tests/http1/naive.rs"]
pub mod naive;
mod naive_response;
pub mod pair;
pub mod provider;
pub mod request;
pub mod response;
pub mod sse;
mod stage;

/// Takes a byte off the input that says how the rest is cut, and gives the ends of the pieces:
/// none, one cut somewhere, or pieces of a fixed or a growing size.
pub fn cuts(data: &[u8]) -> (Vec<usize>, &[u8]) {
    let Some((seed, rest)) = data.split_first() else { return (Vec::new(), data) };
    let seed = usize::from(*seed);
    let cuts = match seed {
        0 => Vec::new(),
        1..=63 => (0..rest.len()).step_by(seed).collect(),
        64..=127 => {
            let growing = (1..).scan(0, |at, step| {
                *at += step % (seed - 62);
                Some(*at)
            });
            growing.take(4 * rest.len() + 4).take_while(|at| *at < rest.len()).collect()
        }
        _ => vec![(seed - 128) * rest.len() / 128],
    };
    (cuts, rest)
}
