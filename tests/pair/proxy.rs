//! A network between two nodes that does what networks do: flips bits, cuts connections in the middle of a message,
//! stops moving, hands out small pieces.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::kills::Dice;

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// One piece in so many has a bit flipped; 0: none.
    pub(crate) flip_one_in: u64,
    /// One piece in so many ends its connection, half of the piece delivered; 0: none.
    pub(crate) cut_one_in: u64,
    /// Largest piece.
    pub(crate) piece_bytes_max: usize,
}

/// A proxy in front of one address.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    weather: Weather,
    calm: AtomicBool,
    flips: AtomicU64,
    cuts: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Listens on a free port of loopback and passes everything on to `to`.
    pub(crate) fn start(to: &str, weather: Weather, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
        let address = listener.local_addr().expect("its address").to_string();
        let shared = Arc::new(Shared {
            weather,
            calm: AtomicBool::new(false),
            flips: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let (to, passed) = (to.to_owned(), Arc::clone(&shared));
        thread::spawn(move || {
            for (number, inward) in (0u64..).zip(listener.incoming().map_while(Result::ok)) {
                let Ok(outward) = TcpStream::connect(&to) else { continue };
                passed.remember(&inward, &outward);
                let dice = move |side| Dice::new(seed ^ (number * 2 + side));
                let (back_in, back_out) = (inward.try_clone(), outward.try_clone());
                let (Ok(back_in), Ok(back_out)) = (back_in, back_out) else { continue };
                let (there, back) = (Arc::clone(&passed), Arc::clone(&passed));
                thread::spawn(move || there.carry(inward, outward, dice(0)));
                thread::spawn(move || back.carry(back_out, back_in, dice(1)));
            }
        });
        Proxy { address, shared }
    }

    /// Where to connect to.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on it is a good network.
    pub(crate) fn calm_down(&self) {
        self.shared.calm.store(true, Ordering::SeqCst);
    }

    /// Cuts every connection that is open.
    pub(crate) fn cut_all(&self) {
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many bits were flipped, and how many connections cut.
    pub(crate) fn done(&self) -> (u64, u64) {
        (self.shared.flips.load(Ordering::SeqCst), self.shared.cuts.load(Ordering::SeqCst))
    }
}

impl Shared {
    fn remember(&self, inward: &TcpStream, outward: &TcpStream) {
        let both = [inward, outward].into_iter().filter_map(|stream| stream.try_clone().ok());
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend(both);
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, mut dice: Dice) {
        let mut buffer = vec![0; self.weather.piece_bytes_max];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = &mut buffer[..count];
            let happens = |one_in: u64, dice: &mut Dice| {
                !self.calm.load(Ordering::SeqCst) && one_in > 0 && dice.below(one_in) == 0
            };
            if happens(self.weather.flip_one_in, &mut dice) {
                piece[dice.below(count as u64) as usize] ^= 1 << dice.below(8);
                self.flips.fetch_add(1, Ordering::SeqCst);
            }
            if happens(self.weather.cut_one_in, &mut dice) {
                let _ = to.write_all(&piece[..count / 2]);
                self.cuts.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if to.write_all(piece).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
